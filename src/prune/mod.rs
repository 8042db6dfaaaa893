//! Cuts the inner widths of a model: what is kept ([`Kept`]), the smaller tensors
//! ([`slice_block`]) and the `config.json` that describes them ([`pruned_config`]).
//!
//! The residual stream keeps its width. Inside a block, heads, rotary pairs, value channels and
//! hidden units of MLPs go; whole blocks go by [`keep_blocks`].
//!
//! Add a score: one file in `score/` and one line in [`score::SCORES`].
mod allocate;
mod config;
mod depth;
mod error;
mod kept;
mod outline;
mod plan;
mod refit;
pub mod score;
mod select;
mod settings;
mod shape;
mod size;
mod slice;
mod store;
pub mod values;
mod walk;

pub use crate::model::Tensors;
pub use allocate::{allocate, allocated};
pub use config::{pruned_config, shaped_config};
pub use depth::keep_blocks;
pub use error::PruneError;
pub use kept::{Kept, KeptHead, Values};
pub use outline::check_float;
pub use plan::{Plan, plan};
pub use refit::{Refit, RefitSettings, RepairTarget, Sums, refit_from_statistics};
pub use select::{BlockScores, Choice};
pub use settings::{Amount, AttnUnit, Pairs, Repair, Settings, ValueMethod};
pub use shape::BlockShape;
pub use size::Size;
pub use slice::{GainRatios, slice_block};
pub use walk::{RefitWalk, Streams};
