//! How large a declared model is.
use crate::model::{Expert, Mlp, ModelSpec, Part, Role};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Sizes of a model, from its declaration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// All parameters.
    pub parameters: u64,
    /// Parameters of embedding, last norm and head.
    pub ends: u64,
    /// Parameters by role, e.g. `q`, `down`.
    pub by_role: BTreeMap<String, u64>,
    /// Bytes of one parameter, by the `dtype` of config.json; 2 where it says nothing.
    pub bytes_per_parameter: u64,
    /// Bytes of all parameters.
    pub bytes: u64,
    /// Bytes of keys and values per token, 16 bits a value.
    pub kv_bytes_per_token: u64,
    /// Floating-point operations for one token behind `context` others: two per parameter of each
    /// matrix that it passes, and four per channel and position of attention.
    pub flops_per_token: u64,
    /// Positions that attention looks back to in `flops_per_token`.
    pub context: usize,
}

/// Positions that the count of operations assumes, if the model has so many.
const CONTEXT: usize = 2048;

impl Size {
    /// The sizes of a model.
    pub fn of(spec: &ModelSpec, config: &Value) -> Self {
        let mut by_role: BTreeMap<String, u64> = BTreeMap::new();
        let mut ends = 0;
        for tensor in &spec.tensors {
            let count = spec.shape(tensor).iter().map(|n| *n as u64).product::<u64>();
            *by_role.entry(tensor.role.name().to_owned()).or_default() += count;
            ends += if tensor.block.is_none() { count } else { 0 };
        }
        let parameters = spec.parameters();
        let context = CONTEXT.min(spec.max_positions);
        let bytes_per_parameter = bytes_per_parameter(config);
        Self {
            parameters,
            ends,
            by_role,
            bytes_per_parameter,
            bytes: parameters * bytes_per_parameter,
            kv_bytes_per_token: spec.kv_bytes_per_token(2) as u64,
            flops_per_token: flops(spec, context),
            context,
        }
    }
}

fn bytes_per_parameter(config: &Value) -> u64 {
    let name = config.get("dtype").or_else(|| config.get("torch_dtype")).and_then(Value::as_str);
    if name == Some("float32") { 4 } else { 2 }
}

fn flops(spec: &ModelSpec, context: usize) -> u64 {
    let mut total = 0;
    for tensor in spec.tensors.iter().filter(|t| t.part == Part::Weight && t.input.is_some()) {
        let block = tensor.block.map(|b| &spec.blocks[b].mlp);
        // Of the routed experts a token passes the first `per_token`, as it were.
        let passed = match (tensor.expert, block) {
            (Some(Expert::Routed(e)), Some(Mlp::Experts { per_token, .. })) => e < *per_token,
            _ => tensor.role != Role::Embed || spec.tied,
        };
        if passed {
            total += 2 * spec.shape(tensor).iter().map(|n| *n as u64).product::<u64>();
        }
    }
    let attention = |b: &crate::model::Block| {
        let seen = b.window.map_or(context, |window| window.min(context));
        4 * (b.heads * b.head_dim * seen) as u64
    };
    total + spec.blocks.iter().map(attention).sum::<u64>()
}
