//! Where activations may be rounded to static grids, and what files call these places.
use crate::model::Expert;

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
    /// Output of the norm before the MLP: the input of router, gate and up projection.
    MlpNorm,
    /// Output of a gate projection.
    Gate,
    /// Output of an up projection.
    Up,
    /// Output of SiLU.
    Silu,
    /// Its product with the up projection: the input of the down projection.
    Hidden,
    /// Output of a down projection.
    Down,
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
    /// Its name in files.
    fn name(self) -> &'static str {
        match self {
            Self::AttentionNorm => "attention-norm",
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::Mixed => "mixed",
            Self::O => "o",
            Self::MlpNorm => "mlp-norm",
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Silu => "silu",
            Self::Hidden => "hidden",
            Self::Down => "down",
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
