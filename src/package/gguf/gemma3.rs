//! Gemma 3's form in llama.cpp's `gemma3`: what of it is computed, and the keys that say it.
//!
//! llama.cpp scales embeddings by the root of the hidden size, stores gains with 1 added, and divides scores
//! by a root that no key says: that of the width of a head, in models of 62 blocks that of the hidden
//! size over the heads.
use super::{
    arch::Arch,
    error::{ContentError, Unsupported},
    file::missing,
    keys::Keys,
    names::key,
    rope::{Rotation, rotation},
    value::Value,
};
use crate::model::{Activation, Block, Mlp, ModelSpec, Op, Part};
use serde_json::json;

/// Every nth block sees everything where a file does not say n.
const PATTERN: u64 = 6;
/// The base of windows where a file does not say it.
const LOCAL_THETA: f64 = 10_000.0;
/// Blocks of the model whose scores are scaled in another way.
const OTHER_SCALE: u64 = 62;

/// The width whose root llama.cpp divides scores by.
fn score_width(blocks: u64, [hidden, heads, head_dim]: [u64; 3]) -> u64 {
    if blocks == OTHER_SCALE { hidden / heads.max(1) } else { head_dim }
}

/// Whether llama.cpp computes a model whose halves end in norms.
pub(super) fn accepts(spec: &ModelSpec) -> Result<Arch, Unsupported> {
    let arch = Arch::Gemma3;
    let refused = |what: String| Err(Unsupported::Form { arch: arch.name(), what });
    let Some(first) = spec.blocks.first() else { return Err(Unsupported::NoBlocks) };
    let ends = [Op::HeadNorms, Op::Gate(Activation::GeluTanh)];
    let same = |b: &Block| {
        (b.heads, b.kv_heads, b.head_dim) == (first.heads, first.kv_heads, first.head_dim)
    };
    for (b, block) in spec.blocks.iter().enumerate() {
        if !same(block) || block.mlp != first.mlp || block.ops != first.ops {
            return refused(format!("block {b} is another than block 0"));
        }
        if block.window.is_some() && block.window != spec.blocks.iter().find_map(|it| it.window) {
            return Err(Unsupported::Windows { block: b });
        }
        if block.window.is_some() == sees_all(b, pattern(spec)) {
            let what = format!("the window of block {b} is not that of all blocks but every nth");
            return refused(what);
        }
    }
    if !matches!(first.mlp, Mlp::Dense { .. })
        || !ends.iter().all(|op| first.ops.concat().contains(op))
    {
        return refused("another form of attention or MLP".to_owned());
    }
    if let Some(bias) = spec.tensors.iter().find(|it| it.part == Part::Bias) {
        return refused(format!("tensor `{}`, a bias", bias.name));
    }
    let sizes = [spec.hidden, first.heads, first.head_dim].map(|size| size as u64);
    let expected = score_width(spec.blocks.len() as u64, sizes);
    let width = first.ops[0].iter().find_map(|op| match op {
        Op::Attend { width } => *width,
        _ => None,
    });
    if width.unwrap_or(first.head_dim) as u64 != expected {
        let found = width.unwrap_or(first.head_dim);
        return refused(format!("`query_pre_attn_scalar` {found} instead of {expected}"));
    }
    match rotation(spec)? {
        Rotation::Plain | Rotation::Linear { .. } => Ok(arch),
        _ => refused("a rotation that is not stretched evenly".to_owned()),
    }
}

/// Which block is the first that sees everything, counted from 1; 0 if none does.
fn pattern(spec: &ModelSpec) -> usize {
    spec.blocks.iter().position(|block| block.window.is_none()).map_or(0, |b| b + 1)
}

fn sees_all(block: usize, pattern: usize) -> bool {
    pattern != 0 && (block + 1).is_multiple_of(pattern)
}

/// Keys of its own; none of another family.
pub(super) fn pairs(spec: &ModelSpec) -> Vec<(&'static str, Value)> {
    let Some(local) = spec.local_rope.as_ref().filter(|_| has_window(spec)) else { return vec![] };
    vec![
        (key::WINDOW_PATTERN, Value::Unsigned(pattern(spec) as u64)),
        (key::LOCAL_THETA, Value::F32(local.theta as f32)),
    ]
}

fn has_window(spec: &ModelSpec) -> bool {
    spec.blocks.iter().any(|block| block.window.is_some())
}

/// What a reader of the file computes otherwise: llama.cpp does not round the scale of embeddings.
pub(super) fn note(spec: &ModelSpec) -> Option<String> {
    let root = (spec.hidden as f64).sqrt() as f32;
    let rounded = spec.scales_embedding() && spec.embed_scale.to_bits() != root.to_bits();
    rounded.then(|| {
        let scale = spec.embed_scale;
        format!(
            "llama.cpp multiplies embeddings by {root}, this model by {scale}, as it was trained"
        )
    })
}

/// Keys of `config.json` that set it apart, from the file's.
pub(super) fn config(
    keys: &Keys<'_>,
    window: Option<u64>,
    [hidden, heads, head_dim]: [u64; 3],
) -> Result<serde_json::Value, ContentError> {
    let blocks = keys.needed(key::BLOCKS)?;
    if let Some(cap) = keys.number("final_logit_softcapping")?.filter(|cap| *cap > 0.0) {
        return Err(keys.unsupported("final_logit_softcapping", format!("{cap} is not computed")));
    }
    let every = keys.size(key::WINDOW_PATTERN)?.unwrap_or(PATTERN);
    let every = if window.is_none() {
        1
    } else if every == 0 {
        blocks + 1
    } else {
        every
    };
    let theta = keys.number(key::THETA)?.ok_or_else(|| missing(&keys.key(key::THETA)))?;
    Ok(json!({
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": score_width(blocks, [hidden, heads, head_dim]),
        "rope_local_base_freq": keys.number(key::LOCAL_THETA)?.unwrap_or(LOCAL_THETA),
        "rope_theta": theta,
        "sliding_window": window,
        "sliding_window_pattern": every,
    }))
}
