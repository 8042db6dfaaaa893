//! Where calibration, compression and measurement meet.
//!
//! [`Prune`] takes a checkpoint to a smaller one. Add a stage: one file here that calls the stage
//! block by block.
mod allocation;
mod basis;
mod error;
mod journal;
mod memory;
mod prune;
mod quantize;
mod sensitivity;
mod shot;

pub use allocation::{Allocation, ChoiceLoss, UnitLoss};
pub use basis::{Trial, is_streamed, needs_text, outcomes};
pub use error::PipelineError;
pub use memory::Footprint;
pub use prune::{Cost, Measured, Prune, Pruned, REPORT_FILE};
pub use quantize::{Quantize, Quantized};
pub use sensitivity::Allocate;
