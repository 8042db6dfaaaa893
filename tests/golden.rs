//! The float reference against transformers: tiny checkpoints of every family with the logits
//! that transformers 5.17 gives them in float64 (tests/golden/README.md).
use crate::util;
use milm_compress::{forward, forward::Reference, linalg::Team, model::Model};
use serde_json::{Value, json};

/// Largest difference of a logit over the largest logit, over both sequences of the file.
pub(crate) fn difference(model: &Model, golden: &std::path::Path) -> f32 {
    let file = util::tensors(golden);
    let ids = &file["input_ids"];
    let logits = file["logits"].to_f32().unwrap();
    let tokens = ids.shape[1];
    let ids: Vec<u32> =
        ids.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
    let largest = logits.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    let team = Team::new(2);
    let mut worst = 0.0_f32;
    for (ids, want) in ids.chunks(tokens).zip(logits.chunks(tokens * model.spec.vocab)) {
        let got = forward::logits(model, &Reference, ids, &team).unwrap();
        worst = got.iter().zip(want).fold(worst, |m, (g, w)| m.max((g - w).abs()));
    }
    worst / largest
}

fn opened(name: &str, change: impl Fn(&mut Value)) -> Model {
    let folder = util::golden().join(name);
    let model = util::open(&folder);
    let mut config = model.config.clone();
    change(&mut config);
    Model::new(config, model.weights).unwrap()
}

#[test]
fn every_family_agrees_with_transformers() {
    for name in util::MODELS {
        let model = opened(name, |_| ());
        let found = difference(&model, &util::golden().join(name).join("golden.safetensors"));
        assert!(found < 1e-4, "{name}: {found}");
    }
}

/// The twin: with one switch set wrong, the same comparison must fail, by far.
#[test]
fn a_wrong_switch_is_seen() {
    type Change = fn(&mut Value);
    let wrong: [(&str, &str, Change); 11] = [
        ("llama", "theta", |c| c["rope_theta"] = json!(20_000.0)),
        ("llama", "norm eps", |c| c["rms_norm_eps"] = json!(0.1)),
        ("llama-rope-linear", "factor", |c| c["rope_parameters"]["factor"] = json!(2.0)),
        ("llama-rope-llama3", "no scaling", |c| c["rope_scaling"] = Value::Null),
        ("llama-rope-longrope", "no factors", |c| {
            c["rope_parameters"] = json!({"rope_theta": 10_000.0});
        }),
        ("llama-rope-yarn", "no scaling", |c| c["rope_scaling"] = Value::Null),
        ("llama-tied-bias", "attention bias", |c| c["attention_bias"] = json!(false)),
        ("llama-tied-bias", "mlp bias", |c| c["mlp_bias"] = json!(false)),
        ("mistral-sliding", "no window", |c| c["sliding_window"] = Value::Null),
        ("mixtral", "experts per token", |c| c["num_experts_per_tok"] = json!(1)),
        ("qwen3-moe", "router weights", |c| c["norm_topk_prob"] = json!(false)),
    ];
    let families: [(&str, &str, Change); 2] = [
        ("qwen2", "dropped bias", |c| {
            c["architectures"] = json!(["MistralForCausalLM"]);
            c["model_type"] = json!("mistral");
        }),
        ("qwen3-tied", "no QK-norm", |c| {
            c["architectures"] = json!(["LlamaForCausalLM"]);
            c["model_type"] = json!("llama");
        }),
    ];
    for (name, switch, change) in wrong.into_iter().chain(families) {
        let model = opened(name, change);
        let found = difference(&model, &util::golden().join(name).join("golden.safetensors"));
        assert!(found > 1e-2, "{name}: {switch} changes the logits by {found} only");
    }
}

#[test]
fn a_checkpoint_of_compressed_tensors_is_read_as_it_is_meant() {
    let folder = util::golden().join("compressed-tensors");
    let model = util::open(&folder);
    assert_eq!(model.weights.quantized.len(), 3 * 7, "all linear layers, not the head");
    let found = difference(&model, &folder.join("golden.safetensors"));
    assert!(found < 1e-4, "{found}");
    // The twin: the float checkpoint that it was made from has other logits.
    let float = util::open(&util::golden().join("llama-mha"));
    assert!(difference(&float, &folder.join("golden.safetensors")) > 1e-2);
}

#[test]
fn the_window_holds_from_one_block_to_the_next() {
    // A window of 15 instead of 16 is the smallest wrong window.
    let model = opened("mistral-sliding", |c| c["sliding_window"] = json!(15));
    let golden = util::golden().join("mistral-sliding/golden.safetensors");
    assert!(difference(&model, &golden) > 1e-3);
}
