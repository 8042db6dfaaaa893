//! The vocabulary in which families are told apart.
use super::{
    Config, ConfigError,
    complete::{FULL, KINDS, SLIDING, USED, WINDOW},
    unfit,
};
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
}

/// A property that a family has, has not, or leaves to `config.json`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Switch {
    Never,
    Always,
    /// A key and its default.
    Key(&'static str, bool),
}

/// Which blocks see a window of `sliding_window` tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowRule {
    /// Only if `use_sliding_window`.
    pub(super) if_used: bool,
    /// `layer_types` names the blocks, where it is there.
    pub(super) listed: bool,
    /// The blocks where it is not.
    pub(super) unlisted: Windowed,
    /// `sliding_window` where it is absent; `null` is none.
    pub(super) default: Option<usize>,
}

/// Blocks that see a window where `layer_types` does not say it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Windowed {
    Every,
    /// From `max_window_layers` on.
    Upper,
    /// Every second one, the first among them, below `max_window_layers`.
    EvenBelow,
}

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

/// `max_window_layers` where it is absent.
const UPPER: f64 = 28.0;

impl WindowRule {
    /// The window of block `b`. `config` is complete.
    pub(super) fn read(self, config: Config<'_>, b: usize) -> Result<Option<usize>, ConfigError> {
        let kinds = config.get(KINDS).filter(|_| self.listed);
        let listed = kinds.and_then(|list| list.get(b)?.as_str()).map(|kind| kind == SLIDING);
        if self.if_used && !config.flag(USED, false)? {
            return match listed {
                Some(true) => {
                    let expected = format!("`{FULL}` where `{USED}` is not true");
                    Err(unfit(KINDS, expected, &SLIDING.into()))
                }
                _ => Ok(None),
            };
        }
        let window = config.size_or(WINDOW, None)?;
        let border = config.number("max_window_layers", UPPER)?;
        let is_windowed = match (listed, self.unlisted) {
            (Some(listed), _) => listed,
            (None, Windowed::Every) => window.is_some(),
            (None, Windowed::Upper) => window.is_some() && border <= b as f64,
            (None, Windowed::EvenBelow) => b.is_multiple_of(2) && border > b as f64,
        };
        if is_windowed && window.is_none() {
            return Err(unfit(WINDOW, format!("a size, for block {b}"), &Value::Null));
        }
        Ok(window.filter(|_| is_windowed))
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
