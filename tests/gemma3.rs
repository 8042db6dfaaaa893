//! Gemma 3, the family whose blocks have another form: against transformers (tests/golden/gemma3), what is
//! computed of it, and what is refused before work.
use crate::{
    cli::program,
    gguf::export::{in_llama_cpp, largest, logits, read, write},
    golden::difference,
    prune::ids,
    util,
};
use milm_compress::{
    forward::Reference,
    linalg::Team,
    model::{Half, Model, Op, Role},
    package::gguf::{Arch, ExportOptions, accepts},
    progress::Silent,
    prune,
    runtime::Engine,
    tensor::FloatType,
    transform::{Rotate, Settings, Transform},
};
use serde_json::{Value, json};

/// The checkpoint with changes to its `config.json`.
fn changed(change: impl Fn(&mut Value)) -> Model {
    let model = util::open(&util::golden().join("gemma3"));
    let mut config = model.config.clone();
    change(&mut config);
    Model::new(config, model.weights).unwrap()
}

fn found(model: &Model) -> f32 {
    difference(model, &util::golden().join("gemma3/golden.safetensors"))
}

/// The `config.json` as it lies there, before anything is stated.
fn published(change: impl Fn(&mut Value)) -> Value {
    let text = std::fs::read(util::golden().join("gemma3/config.json")).unwrap();
    let mut config = serde_json::from_slice(&text).unwrap();
    change(&mut config);
    config
}

#[test]
fn logits_are_those_of_transformers() {
    let of = found(&changed(|_| ()));
    assert!(of < 1e-4, "{of}");
}

/// The twins: with one part of the form left out, the same comparison must fail, by far.
#[test]
fn every_part_of_the_form_is_seen() {
    type Change = fn(&mut Model);
    let parts: [(&str, Change); 8] = [
        ("gains about 1", |it| it.spec.gain_offset = 0.0),
        ("the scale of embeddings", |it| it.spec.embed_scale = 1.0),
        ("the rope of windows", |it| it.spec.local_rope = None),
        ("the window", |it| it.spec.blocks[0].window = None),
        ("the block that sees everything", |it| it.spec.blocks[5].window = Some(16)),
        ("the width of scores", |it| {
            replace(it, |op| matches!(op, Op::Attend { .. }), Op::Attend { width: None });
        }),
        ("the norm behind attention", |it| drop_op(it, Op::Norm(Role::PostAttnNorm))),
        ("the norm behind the MLP", |it| drop_op(it, Op::Norm(Role::PostMlpNorm))),
    ];
    for (part, change) in parts {
        let mut model = changed(|_| ());
        change(&mut model);
        let of = found(&model);
        assert!(of > 1e-2, "{part} changes the logits by {of} only");
    }
}

fn replace(model: &mut Model, which: impl Fn(&Op) -> bool, with: Op) {
    let ops = model.spec.blocks.iter_mut().flat_map(|block| block.ops.iter_mut().flatten());
    ops.filter(|op| which(op)).for_each(|op| *op = with);
}

fn drop_op(model: &mut Model, without: Op) {
    let halves = model.spec.blocks.iter_mut().flat_map(|block| &mut block.ops);
    halves.for_each(|ops| ops.retain(|op| *op != without));
}

#[test]
fn the_form_is_the_one_that_was_published() {
    let model = changed(|_| ());
    let windows: Vec<_> = model.spec.blocks.iter().map(|block| block.window).collect();
    assert_eq!(windows, [Some(16), Some(16), Some(16), Some(16), Some(16), None, Some(16)]);
    let last = |half| model.spec.blocks[0].ops(half).last().copied();
    assert_eq!(last(Half::Attention), Some(Op::Norm(Role::PostAttnNorm)));
    assert_eq!(last(Half::Mlp), Some(Op::Norm(Role::PostMlpNorm)));
    // √32 to 8 bits of mantissa, and unrounded.
    let scale = |dtype| changed(|config| config["torch_dtype"] = json!(dtype)).spec.embed_scale;
    let scales = [scale("bfloat16"), scale("float32")].map(f32::to_bits);
    assert_eq!(scales, [5.656_25_f32, 32.0_f32.sqrt()].map(f32::to_bits));
}

