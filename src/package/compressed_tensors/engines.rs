//! Which engines load a Hugging Face folder.
use crate::{
    model::{ModelSpec, Role},
    package::{Declared, EngineFit, engines::kept_pairs},
    scheme::{Activations, Granularity, TensorScheme},
};
use serde_json::Value;

/// The name of vLLM among them.
pub(super) const VLLM: &str = "vLLM";

/// The engines, and what they refuse.
pub(super) fn engines(of: Declared<'_>) -> Vec<EngineFit> {
    let Declared { spec, config, .. } = of;
    let stock = by_list(config).or_else(|| kept_pairs(spec, config)).or_else(|| online(spec));
    let stock = stock.or_else(|| ours_alone(of));
    let transformers = stock.clone().or_else(|| uneven_llama(spec));
    let vllm = stock.or_else(|| joined_layers(of));
    let by_sources = "by its sources, see `verify --engine vllm`; not tried here";
    vec![
        EngineFit::new("transformers", transformers, "plain AutoModelForCausalLM"),
        EngineFit::new(VLLM, vllm, by_sources),
    ]
}

/// Codes that only this program reads: engines quantize linear layers, on one grid each, and hold keys
/// and values in their own way.
fn ours_alone(of: Declared<'_>) -> Option<String> {
    let spec = of.spec;
    let embedding = spec.tensors.iter().find(|it| it.role == Role::Embed);
    if let Some((scheme, _)) = embedding.and_then(|it| of.schemes.get(&it.name)) {
        return Some(format!("the embedding is stored as {} (--embeddings float)", scheme.weights));
    }
    if of.schemes.values().any(|(scheme, _)| scheme.outliers > 0) {
        return Some(
            "columns are kept at int8 in tensors of their own (without --outliers)".into(),
        );
    }
    let cache = spec.kv_cache.bits().map(|_| spec.kv_cache.name());
    cache.map(|name| format!("keys and values are held as {name} (--kv-cache float)"))
}

/// What vLLM's layers do not multiply by, see `verify --engine vllm`.
fn joined_layers(of: Declared<'_>) -> Option<String> {
    let head = of.spec.tensors.iter().find(|it| it.role == Role::Head);
    if head.is_some_and(|it| of.schemes.contains_key(&it.name)) {
        return Some("the head is quantized (--embeddings float)".into());
    }
    let any = |wrong: &dyn Fn(&TensorScheme) -> bool| of.schemes.values().any(|it| wrong(&it.0));
    if any(&|it| it.weights.bits() == 8 && !it.weights.symmetric()) {
        return Some("int8 with zero points (without --asymmetric)".into());
    }
    let integer = |it: &TensorScheme| it.activations != Activations::Float;
    let grouped = |it: &TensorScheme| it.weights.granularity() != Granularity::Channel;
    any(&|it| it.weights.bits() == 8 && integer(it) && grouped(it))
        .then(|| "int8 products in groups (--group-size channel)".into())
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
