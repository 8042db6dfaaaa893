//! Medusa heads: folders in two layouts, what they offer, what they leave as it is.
use crate::{
    cli::program,
    decode::{self, ids},
    util,
};
use milm_compress::{
    linalg::Team,
    model::Model,
    package::{self, MedusaHeads},
    progress::Silent,
    runtime::{
        Counts, Engine, GenerateSettings, Kernels, Medusa, Proposer as _, Speculation, Wanted,
        generate_with,
    },
    tensor::{Bytes, Dtype, RawTensor},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};

type Tensors = BTreeMap<String, RawTensor>;

fn golden() -> String {
    util::golden().join("medusa").to_str().unwrap().to_owned()
}

fn write(folder: &Path, file: &str, tensors: &Tensors, config: &Value) {
    let views = tensors.iter().map(|(name, it)| {
        (name, safetensors::tensor::TensorView::new(it.dtype, it.shape.clone(), &it.bytes).unwrap())
    });
    fs::write(folder.join(file), safetensors::serialize(views, None).unwrap()).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// What heads of a folder offer behind some texts of milm-mini, two tokens a pass.
fn counts(folder: &str) -> Counts {
    let opened = package::open("builtin:milm-mini").unwrap();
    let (team, tokenizer) = (Team::new(1), opened.tokenizer().unwrap());
    let mut engine = Engine::load(&opened.model, &Kernels::new(), &team, &Silent).unwrap();
    let settings =
        GenerateSettings { max_tokens: 48, ignore_eos: true, ..GenerateSettings::default() };
    let mut write = |prompt: &str, speculation: &mut Speculation<'_>| {
        engine.truncate(0);
        let prompt = tokenizer.encode(prompt, true).unwrap();
        let model = (&mut engine as _, speculation);
        generate_with(model, tokenizer, &prompt, &settings, &mut |_| true).unwrap()
    };
    let heads = MedusaHeads::open(folder, (192, 4096)).unwrap();
    let own = Engine::load(&opened.model, &Kernels::new(), &team, &Silent).unwrap();
    let mut offered = Speculation::new(Medusa::new(heads, &own, &Kernels::new()), 2);
    let mut plain = Speculation::new(milm_compress::runtime::Plain, 0);
    for prompt in ["It was the best of", "the old man", "Once upon a time", "He said"] {
        assert_eq!(write(prompt, &mut offered), write(prompt, &mut plain), "{prompt}");
    }
    Counts { proposer_seconds: 0.0, target_seconds: 0.0, ..offered.take_counts() }
}

#[test]
fn trained_heads_are_accepted_where_untrained_ones_are_not() {
    let top = tempfile::tempdir().unwrap();
    let trained = util::tensors(&util::golden().join("medusa/model.safetensors"));
    let config: Value = serde_json::from_str(
        &fs::read_to_string(util::golden().join("medusa/config.json")).unwrap(),
    )
    .unwrap();
    let zeros =
        |it: &RawTensor| RawTensor { bytes: Bytes::owned(vec![0; it.bytes.len()]), ..it.clone() };
    let untrained = trained.iter().map(|(name, it)| (name.clone(), zeros(it))).collect();
    write(top.path(), "model.safetensors", &untrained, &config);
    let (with, without) = (counts(&golden()), counts(top.path().to_str().unwrap()));
    assert!(with.accepted * 20 > with.offered, "{with:?}");
    assert!(with.accepted > 2 * without.accepted, "{with:?} {without:?}");
    assert_eq!(with.by_position.len(), 2);
    assert!(with.by_position[0].accepted > with.by_position[1].accepted, "{with:?}");

    // The same heads as their authors write them.
    let theirs = trained.into_iter().map(|(name, it)| {
        let name = name.replace("blocks.", "").replace(".layers.0.", ".0.linear.");
        (name, it)
    });
    let other = tempfile::tempdir().unwrap();
    let config = json!({"medusa_num_heads": 5, "medusa_num_layers": 1, "original_lm_head": true});
    write(other.path(), "medusa_lm_head.safetensors", &theirs.collect(), &config);
    assert_eq!(counts(other.path().to_str().unwrap()), with);
}

/// Random heads for the golden models: 64 wide, 128 tokens.
fn random(heads: usize, rows: usize) -> Tensors {
    let mut state = 5_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_041);
        ((state >> 40) as f32) / 8_388_608.0 - 1.0
    };
    let mut tensor = |shape: Vec<usize>| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
        RawTensor::from_f32(shape, &values)
    };
    let mut all = Tensors::new();
    for i in 0..heads {
        for j in 0..2 {
            all.insert(format!("blocks.{i}.layers.{j}.weight"), tensor(vec![64, 64]));
            all.insert(format!("blocks.{i}.layers.{j}.bias"), tensor(vec![64]));
        }
        all.insert(format!("lm_heads.{i}.weight"), tensor(vec![rows, 64]));
    }
    all
}

