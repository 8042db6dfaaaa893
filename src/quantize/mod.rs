//! Chooses integer codes for weights.
//!
//! [`Settings`] say what is wanted, [`Plan`] what becomes of each tensor, [`rtn`] rounds. Add an
//! algorithm: one file here that chooses codes for rows of a weight.

mod allocate;
mod choices;
mod engine;
mod error;
mod gptq;
mod grids;
mod input_scale;
mod knapsack;
mod layer;
mod outliers;
mod plan;
mod polish;
mod rounding;
pub mod rtn;
mod settings;
mod tuning;
mod walk;
mod words;

pub use crate::scheme::Method;
pub use allocate::{Budget, Candidates, Choice, Unit};
pub use choices::{ActivationScales, CodeChoice, Effort, Embeddings, GroupFallback};
pub use engine::TargetEngine;
pub use error::QuantizeError;
pub use gptq::{Hessian, Rounding};
pub use input_scale::Magnitudes;
pub use plan::{Plan, Planned, plan};
pub use rounding::{LayerReport, RoundingSettings, RoundingTarget};
pub use settings::Settings;
pub use tuning::{Tune, Tuning};
pub(crate) use walk::STAGES;
pub use walk::{RoundedBlock, RoundingWalk, Streams};
pub use words::{GroupSize, Rule, ShardSize};