/// Configs of transformers 5 say the same with other keys.
#[test]
fn the_newer_form_of_the_config_is_the_same_model() {
    let newer = published(|config| {
        let keys = config.as_object_mut().unwrap();
        for key in ["rope_theta", "rope_local_base_freq", "rope_scaling", "sliding_window_pattern"]
        {
            keys.remove(key);
        }
        let local = |b| if (b + 1) % 6 == 0 { "full_attention" } else { "sliding_attention" };
        keys.insert("layer_types".into(), (0..7).map(local).collect());
        keys.insert(
            "rope_parameters".into(),
            json!({
                "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            }),
        );
    });
    let weights = util::open(&util::golden().join("gemma3")).weights;
    let of = found(&Model::new(newer, weights).unwrap());
    assert!(of < 1e-4, "{of}");
}

#[test]
fn configs_that_contradict_themselves_are_refused_by_key() {
    type Change = fn(&mut Value);
    let wrong: [(&str, &str, Change); 9] = [
        ("layer_types", "7 entries", |c| c["layer_types"] = json!(vec!["sliding_attention"; 6])),
        ("layer_types", "7 entries", |c| c["layer_types"] = json!(vec!["chunked_attention"; 7])),
        ("layer_types[5]", "`full_attention`, as `sliding_window_pattern` = 6", |c| {
            c["layer_types"] = json!(vec!["sliding_attention"; 7]);
        }),
        ("sliding_window_pattern", "a whole number", |c| c["sliding_window_pattern"] = json!(0)),
        ("sliding_window", "a whole number", |c| c["sliding_window"] = json!("wide")),
        ("attn_logit_softcapping", "not supported", |c| c["attn_logit_softcapping"] = json!(50.0)),
        ("final_logit_softcapping", "not supported", |c| {
            c["final_logit_softcapping"] = json!(30.0);
        }),
        ("hidden_activation", "`gelu_pytorch_tanh`", |c| c["hidden_activation"] = json!("silu")),
        ("query_pre_attn_scalar", "a whole number", |c| c["query_pre_attn_scalar"] = json!(-1)),
    ];
    for (key, expected, change) in wrong {
        let error = milm_compress::model::ModelSpec::from_config(&published(change)).unwrap_err();
        let error = error.to_string();
        let said = error.starts_with(&format!("config.json: `{key}`: expected "));
        assert!(said && error.contains(expected) && error.contains("found"), "{error}");
    }
}

#[test]
fn a_rotation_of_the_stream_is_refused_and_one_inside_is_exact() {
    let model = changed(|_| ());
    let rotate = |settings: Settings| Transform::new(&model, &settings, (0, 0.125), None);
    let whole = Settings { rotate: Some(Rotate::Hadamard), ..Settings::default() };
    let error = rotate(whole).unwrap_err().to_string();
    assert!(error.contains("model.layers.0.post_attention_layernorm.weight"), "{error}");
    let inside = Settings {
        rotate: Some(Rotate::None),
        rotate_down: Some(true),
        rotate_keys: Some(true),
        ..Settings::default()
    };
    let of = found(&rotate(inside).unwrap().apply(&model).unwrap());
    assert!(of < 1e-4, "{of}");
}

#[test]
fn pruning_is_refused_before_work() {
    let model = changed(|_| ());
    let settings = prune::Settings { keep: Some(0.8), ..prune::Settings::default() };
    let error = prune::plan(&model.spec, &model.config, &settings).unwrap_err().to_string();
    assert!(error.contains("post_attention_layernorm") && error.contains("hint"), "{error}");
}

/// The program says so before it asks for text, of which this folder has none, and writes nothing.
#[test]
fn the_program_refuses_before_text_is_read() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let model = util::golden().join("gemma3");
    for flags in [["quantize", "--rotate=hadamard"], ["prune", "--keep=0.8"]] {
        let mut command = program();
        let ran = command.arg(flags[0]).arg(&model).arg(flags[1]).arg("-o").arg(&target).assert();
        let output = ran.code(2).get_output().clone();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("model.layers.0.post_attention_layernorm.weight"), "{said}");
        assert!(!target.exists(), "{flags:?}");
    }
}

