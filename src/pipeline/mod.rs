//! Where calibration, compression and measurement meet.
//!
//! [`Prune`] takes a checkpoint to a smaller one. Add a stage: one file here that calls the stage
//! block by block.
mod error;
mod journal;
mod prune;
mod quantize;
mod sensitivity;
mod shot;

pub use error::PipelineError;
pub use prune::{Cost, Measured, Prune, Pruned, REPORT_FILE};
pub use quantize::{Quantize, Quantized, is_streamed, needs_text};
pub use sensitivity::{Allocate, Allocation, ChoiceLoss, UnitLoss};
