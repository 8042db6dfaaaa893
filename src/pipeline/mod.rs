//! Where calibration, compression and measurement meet.
//!
//! [`Prune`] takes a checkpoint to a smaller one. Add a stage: one file here that calls the stage
//! block by block.
mod allocation;
mod bases;
mod basis;
mod calibration;
mod distil;
mod error;
mod heads;
mod journal;
mod memory;
mod prune;
mod pruning;
mod quantize;
mod recover;
mod rounding;
mod sensitivity;
mod shot;
mod streams;
mod trial;
mod tune;

pub use allocation::{Allocation, ChoiceLoss, UnitLoss};
pub use bases::{Bases, Offer};
pub use calibration::{Calibration, fingerprint};
pub use error::PipelineError;
pub use heads::{LearntHeads, TrainHeads};
pub use memory::Footprint;
pub use prune::{Cost, Pruned, REPORT_FILE};
pub use pruning::{Measured, Prune};
pub use quantize::Quantized;
pub use recover::{Gain, Recover, Recovered};
pub use rounding::Quantize;
pub use sensitivity::Allocate;
pub use trial::Trial;