/// By the definition, in float64: the row of the matrix that answers best.
fn defined(tensors: &Tensors, head: usize, state: &[f32]) -> usize {
    let get = |name: String| -> Vec<f64> {
        tensors[&name].to_f32().unwrap().into_iter().map(f64::from).collect()
    };
    let product = |matrix: &[f64], x: &[f64]| -> Vec<f64> {
        matrix.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
    };
    let mut x: Vec<f64> = state.iter().map(|it| f64::from(*it)).collect();
    for j in 0..2 {
        let bias = get(format!("blocks.{head}.layers.{j}.bias"));
        let inner = product(&get(format!("blocks.{head}.layers.{j}.weight")), &x);
        for ((x, inner), bias) in x.iter_mut().zip(inner).zip(bias) {
            let z = inner + bias;
            *x += z / (1.0 + (-z).exp());
        }
    }
    let logits = product(&get(format!("lm_heads.{head}.weight")), &x);
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}

fn config() -> Value {
    json!({"model_type": "medusa", "hidden_size": 64, "vocab_size": 128, "num_heads": 9})
}

#[test]
fn heads_offer_what_their_definition_says() {
    let model = util::open(&util::golden().join("llama"));
    let team = Team::new(1);
    let mut engine = Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
    // Truncated matrices stand for every third token, backwards.
    let map: Vec<u32> = (0..40).map(|row| 127 - 3 * row).collect();
    for rows in [128, 40] {
        let top = tempfile::tempdir().unwrap();
        let mut tensors = random(3, rows);
        if rows < 128 {
            let bytes = map.iter().flat_map(|id| i64::from(*id).to_le_bytes()).collect();
            let (dtype, shape, bytes) = (Dtype::I64, vec![40], Bytes::owned(bytes));
            tensors.insert("token_map".into(), RawTensor { dtype, shape, bytes });
        }
        write(top.path(), "model.safetensors", &tensors, &config());
        let heads = MedusaHeads::open(top.path().to_str().unwrap(), (64, 128)).unwrap();
        let mut medusa = Medusa::new(heads, &engine, &Kernels::new());
        assert_eq!(medusa.heads(), 3);
        let mut distinct = std::collections::BTreeSet::new();
        for start in 0..6 {
            let text = ids(start, 9);
            engine.truncate(0);
            engine.keep_states(Wanted::Last);
            engine.feed(&text[..8]).unwrap();
            let states = engine.take_states();
            let want: Vec<u32> = (0..3)
                .map(|head| defined(&tensors, head, states.last().unwrap()))
                .map(|row| if rows < 128 { map[row] } else { row as u32 })
                .collect();
            medusa.see(states);
            assert_eq!(medusa.offer(&text, 5).unwrap(), want);
            assert_eq!(medusa.offer(&text, 2).unwrap(), want[..2]);
            assert!(medusa.offer(&text[..8], 2).unwrap().is_empty(), "of another place");
            distinct.extend(want);
        }
        assert!(distinct.len() > 6, "{distinct:?}");
    }
}

#[test]
fn heads_leave_every_text_as_it_is() {
    let top = tempfile::tempdir().unwrap();
    write(top.path(), "model.safetensors", &random(3, 128), &config());
    let (mut model, team): (Model, _) = (util::open(&util::golden().join("llama")), Team::new(1));
    let own = Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
    for kv_cache in decode::KV {
        model.spec.kv_cache = kv_cache;
        for (sampling, threads) in decode::samplings().into_iter().zip([2, 1, 1, 1, 1, 1]) {
            let settings = GenerateSettings { max_tokens: 40, sampling, ..Default::default() };
            let want = decode::plain(&model, &settings, 4000, 99);
            let heads = MedusaHeads::open(top.path().to_str().unwrap(), (64, 128)).unwrap();
            let medusa = Medusa::new(heads, &own, &Kernels::new());
            let mut speculation = Speculation::new(medusa, 3);
            let got = decode::write((&model, threads), &settings, 4000, &mut speculation, 99);
            assert_eq!((&got.0, got.1.concat(), got.2), (&want.0, want.1.concat(), want.2));
            assert!(got.3.offered > 60, "{:?}", got.3);
        }
    }
}

