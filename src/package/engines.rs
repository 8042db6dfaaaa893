//! Which engines load a shape, before it is made.
use super::gguf;
use crate::model::{ModelSpec, RopeScaling};
use serde::Serialize;
use serde_json::Value;

/// Whether an engine loads a model of some shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EngineFit {
    /// Its name.
    pub engine: &'static str,
    /// Why it does not, if it does not.
    pub loads: Result<(), String>,
    /// What else is to be known.
    pub note: &'static str,
}

/// Which engines load a model with this `config.json`.
pub fn engines(spec: &ModelSpec, config: &Value) -> Vec<EngineFit> {
    let stock = by_list(config).or_else(|| kept_pairs(spec, config)).or_else(|| online(spec));
    let transformers = stock.clone().or_else(|| uneven_llama(spec));
    let fit = |engine, refusal: Option<String>, note| EngineFit {
        engine,
        loads: refusal.map_or(Ok(()), Err),
        note,
    };
    vec![
        fit("transformers", transformers, "plain AutoModelForCausalLM"),
        fit("vLLM", stock, "by its sources, see `verify --engine vllm`; not tried here"),
        fit("llama.cpp", llama_cpp(spec, config), "as GGUF"),
        fit("milm-compress", None, ""),
    ]
}

/// Sizes that differ by block are lists, which only this project reads.
fn by_list(config: &Value) -> Option<String> {
    let (key, _) = config.as_object()?.iter().find(|(key, value)| {
        let size = key.ends_with("intermediate_size") || key.ends_with("_heads");
        size && value.is_array()
    })?;
    Some(format!("layers differ: `{key}` is a list"))
}

/// Rotary pairs that differ by head.
fn kept_pairs(spec: &ModelSpec, config: &Value) -> Option<String> {
    let planned = ["rope_parameters", "rope_scaling"].iter().any(|key| {
        let kind = config.get(key).and_then(|nested| nested.get("rope_type"));
        kind.is_some_and(|kind| kind == "kept-pairs")
    });
    let differ = planned || spec.rope.kept.is_some();
    differ.then(|| "rotary pairs differ by head (--pairs shared)".to_owned())
}

/// Rotations that the forward pass has to do: other engines would load the model and compute
/// something else.
fn online(spec: &ModelSpec) -> Option<String> {
    let transformed = spec.transformed.as_ref()?;
    match (transformed.head_correction, transformed.is_online()) {
        (true, _) => Some("a matrix stands before the tied head (--tied-head untie)".to_owned()),
        (false, true) => Some("rotations at run time (--rotate-down, --rotate-keys)".to_owned()),
        _ => None,
    }
}

/// LlamaConfig wants heads to divide the width (transformers 5.23, `validate_architecture`), even
/// where `head_dim` is given; the other families do not.
fn uneven_llama(spec: &ModelSpec) -> Option<String> {
    let heads = spec.blocks.iter().map(|block| block.heads);
    let uneven = heads.into_iter().find(|heads| !spec.hidden.is_multiple_of(*heads));
    let heads = uneven.filter(|_| spec.family == "llama")?;
    Some(format!("{heads} heads do not divide the hidden size of {}", spec.hidden))
}

/// What the export would say of the file.
fn llama_cpp(spec: &ModelSpec, config: &Value) -> Option<String> {
    // Divisors that are only planned are ones, which the export would leave out.
    let divisors = matches!(spec.rope.scaling, RopeScaling::LongRope { .. });
    if divisors && spec.blocks.iter().any(|block| block.qk_norm) {
        return Some(format!("`{}` takes no rotary divisors there: cut whole heads", spec.family));
    }
    kept_pairs(spec, config).or_else(|| {
        let refusal = gguf::accepts(spec).err()?.to_string();
        refusal.lines().next().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::synth::Shape;
    use crate::tensor::FloatType;
    use serde_json::json;

    fn fits(change: impl FnOnce(&mut Value)) -> Vec<bool> {
        let mut config = Shape::find("tiny").unwrap().config(FloatType::Bf16);
        change(&mut config);
        let spec = ModelSpec::from_config(&config).unwrap();
        engines(&spec, &config).iter().map(|fit| fit.loads.is_ok()).collect()
    }

    #[test]
    fn engines_load_what_they_know() {
        assert_eq!(fits(|_| ()), [true; 4]);
        assert_eq!(fits(|c| c["head_dim"] = json!(6)), [true; 4]);
        // transformers, vLLM, llama.cpp, here
        let list = fits(|c| c["intermediate_size"] = json!([256, 128]));
        assert_eq!(list, [false, false, true, true]);
        let three = |c: &mut Value| {
            (c["num_attention_heads"], c["num_key_value_heads"]) = (json!(3), json!(1));
        };
        assert_eq!(fits(three), [false, true, true, true]);
        let pairs = json!([[0], [1]]);
        let kept =
            json!({"rope_type": "kept-pairs", "original_head_dim": 32, "pairs": [pairs, pairs]});
        let by_head = |c: &mut Value| (c["head_dim"], c["rope_scaling"]) = (json!(2), kept);
        assert_eq!(fits(by_head), [false, false, false, true]);
        let long = json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]});
        let qwen3 = |c: &mut Value| {
            c["architectures"] = json!(["Qwen3ForCausalLM"]);
            c["model_type"] = json!("qwen3");
            (c["head_dim"], c["rope_scaling"]) = (json!(2), long);
        };
        assert_eq!(fits(qwen3), [true, true, false, true]);
        let rotated = |c: &mut Value| c["milm_transform"] = json!({"rotation": "hadamard"});
        assert_eq!(fits(rotated), [true; 4]);
        let keys = |c: &mut Value| c["milm_transform"] = json!({"keys": true});
        assert_eq!(fits(keys), [false, false, false, true]);
        let experts = |c: &mut Value| {
            c["architectures"] = json!(["MixtralForCausalLM"]);
            c["model_type"] = json!("mixtral");
            (c["num_local_experts"], c["num_experts_per_tok"]) = (json!(4), json!(2));
        };
        assert_eq!(fits(experts), [true; 4]);
    }
}
