//! Where activations may be rounded to static grids, and what files call these places.
use crate::model::{Expert, Role};

/// A place where an activation can be replaced by a rounded one. What a layer sees is what the
/// point before it gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Output of the norm before attention: the input of query, key and value projection.
    AttentionNorm,
    /// Output of the query projection, before norm and rotation.
    Q,
    /// Output of the key projection.
    K,
    /// Output of the value projection.
    V,
    /// Input of the output projection.
    Mixed,
    /// Output of the output projection.
    O,
    /// Output of a norm behind attention: what is added to the stream.
    PostAttentionNorm,
    /// Output of the norm before the MLP: the input of router, gate and up projection.
    MlpNorm,
    /// Output of a gate projection.
    Gate,
    /// Output of an up projection.
    Up,
    /// Output of the activation that opens the gate, SiLU in most families.
    Silu,
    /// Its product with the up projection: the input of the down projection.
    Hidden,
    /// Output of a down projection.
    Down,
    /// Output of a norm behind the MLP: what is added to the stream.
    PostMlpNorm,
    /// The residual stream behind the block.
    Block,
    /// The residual stream before the first block.
    Embedding,
    /// Output of the last norm: the input of the head.
    FinalNorm,
    /// Logits.
    Head,
}

impl Point {
    /// The point behind a norm or a linear layer.
    pub fn behind(role: Role) -> Option<Self> {
        Some(match role {
            Role::AttnNorm => Self::AttentionNorm,
            Role::Q => Self::Q,
            Role::K => Self::K,
            Role::V => Self::V,
            Role::O => Self::O,
            Role::PostAttnNorm => Self::PostAttentionNorm,
            Role::MlpNorm => Self::MlpNorm,
            Role::Gate => Self::Gate,
            Role::Up => Self::Up,
            Role::Down => Self::Down,
            Role::PostMlpNorm => Self::PostMlpNorm,
            Role::FinalNorm => Self::FinalNorm,
            Role::Head => Self::Head,
            _ => return None,
        })
    }

    /// Its name in files.
    fn name(self) -> &'static str {
        match self {
            Self::AttentionNorm => "attention-norm",
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::Mixed => "mixed",
            Self::O => "o",
            Self::PostAttentionNorm => "post-attention-norm",
            Self::MlpNorm => "mlp-norm",
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Silu => "silu",
            Self::Hidden => "hidden",
            Self::Down => "down",
            Self::PostMlpNorm => "post-mlp-norm",
            Self::Block => "block",
            Self::Embedding => "embedding",
            Self::FinalNorm => "final-norm",
            Self::Head => "head",
        }
    }

    /// The name of a point of a block, or outside of blocks: `3.gate`, `3.gate.7` in expert 7.
    pub fn key(self, block: Option<usize>, expert: Option<Expert>) -> String {
        let mut key = block.map_or(String::new(), |block| format!("{block}."));
        key.push_str(self.name());
        match expert {
            None => {}
            Some(Expert::Routed(expert)) => {
                key.push('.');
                key.push_str(&expert.to_string());
            }
            Some(Expert::Shared) => key.push_str(".shared"),
        }
        key
    }
}
