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
