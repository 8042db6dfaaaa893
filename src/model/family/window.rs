//! Windows of attention: the keys of `config.json` that speak of them, and how families read them.
use super::{Config, ConfigError, unfit};
use serde_json::Value;

pub(super) const WINDOW: &str = "sliding_window";
pub(super) const USED: &str = "use_sliding_window";
pub(super) const KINDS: &str = "layer_types";
pub(super) const SLIDING: &str = "sliding_attention";
pub(super) const FULL: &str = "full_attention";

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
    /// All but every nth: n by a key, with its default.
    AllButEvery(&'static str, usize),
    /// Every second one, the first among them, below `max_window_layers`.
    EvenBelow,
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
            (None, Windowed::AllButEvery(key, default)) => {
                let every = config.size_or(key, Some(default))?.unwrap_or(default);
                !(b + 1).is_multiple_of(every)
            }
            (None, Windowed::Upper) => window.is_some() && border <= b as f64,
            (None, Windowed::EvenBelow) => b.is_multiple_of(2) && border > b as f64,
        };
        if is_windowed && window.is_none() {
            return Err(unfit(WINDOW, format!("a size, for block {b}"), &Value::Null));
        }
        Ok(window.filter(|_| is_windowed))
    }
}
