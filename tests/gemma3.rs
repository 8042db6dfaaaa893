//! Gemma 3, the family whose blocks have another form: against transformers (tests/golden/gemma3), what is
//! computed of it, and what is refused before work.
use crate::{golden::difference, util};
use milm_compress::{
    model::{Half, Model, Op, Role},
    prune,
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
            replace(it, |op| matches!(op, Op::Attend { .. }), Op::Attend { width: None })
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
    assert_eq!([scale("bfloat16"), scale("float32")], [5.656_25, 32.0_f32.sqrt()]);
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
            c["final_logit_softcapping"] = json!(30.0)
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