/// Tokens read in pieces, with a cache, are the tokens read at once: over the window, over both ropes.
#[test]
fn decoding_is_the_forward_pass() {
    let (model, said, team) = (changed(|_| ()), ids(3, 40), Team::new(2));
    let mut engine = Engine::load(&model, &Reference, &team, &Silent).unwrap();
    engine.feed(&said[..30]).unwrap();
    for id in &said[30..39] {
        engine.feed(&[*id]).unwrap();
    }
    let last = engine.feed(&said[39..]).unwrap();
    let whole = logits(&model, &said);
    let most = whole.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    assert!(largest(last, &whole[39 * model.spec.vocab..]) < 1e-5 * most);
}

/// llama.cpp has no key for the width of scores: it takes that of a head.
fn as_llama_cpp_scales() -> Model {
    changed(|config| config["query_pre_attn_scalar"] = json!(16))
}

#[test]
fn what_llama_cpp_cannot_say_is_refused_before_work() {
    type Change = fn(&mut Value);
    let other = |change: Change| accepts(&changed(change).spec).unwrap_err().to_string();
    let width = accepts(&changed(|_| ()).spec).unwrap_err().to_string();
    assert!(width.contains("`query_pre_attn_scalar` 24 instead of 16"), "{width}");
    let kinds = other(|config| {
        config["query_pre_attn_scalar"] = json!(16);
        config["sliding_window_pattern"] = Value::Null;
        config["layer_types"][1] = json!("full_attention");
    });
    assert!(kinds.contains("every nth"), "{kinds}");
    assert_eq!(accepts(&as_llama_cpp_scales().spec), Ok(Arch::Gemma3));
}

#[test]
fn a_gguf_file_is_the_model_it_was_written_from() {
    let (top, model) = (tempfile::tempdir().unwrap(), as_llama_cpp_scales());
    let file = top.path().join("gemma3.gguf");
    assert_eq!(write(&model, &file, ExportOptions::default()).unwrap(), Arch::Gemma3);
    let (_folder, opened) = read(&file, FloatType::F32);
    let got = opened.model;
    assert_eq!(got.spec.blocks, model.spec.blocks);
    assert_eq!(got.spec.local_rope, model.spec.local_rope);
    for tensor in &model.spec.tensors {
        let [got, want] = [&got, &model].map(|m| m.weights.raw[&tensor.name].to_f32().unwrap());
        // A gain in the file is 1 + w, which is rounded once: by half of 2⁻²³ of at most 4.
        let bound = if tensor.input.is_none() { 2.4e-7 } else { 0.0 };
        assert!(largest(&got, &want) <= bound, "{}", tensor.name);
    }
    let said = ids(3, 40);
    let (ours, back) = (logits(&model, &said), logits(&got, &said));
    let top = ours.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    assert!(largest(&ours, &back) < 1e-4 * top);
}

/// Beyond the window, over the block that sees everything; another base for windows is seen.
#[test]
fn llama_cpp_computes_the_same() {
    let Some(python) = util::engines() else { return };
    let (top, model, said) = (tempfile::tempdir().unwrap(), as_llama_cpp_scales(), ids(3, 40));
    let list = said.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let theirs = |model: &Model, name: &str| {
        let file = top.path().join(name);
        write(model, &file, ExportOptions::default()).unwrap();
        in_llama_cpp(&python, &file, &["--ids", &list]).1
    };
    let ours = logits(&model, &said);
    let top_logit = ours.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    // ggml opens gates by a table of float16, to which it rounds their input as well: 2⁻¹¹ twice, in
    // each block anew, of a sum that a norm brings to its size.
    let bound = model.spec.blocks.len() as f32 * 2.0_f32.powi(-10) * top_logit;
    let found = largest(&ours, &theirs(&model, "right.gguf"));
    let mut wrong = model;
    wrong.spec.local_rope.as_mut().unwrap().theta = 500.0;
    let twin = largest(&ours, &theirs(&wrong, "wrong.gguf"));
    println!("llama.cpp: {found} of {top_logit}, at most {bound}; with another base {twin}");
    assert!(found < bound && twin > 4.0 * bound, "{found} {bound} {twin}");
}
