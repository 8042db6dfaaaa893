//! Which engines load a Hugging Face folder of some shape.
use crate::{
    model::ModelSpec,
    package::{EngineFit, engines::kept_pairs},
};
use serde_json::Value;

/// The name of vLLM among them.
pub(super) const VLLM: &str = "vLLM";

/// The engines, and what they refuse.
pub(super) fn engines(spec: &ModelSpec, config: &Value) -> Vec<EngineFit> {
    let stock = by_list(config).or_else(|| kept_pairs(spec, config)).or_else(|| online(spec));
    let transformers = stock.clone().or_else(|| uneven_llama(spec));
    let by_sources = "by its sources, see `verify --engine vllm`; not tried here";
    vec![
        EngineFit::new("transformers", transformers, "plain AutoModelForCausalLM"),
        EngineFit::new(VLLM, stock, by_sources),
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
