//! Layers for multi-token prediction, and whatever else lies beside the architecture, where widths
//! are cut or coordinates turned (tests/golden/mimo-mtp).
use crate::{decode, golden, util};
use milm_compress::{
    forward::{Embedding, Head, NextLayer, Reference, Rows, Scratch},
    linalg::Team,
    model::{Model, ModelSpec, NextLayerError},
    package::{self, Job, compressed_tensors::vllm},
    progress::Silent,
    prune::{self, Settings},
    quantize,
    runtime::{
        Engine, GenerateSettings, Kernels, Mtp, Plain, Proposer as _, Speculation, Wanted,
        generate_with,
    },
    tensor::RawTensor,
    transform::{self, Rotate, Transform},
};
use ndarray::{Array2, s};

fn mimo() -> Model {
    util::open(&util::golden().join("mimo-mtp"))
}

fn layers(model: &Model) -> usize {
    model.weights.raw.keys().filter(|name| name.starts_with("model.mtp_layers.0.")).count()
}

fn narrower(model: &Model) -> ModelSpec {
    let mut config = model.config.clone();
    config["intermediate_size"] = 32.into();
    ModelSpec::from_config(&config).unwrap()
}

fn rotation(model: &Model, rotate: Rotate) -> Transform {
    let settings = transform::Settings { rotate: Some(rotate), ..transform::Settings::default() };
    Transform::new(model, &settings, (0, 0.125), None).unwrap()
}

#[test]
fn the_main_path_of_mimo_agrees_with_transformers() {
    let model = mimo();
    assert_eq!((model.spec.family, layers(&model), model.extras().len()), ("mimo", 16, 16));
    let file = util::golden().join("mimo-mtp/golden.safetensors");
    assert!(golden::difference(&model, &file) < 1e-4);
}

#[test]
fn layers_for_multi_token_prediction_go_where_their_widths_are_cut() {
    let model = mimo();
    assert_eq!(model.stranded(&narrower(&model)).len(), 16);
    let settings = Settings { keep: Some(0.8), ..Settings::default() };
    let plan = prune::Plan::of(&model, &settings).unwrap();
    assert_eq!(plan.config["num_nextn_predict_layers"], 0);
    assert_eq!(layers(&plan.outline(&model)), 0);
    assert!(plan.notes.iter().any(|it| it.contains("model.mtp_layers.0")), "{:?}", plan.notes);
    // The twin: what is not cut stays.
    let same = prune::pruned_config(&model.config, &model.spec, &kept_all(&model)).unwrap();
    assert_eq!(same["num_nextn_predict_layers"], 1);
    assert!(model.stranded(&model.spec).is_empty());
}

fn kept_all(model: &Model) -> Vec<prune::Kept> {
    model.spec.blocks.iter().map(prune::Kept::all).collect()
}

#[test]
fn layers_for_multi_token_prediction_go_where_the_stream_is_turned() {
    let model = mimo();
    let turned = rotation(&model, Rotate::Hadamard).apply(&model).unwrap();
    assert_eq!((layers(&turned), turned.extras().len()), (0, 0));
    assert_eq!(turned.config["num_nextn_predict_layers"], 0);
    let file = util::golden().join("mimo-mtp/golden.safetensors");
    assert!(golden::difference(&turned, &file) < 1e-4);
    let plain = rotation(&model, Rotate::None).apply(&model).unwrap();
    assert_eq!((layers(&plain), &plain.config["num_nextn_predict_layers"]), (16, &1.into()));
}

/// The rule holds for any tensor, not for names that are known.
#[test]
fn unknown_tensors_go_where_one_of_their_axes_is_cut_or_turned() {
    let mut model = mimo();
    let zeros =
        |shape: Vec<usize>| RawTensor::from_f32(shape.clone(), &vec![0.0; shape.iter().product()]);
    for (name, shape) in [
        ("medusa.hidden", vec![32, 32]),
        ("medusa.pair", vec![5, 64]),
        ("medusa.inner", vec![48, 5]),
        ("medusa.free", vec![5, 7]),
    ] {
        model.weights.raw.insert(name.into(), zeros(shape));
    }
    let own = |names: Vec<String>| {
        names.into_iter().filter(|it| it.starts_with("medusa")).collect::<Vec<_>>()
    };
    assert_eq!(own(model.stranded(&narrower(&model))), ["medusa.inner"]);
    let turned = rotation(&model, Rotate::Hadamard);
    let turned = ModelSpec::from_config(&turned.config(&model.config)).unwrap();
    assert_eq!(own(model.stranded(&turned)), ["medusa.hidden", "medusa.pair"]);
}

