//! Names of tensors in GGUF files, as roles.
use crate::model::{Expert, Part, Role, TensorSpec};

/// A name without its block and its part, and what the tensor does.
type Named = (&'static str, Role, Option<Expert>);

/// Tensors outside of blocks.
const ENDS: &[Named] = &[
    ("token_embd", Role::Embed, None),
    ("output_norm", Role::FinalNorm, None),
    ("output", Role::Head, None),
];

/// Routed experts lie in one stack, which has the place of the first.
const STACK: Option<Expert> = Some(Expert::Routed(0));

/// Tensors of block N, after `blk.N.`.
const BLOCK: &[Named] = &[
    ("attn_norm", Role::AttnNorm, None),
    ("attn_q", Role::Q, None),
    ("attn_k", Role::K, None),
    ("attn_v", Role::V, None),
    ("attn_q_norm", Role::QNorm, None),
    ("attn_k_norm", Role::KNorm, None),
    ("attn_output", Role::O, None),
    ("post_attention_norm", Role::PostAttnNorm, None),
    ("ffn_norm", Role::MlpNorm, None),
    ("ffn_gate", Role::Gate, None),
    ("ffn_up", Role::Up, None),
    ("ffn_down", Role::Down, None),
    ("post_ffw_norm", Role::PostMlpNorm, None),
    ("ffn_gate_inp", Role::Router, None),
    ("ffn_gate_exps", Role::Gate, STACK),
    ("ffn_up_exps", Role::Up, STACK),
    ("ffn_down_exps", Role::Down, STACK),
    ("ffn_gate_shexp", Role::Gate, Some(Expert::Shared)),
    ("ffn_up_shexp", Role::Up, Some(Expert::Shared)),
    ("ffn_down_shexp", Role::Down, Some(Expert::Shared)),
    ("ffn_gate_inp_shexp", Role::SharedGate, None),
];

/// Keys that the reader and the writer share; those with a leaf stand behind the architecture.
pub(super) mod key {
    pub(crate) const ARCHITECTURE: &str = "general.architecture";
    pub(crate) const FILE_TYPE: &str = "general.file_type";
    pub(crate) const QUANTIZATION_VERSION: &str = "general.quantization_version";
    pub(crate) const BLOCKS: &str = "block_count";
    pub(crate) const CONTEXT: &str = "context_length";
    pub(crate) const HIDDEN: &str = "embedding_length";
    pub(crate) const MLP_WIDTH: &str = "feed_forward_length";
    pub(crate) const HEADS: &str = "attention.head_count";
    pub(crate) const KV_HEADS: &str = "attention.head_count_kv";
    pub(crate) const KEY_WIDTH: &str = "attention.key_length";
    pub(crate) const VALUE_WIDTH: &str = "attention.value_length";
    pub(crate) const ROTARY_WIDTH: &str = "rope.dimension_count";
    pub(crate) const EXPERTS: &str = "expert_count";
    pub(crate) const EXPERTS_USED: &str = "expert_used_count";
    pub(crate) const EXPERT_WIDTH: &str = "expert_feed_forward_length";
    pub(crate) const SHARED_WIDTH: &str = "expert_shared_feed_forward_length";
    pub(crate) const WINDOW: &str = "attention.sliding_window";
    pub(crate) const WINDOW_PATTERN: &str = "attention.sliding_window_pattern";
    pub(crate) const NORM_EPS: &str = "attention.layer_norm_rms_epsilon";
    pub(crate) const THETA: &str = "rope.freq_base";
    pub(crate) const LOCAL_THETA: &str = "rope.freq_base_swa";
    pub(crate) const VOCAB: &str = "vocab_size";
    pub(crate) const SCALING: &str = "rope.scaling.type";
    pub(crate) const SCALING_FACTOR: &str = "rope.scaling.factor";
    pub(crate) const SCALING_ORIGINAL: &str = "rope.scaling.original_context_length";
    pub(crate) const SCALING_ATTENTION: &str = "rope.scaling.attn_factor";
    pub(crate) const YARN_FAST: &str = "rope.scaling.yarn_beta_fast";
    pub(crate) const YARN_SLOW: &str = "rope.scaling.yarn_beta_slow";
    /// SHA-256 of everything before the tensors, in which these digits are zeros, and then of each
    /// tensor's bytes, in the order of the file; a key of this project. One list: a file cannot lose
    /// the first hash alone.
    pub(crate) const SHA256: &str = "milm.sha256";
    /// Those of the tensors alone, in files of earlier versions.
    pub(crate) const TENSORS_SHA256: &str = "milm.tensor_sha256";
    /// SHA-256 of what each tensor's blocks stand for, as a package's manifest has it, in the same
    /// order; empty of plain floats, whose bytes say it.
    pub(crate) const VALUES: &str = "milm.values_sha256";
    /// SHA-256 of the manifest of the package that the file was made from.
    pub(crate) const PACKAGE: &str = "milm.package_sha256";
    /// SHA-256 of the tensors of that package's source.
    pub(crate) const SOURCE: &str = "milm.source_sha256";
    pub(crate) const SPLIT_NO: &str = "split.no";
    pub(crate) const SPLIT_COUNT: &str = "split.count";
    pub(crate) const SPLIT_TENSORS: &str = "split.tensors.count";
    pub(crate) const TEMPLATE: &str = "tokenizer.chat_template";
    pub(crate) const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
}

/// Divisors of the rotary frequencies, one per pair.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Where a tensor stands in a model: its block, what it does, in which expert, weight or bias.
pub type Place = (Option<usize>, Role, Option<Expert>, Part);

/// The place of a tensor by its GGUF name; a stack of experts has that of its first. `None` if
/// decoders have no such tensor.
pub fn place(name: &str) -> Option<Place> {
    let (stem, leaf) = name.rsplit_once('.')?;
    let part = match leaf {
        "weight" => Part::Weight,
        "bias" => Part::Bias,
        _ => return None,
    };
    let (block, stem, table) = match stem.strip_prefix("blk.") {
        Some(inside) => {
            let (number, stem) = inside.split_once('.')?;
            let block: usize = number.parse().ok()?;
            // `blk.01` and `blk.+1` are other names.
            (Some(block).filter(|b| b.to_string() == number)?.into(), stem, BLOCK)
        }
        None => (None, stem, ENDS),
    };
    let (_, role, expert) = table.iter().find(|(known, ..)| *known == stem)?;
    Some((block, *role, *expert, part))
}

/// The GGUF name of a place, of a routed expert that of its stack; `None` where llama.cpp has no
/// such tensor.
pub fn gguf_name((block, role, expert, part): Place) -> Option<String> {
    let leaf = match part {
        Part::Weight => "weight",
        Part::Bias => "bias",
    };
    let expert = if let Some(Expert::Routed(_)) = expert { STACK } else { expert };
    let table = if block.is_some() { BLOCK } else { ENDS };
    let (stem, ..) = table.iter().find(|(_, known, of)| (*known, *of) == (role, expert))?;
    Some(match block {
        Some(b) => format!("blk.{b}.{stem}.{leaf}"),
        None => format!("{stem}.{leaf}"),
    })
}

/// The GGUF name of a tensor of a model.
pub(super) fn tensor_name(tensor: &TensorSpec) -> Option<String> {
    gguf_name((tensor.block, tensor.role, tensor.expert, tensor.part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_places_are_one_to_one() {
        for part in [Part::Weight, Part::Bias] {
            for (block, table) in [(None, ENDS), (Some(0), BLOCK), (Some(31), BLOCK)] {
                for (_, role, expert) in table {
                    let it = (block, *role, *expert, part);
                    let name = gguf_name(it).unwrap();
                    assert_eq!(place(&name), Some(it), "{name}");
                }
            }
        }
        assert_eq!(place("blk.3.attn_q.bias"), Some((Some(3), Role::Q, None, Part::Bias)));
        let fifth = (Some(3), Role::Up, Some(Expert::Routed(4)), Part::Weight);
        assert_eq!(gguf_name(fifth).as_deref(), Some("blk.3.ffn_up_exps.weight"));
        for strange in ["", "weight", "blk.3.attn_q", "blk.03.attn_q.weight", "blk.3.output.weight"]
        {
            assert_eq!(place(strange), None, "{strange}");
        }
    }
}
