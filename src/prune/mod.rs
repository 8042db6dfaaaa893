//! Cuts the inner widths of a model: what is kept ([`Kept`]), the smaller tensors
//! ([`slice_block`]) and the `config.json` that describes them ([`pruned_config`]).
//!
//! The residual stream keeps its width. Inside a block, heads, rotary pairs, value channels and
//! hidden units of MLPs go; whole blocks go by [`keep_blocks`].
//!
//! Add a score: one file in `score/` and one line in [`score::SCORES`].
mod config;
mod depth;
mod error;
mod kept;
mod shape;
mod slice;
pub mod repair;
pub mod score;
pub mod values;

pub use config::{pruned_config, shaped_config};
pub use depth::keep_blocks;
pub use error::PruneError;
pub use kept::{Kept, KeptHead, Values};
pub use shape::BlockShape;
pub use slice::{GainRatios, Tensors, slice_block};