#[test]
fn a_package_carries_layers_for_multi_token_prediction_in_float_and_ignores_them() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let opened = package::open(util::golden().join("mimo-mtp").to_str().unwrap()).unwrap();
    let settings = quantize::Settings {
        method: Some(quantize::Method::Minmax),
        group_size: Some(quantize::GroupSize::Of(16)),
        ..quantize::Settings::default()
    };
    let team = Team::new(2);
    let recipe = serde_json::Value::Null;
    let job = Job {
        opened: &opened,
        settings: &settings,
        recipe: &recipe,
        team: &team,
        progress: &Silent,
    };
    job.write(&target, false).unwrap();
    let package = package::open(target.to_str().unwrap()).unwrap();
    assert_eq!(
        (layers(&package.model), &package.model.config["num_nextn_predict_layers"]),
        (16, &1.into())
    );
    let ignore = package.model.config["quantization_config"]["ignore"].as_array().unwrap();
    let matrices =
        ["input_proj", "self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"];
    for module in matrices.map(|it| format!("model.mtp_layers.0.{it}")) {
        assert!(ignore.iter().any(|it| *it == module.as_str()), "{module}");
        let name = format!("{module}.weight");
        let [before, after] = [&opened.model, &package.model].map(|it| &it.weights.raw[&name]);
        assert_eq!((&after.shape, &*after.bytes), (&before.shape, &*before.bytes));
    }
    assert!(vllm(&package).iter().flat_map(|it| &it.places).all(|it| !it.contains("mtp")));
}

/// Both texts of the golden file, and what torch says behind each of their tokens but the last.
fn guesses() -> Vec<(Vec<u32>, Array2<f32>)> {
    let folder = util::golden().join("mimo-mtp");
    let ids = util::tensors(&folder.join("golden.safetensors"))["input_ids"].clone();
    let ids = ids.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32);
    let logits = util::tensors(&folder.join("next.safetensors"))["logits"].to_f32().unwrap();
    let logits =
        logits.chunks(47 * 128).map(|it| Array2::from_shape_vec((47, 128), it.to_vec()).unwrap());
    ids.collect::<Vec<u32>>().chunks(48).map(<[u32]>::to_vec).zip(logits).collect()
}

/// Largest difference of what the layer says from torch, over the largest logit, read in parts of so
/// many rows from a first place on.
fn next_difference(model: &Model, rows: usize, first: usize) -> f32 {
    let team = Team::new(1);
    let layer = NextLayer::load(&model.next_layer().unwrap(), &Reference).unwrap();
    let (embedding, head) =
        (Embedding::load(model).unwrap(), Head::load(model, &Reference).unwrap());
    let mut worst = 0.0_f32;
    for (ids, want) in guesses() {
        let mut engine = Engine::load(model, &Reference, &team, &Silent).unwrap();
        engine.keep_states(Wanted::All);
        engine.feed(&ids).unwrap();
        let states = engine.take_states();
        let (mut cache, mut scratch) = (layer.cache(), Scratch::default());
        let largest = want.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        for start in (0..47).step_by(rows) {
            let end = 47.min(start + rows);
            let next = embedding.rows(&ids[start + 1..=end]).unwrap();
            let states = states.rows();
            let part = (first + start, states.slice(s![start..end, ..]));
            let made = layer.forward(part, next.view(), &mut cache, (&team, &mut scratch));
            let got = head.read(made.view(), (&team, Rows::Together));
            let want = want.slice(s![start..end, ..]);
            worst = got.iter().zip(want).fold(worst, |m, (g, w)| m.max((g - w).abs() / largest));
        }
    }
    worst
}

#[test]
fn the_layer_guesses_what_torch_says() {
    let mut model = mimo();
    for rows in [47, 1, 10] {
        let found = next_difference(&model, rows, 0);
        assert!(found < 1e-4, "{rows}: {found}");
    }
    // The twins: at other places, where the first embedding is seen too, and with the halves of the
    // input exchanged.
    assert!(next_difference(&model, 47, 1) > 1e-2);
    let input = model.weights.raw.get_mut("model.mtp_layers.0.input_proj.weight").unwrap();
    let values = Array2::from_shape_vec((32, 64), input.to_f32().unwrap()).unwrap();
    let turned = Array2::from_shape_fn((32, 64), |(row, at)| values[(row, (at + 32) % 64)]);
    *input = RawTensor::from_f32(vec![32, 64], turned.as_slice().unwrap());
    assert!(next_difference(&model, 47, 0) > 1e-2);
}

