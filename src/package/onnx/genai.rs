//! `genai_config.json`: what onnxruntime-genai wants beside a graph to write text with it.
use crate::{
    model::{Mlp, ModelSpec},
    package::Opened,
};
use serde_json::{Value, json};

/// Its name.
pub(super) const GENAI_FILE: &str = "genai_config.json";

/// The configuration for the graph of a model with a tokenizer, or why there is none.
pub(super) fn config(opened: &Opened, graph: &str) -> Result<Value, String> {
    let spec = &opened.model.spec;
    let first = spec.blocks.first().ok_or("it has no blocks")?;
    let cache = |spec: &ModelSpec| {
        spec.blocks.iter().any(|it| (it.kv_heads, it.head_dim) != (first.kv_heads, first.head_dim))
    };
    if cache(spec) {
        return Err("blocks differ in keys and values, it knows one size".into());
    }
    let tokenizer = opened.tokenizer().map_err(|error| error.to_string())?;
    let ends = tokenizer.eos();
    let end = *ends.first().ok_or("no token ends a text (`eos_token_id`)")?;
    let generation = tokenizer.generation().map_err(|error| error.to_string())?;
    let set = |key: &str| -> Option<Value> { generation.as_ref()?.get(key).ok()? };
    let mixture = spec.blocks.iter().any(|it| matches!(it.mlp, Mlp::Experts { .. }));
    let cached = |prefix: &str, side: &str| format!("{prefix}.%d.{side}");
    Ok(json!({
        "model": {
            // Only names of values and the way of the cache follow from it.
            "type": if mixture { "decoder" } else { "llama" },
            "bos_token_id": tokenizer.bos().unwrap_or(end),
            "eos_token_id": ends,
            "pad_token_id": set("pad_token_id").unwrap_or_else(|| end.into()),
            "vocab_size": spec.vocab,
            "context_length": spec.max_positions,
            "decoder": {
                "filename": graph,
                "session_options": { "log_id": "onnxruntime-genai", "provider_options": [] },
                "head_size": first.head_dim,
                "hidden_size": spec.hidden,
                "num_attention_heads": first.heads,
                "num_hidden_layers": spec.blocks.len(),
                "num_key_value_heads": first.kv_heads,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    "past_key_names": cached("past_key_values", "key"),
                    "past_value_names": cached("past_key_values", "value"),
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": cached("present", "key"),
                    "present_value_names": cached("present", "value"),
                },
            },
        },
        "search": {
            "do_sample": false,
            "min_length": 0,
            "max_length": spec.max_positions,
            "num_beams": 1,
            "num_return_sequences": 1,
            // The graph appends to its inputs; one buffer for both is another operator's form.
            "past_present_share_buffer": false,
            "repetition_penalty": set("repetition_penalty").unwrap_or_else(|| 1.0.into()),
            "temperature": set("temperature").unwrap_or_else(|| 1.0.into()),
            "top_k": set("top_k").unwrap_or_else(|| 50.into()),
            "top_p": set("top_p").unwrap_or_else(|| 1.0.into()),
        },
    }))
}
