//! The vocabulary in which families are told apart.
use super::{Config, ConfigError};
use serde_json::Value;

/// What keys of `config.json` mean that are absent: engines have defaults of their own, and these
/// are those of transformers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    /// `rope_theta`.
    pub(super) rope_theta: f64,
    /// `rms_norm_eps`.
    pub(super) norm_eps: f64,
    /// `max_position_embeddings`.
    pub(super) positions: usize,
    /// `num_key_value_heads`; `None`: as many as there are heads.
    pub(super) kv_heads: Option<usize>,
    /// `head_dim`; `None`: the hidden size over the heads.
    pub(super) head_dim: Option<usize>,
    /// `tie_word_embeddings`.
    pub(super) tied: bool,
}

/// A property that a family has, has not, or leaves to `config.json`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Switch {
    Never,
    Always,
    /// A key and its default.
    Key(&'static str, bool),
}

/// A rope of their own for blocks that see a window: the key of its base, and what it is where it is absent.
pub(super) type LocalRope = (&'static str, f64);

/// How a family names and runs its experts.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpertRule {
    pub(super) router: &'static str,
    /// `{}` stands for the number of the expert.
    pub(super) gate: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    /// Key of how many there are.
    pub(super) count: &'static str,
    /// How many see a token where `num_experts_per_tok` is absent.
    pub(super) per_token: usize,
    /// `mlp_only_layers` and `decoder_sparse_step` name blocks without experts.
    pub(super) some_dense: bool,
    /// Key of the experts' width.
    pub(super) width: &'static str,
    /// The module of a shared expert and of its gate.
    pub(super) shared: Option<(&'static str, &'static str)>,
    pub(super) normalize: Switch,
}

/// Layers beside the main path that have the sizes of its blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExtraLayers {
    /// What their tensors' names begin with.
    pub(super) prefix: &'static str,
    /// Key of how many there are.
    pub(super) count: &'static str,
    /// Behind the prefix and a number: gains of the norms of states, of embeddings, and of the last.
    pub(super) norms: [&'static str; 3],
    /// The matrix that makes the block's stream of a state and an embedding, in this order.
    pub(super) input: &'static str,
}

impl Switch {
    pub(super) fn read(self, config: Config<'_>) -> Result<bool, ConfigError> {
        match self {
            Self::Never => Ok(false),
            Self::Always => Ok(true),
            Self::Key(key, default) => config.flag(key, default),
        }
    }
}

impl ExpertRule {
    /// Whether block `b` has experts.
    pub(super) fn is_sparse(self, config: Config<'_>, b: usize) -> Result<bool, ConfigError> {
        if !self.some_dense {
            return Ok(true);
        }
        let only = config.get("mlp_only_layers").and_then(Value::as_array);
        let listed = only.is_some_and(|list| list.iter().any(|i| i.as_u64() == Some(b as u64)));
        let step = config.size_or("decoder_sparse_step", Some(1))?.unwrap_or(1);
        Ok(!listed && (b + 1).is_multiple_of(step))
    }
}