#[test]
fn the_layer_offers_the_best_of_its_guesses() {
    let (model, team) = (mimo(), Team::new(1));
    let mut engine = Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
    let layer = model.next_layer().unwrap();
    let first = Mtp::new(&layer, &engine, &Kernels::new()).unwrap();
    for (ids, logits) in guesses() {
        let mut mtp = first.another();
        engine.truncate(0);
        engine.keep_states(Wanted::All);
        // A prompt, then rows one by one and in twos, some of which are forgotten.
        let ends = [9, 10, 12, 13, 15, 21, 40, 47];
        let mut read = 0;
        for end in ends {
            engine.feed(&ids[read..end]).unwrap();
            if end == 12 {
                engine.feed(&[7, 7]).unwrap();
                engine.truncate(end);
            }
            read = end;
            mtp.see(engine.take_states());
            if end == 13 {
                continue; // Offers rest, states come.
            }
            let row = logits.row(end - 1);
            let best = (0..128).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
            let offered = mtp.offer(&ids[..=end], 3).unwrap();
            assert_eq!((offered.len(), offered[0]), (3, best as u32), "behind {end}");
        }
    }
}

#[test]
fn the_layer_leaves_every_text_as_it_is() {
    let (mut model, team) = (mimo(), Team::new(1));
    let own = Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
    let layer = model.next_layer().unwrap();
    for kv_cache in decode::KV {
        model.spec.kv_cache = kv_cache;
        for (sampling, threads) in decode::samplings().into_iter().zip([2, 1, 1, 1, 1, 1]) {
            let settings = GenerateSettings { max_tokens: 40, sampling, ..Default::default() };
            let want = decode::plain(&model, &settings, 4000, 99);
            let mtp = Mtp::new(&layer, &own, &Kernels::new()).unwrap();
            let mut speculation = Speculation::new(mtp, 3);
            let got = decode::write((&model, threads), &settings, 4000, &mut speculation, 99);
            assert_eq!((&got.0, got.1.concat(), got.2), (&want.0, want.1.concat(), want.2));
            assert!(got.3.offered > 60, "{:?}", got.3);
        }
    }
}

#[test]
fn a_conversation_goes_on_with_the_layer() {
    let (model, team) = (mimo(), Team::new(1));
    let (tokenizer, layer) = (decode::tokenizer(4000), model.next_layer().unwrap());
    let settings = GenerateSettings { max_tokens: 20, ..Default::default() };
    let talk = |offers: bool| {
        let mut engine = Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
        let mut speculation = if offers {
            Speculation::new(Mtp::new(&layer, &engine, &Kernels::new()).unwrap(), 3)
        } else {
            Speculation::new(Plain, 0)
        };
        let (mut text, mut all) = (decode::ids(3, 10), Vec::new());
        for turn in 0..3 {
            let model = (&mut engine as _, &mut speculation);
            let done = generate_with(model, &tokenizer, &text, &settings, &mut |_| true).unwrap();
            assert_eq!(speculation.take_counts().offered > 20, offers);
            all.push(done.clone());
            text.extend(done.ids);
            text.extend(decode::ids(turn, 5));
        }
        all
    };
    assert_eq!(talk(true), talk(false));
}

#[test]
fn layers_that_do_not_fit_are_refused() {
    let told = |model: &Model| model.next_layer().unwrap_err().to_string();
    let none = told(&util::open(&util::golden().join("qwen2")));
    assert!(none.contains("no layers for multi-token prediction\nhint: "), "{none}");
    let turned = rotation(&mimo(), Rotate::Hadamard).apply(&mimo()).unwrap();
    assert!(matches!(turned.next_layer(), Err(NextLayerError::None)), "they were left out");
    // Put back where they do not belong.
    let mut forged = turned;
    let layers = mimo().weights.raw;
    forged.weights.raw.extend(layers.into_iter().filter(|it| it.0.contains("mtp_layers")));
    let error = told(&forged);
    assert!(error.contains("was turned (`hadamard`)\nhint: "), "{error}");
    let name = "model.mtp_layers.0.mlp.up_proj.weight";
    let mut cut = mimo();
    cut.weights.raw.insert(name.into(), RawTensor::from_f32(vec![40, 32], &[0.0; 40 * 32]));
    let error = told(&cut);
    assert!(
        error.contains(name) && error.contains("[48, 32]") && error.contains("hint: "),
        "{error}"
    );
    cut.weights.raw.remove(name);
    assert!(told(&cut).contains("is missing"));
    let mut command = crate::cli::program();
    command.args(["run", "builtin:milm-mini", "--prompt=a", "--mtp"]).assert().code(2);
}
