//! What ops are run with.
use crate::{forward::Rotary, linalg::Team};

/// What ops need beside parameters and tokens.
pub(super) struct Run<'a> {
    pub(super) team: &'a Team,
    /// Tokens of a window; the rows of a matrix are those of one window after the other.
    pub(super) window: usize,
    /// Row `t` belongs to token `t` of a window.
    pub(super) rotary: &'a Rotary,
}
