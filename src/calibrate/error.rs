//! Why a model cannot be calibrated.
use crate::{forward::ForwardError, model::WeightError};

/// Calibration fails.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// Activations overflow.
    #[error(
        "block {block}, window {window}: activations are NaN or infinite\nhint: is a weight damaged? `milm-compress verify` or `inspect` the model"
    )]
    NonFinite {
        /// The block.
        block: usize,
        /// The window of the calibration set.
        window: usize,
    },
    /// Stored streams that are none.
    #[error("{bytes} bytes are no residual streams\nhint: the file is damaged; start anew")]
    States {
        /// Their number.
        bytes: usize,
    },
    /// The model does not run.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// A weight cannot be had.
    #[error(transparent)]
    Weight(#[from] WeightError),
}