#[test]
fn run_takes_heads_from_a_folder() {
    let out = |more: &[&str]| {
        let mut command = program();
        command.args(["run", "builtin:milm-mini", "--prompt", "It was the best of", "--json"]);
        let done = command.args(["--max-tokens=24", "--quiet"]).args(more).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice::<Value>(&done.stdout).unwrap()
    };
    let (plain, got) = (out(&[]), out(&["--medusa", &golden()]));
    assert_eq!(got["ids"], plain["ids"]);
    let written = got["ids"].as_array().unwrap().len() as u64;
    let count = |key: &str| got["speculation"][key].as_u64().unwrap();
    assert_eq!(1 + count("passes") + count("accepted"), written);
}

fn put(tensors: &mut Tensors, name: &str, shape: &[usize]) {
    let zeros = vec![0.0; shape.iter().product()];
    tensors.insert(name.to_owned(), RawTensor::from_f32(shape.to_vec(), &zeros));
}

fn map(tensors: &mut Tensors, ids: &[i64]) {
    let bytes = Bytes::owned(ids.iter().flat_map(|id| id.to_le_bytes()).collect());
    let map = RawTensor { dtype: Dtype::I64, shape: vec![ids.len()], bytes };
    tensors.insert("token_map".to_owned(), map);
}

type Change = fn(&mut Tensors, &mut Value);

/// What is done to heads, and what is told of it.
fn changes() -> [(Change, &'static [&'static str]); 14] {
    [
        (
            |t, _| put(t, "blocks.1.layers.0.weight", &[64, 32]),
            &["blocks.1.layers.0.weight", "[64, 64]", "[64, 32]"],
        ),
        (
            |t, _| put(t, "blocks.1.layers.0.bias", &[32]),
            &["blocks.1.layers.0.bias", "[64]", "[32]"],
        ),
        (
            |t, _| put(t, "lm_heads.1.weight", &[100, 64]),
            &["lm_heads.1.weight", "[128, 64]", "[100, 64]"],
        ),
        (
            |t, _| drop(t.remove("lm_heads.1.weight")),
            &["lm_heads.1.weight", "missing", "original_lm_head"],
        ),
        (
            |t, _| drop(t.remove("blocks.0.layers.1.weight")),
            &["blocks.0.layers.1.weight", "missing"],
        ),
        (
            |t, _| put(t, "blocks.3.layers.0.weight", &[64, 64]),
            &["blocks.2.layers.0.weight", "missing"],
        ),
        (
            |t, _| put(t, "blocks.64.layers.0.weight", &[64, 64]),
            &["blocks.64.layers.0.weight", "no Medusa head"],
        ),
        (|t, _| put(t, "fc.weight", &[64, 64]), &["fc.weight", "no Medusa head"]),
        (
            |t, c| {
                drop(t.remove("blocks.1.layers.0.bias"));
                c["medusa_fc_bias"] = true.into();
            },
            &["blocks.1.layers.0.bias", "medusa_fc_bias"],
        ),
        (|_, c| c["hidden_size"] = 32.into(), &["hidden_size", "64", "32"]),
        (|_, c| c["vocab_size"] = 129.into(), &["vocab_size", "128", "129"]),
        (|t, _| map(t, &[1, 2, 128]), &["token_map", "below 128", "128"]),
        (|t, _| map(t, &[1, 2, 1]), &["token_map", "each once"]),
        (
            |t, _| {
                let bytes = Bytes::owned(vec![0; 64 * 64]);
                let codes = RawTensor { dtype: Dtype::I8, shape: vec![64, 64], bytes };
                t.insert("blocks.0.layers.0.weight".to_owned(), codes);
            },
            &["blocks.0.layers.0.weight", "F32, F16 or BF16", "I8"],
        ),
    ]
}

#[test]
fn heads_that_do_not_fit_are_refused_by_name() {
    for (change, told) in changes() {
        let top = tempfile::tempdir().unwrap();
        let (mut tensors, mut config) = (random(2, 128), config());
        change(&mut tensors, &mut config);
        write(top.path(), "model.safetensors", &tensors, &config);
        let error =
            MedusaHeads::open(top.path().to_str().unwrap(), (64, 128)).unwrap_err().to_string();
        assert!(told.iter().all(|it| error.contains(it)), "{told:?}: {error}");
        assert!(error.contains("\nhint: "), "{error}");
    }
    let top = tempfile::tempdir().unwrap();
    fs::write(top.path().join("medusa_lm_head.pt"), "x").unwrap();
    let mut command = program();
    command.args(["run", "builtin:milm-mini", "--prompt=a", "--medusa"]).arg(top.path());
    command.assert().code(2).stderr(predicates::str::contains("Python pickle"));
}
