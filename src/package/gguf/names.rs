//! Names of tensors in GGUF files, as roles.
use crate::model::{Part, Role};

/// Tensors outside of blocks.
const ENDS: &[(&str, Role)] =
    &[("token_embd", Role::Embed), ("output_norm", Role::FinalNorm), ("output", Role::Head)];

/// Tensors of block N, after `blk.N.`.
const BLOCK: &[(&str, Role)] = &[
    ("attn_norm", Role::AttnNorm),
    ("attn_q", Role::Q),
    ("attn_k", Role::K),
    ("attn_v", Role::V),
    ("attn_q_norm", Role::QNorm),
    ("attn_k_norm", Role::KNorm),
    ("attn_output", Role::O),
    ("ffn_norm", Role::MlpNorm),
    ("ffn_gate", Role::Gate),
    ("ffn_up", Role::Up),
    ("ffn_down", Role::Down),
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
    pub(crate) const WINDOW: &str = "attention.sliding_window";
    pub(crate) const NORM_EPS: &str = "attention.layer_norm_rms_epsilon";
    pub(crate) const THETA: &str = "rope.freq_base";
    pub(crate) const VOCAB: &str = "vocab_size";
    pub(crate) const SCALING: &str = "rope.scaling.type";
    pub(crate) const SCALING_FACTOR: &str = "rope.scaling.factor";
    pub(crate) const SCALING_ORIGINAL: &str = "rope.scaling.original_context_length";
    pub(crate) const SCALING_ATTENTION: &str = "rope.scaling.attn_factor";
    pub(crate) const YARN_FAST: &str = "rope.scaling.yarn_beta_fast";
    pub(crate) const YARN_SLOW: &str = "rope.scaling.yarn_beta_slow";
    /// SHA-256 of each tensor's bytes, in the order of the file; a key of this project.
    pub(crate) const SHA256: &str = "milm.tensor_sha256";
    /// SHA-256 of the manifest of the package that the file was made from.
    pub(crate) const PACKAGE: &str = "milm.package_sha256";
    /// SHA-256 of the tensors of that package's source.
    pub(crate) const SOURCE: &str = "milm.source_sha256";
    pub(crate) const TEMPLATE: &str = "tokenizer.chat_template";
    pub(crate) const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
}

/// Divisors of the rotary frequencies, one per pair.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The place of a tensor by its GGUF name; `None` if dense decoders have no such tensor.
pub fn place(name: &str) -> Option<(Option<usize>, Role, Part)> {
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
    let (_, role) = table.iter().find(|(known, _)| *known == stem)?;
    Some((block, *role, part))
}

/// The GGUF name of a place; `None` for parts of a mixture of experts.
pub fn gguf_name(block: Option<usize>, role: Role, part: Part) -> Option<String> {
    let leaf = match part {
        Part::Weight => "weight",
        Part::Bias => "bias",
    };
    let table = if block.is_some() { BLOCK } else { ENDS };
    let (stem, _) = table.iter().find(|(_, known)| *known == role)?;
    Some(match block {
        Some(b) => format!("blk.{b}.{stem}.{leaf}"),
        None => format!("{stem}.{leaf}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_places_are_one_to_one() {
        for part in [Part::Weight, Part::Bias] {
            for (block, table) in [(None, ENDS), (Some(0), BLOCK), (Some(31), BLOCK)] {
                for (_, role) in table {
                    let name = gguf_name(block, *role, part).unwrap();
                    assert_eq!(place(&name), Some((block, *role, part)), "{name}");
                }
            }
        }
        assert_eq!(place("blk.3.attn_q.bias"), Some((Some(3), Role::Q, Part::Bias)));
        for strange in ["", "weight", "blk.3.attn_q", "blk.03.attn_q.weight", "blk.3.output.weight"]
        {
            assert_eq!(place(strange), None, "{strange}");
        }
    }
}
