//! Why a model cannot be transformed as wanted.
use crate::{
    calibrate::CalibrateError,
    forward::ForwardError,
    linalg::LinalgError,
    model::{ConfigError, OpenError, WeightError},
};

/// Model and transform do not fit.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// Weights that lie on a grid already.
    #[error(
        "tensor `{tensor}` is quantized already\nhint: rotate the float checkpoint, then quantize"
    )]
    Quantized {
        /// Its name.
        tensor: String,
    },
    /// A model that was rotated.
    #[error(
        "the model is rotated already (config.json: `milm_transform`, rotation `{found}`)\nhint: start from the checkpoint before it, or --rotate none"
    )]
    Twice {
        /// Kind of its rotation.
        found: String,
    },
    /// A norm behind a half, whose gain is multiplied by no matrix.
    #[error(
        "tensor `{tensor}`: a gain between a half and the residual stream stays in its coordinates: \
         expected none for --rotate {kind}\nhint: --rotate none (values and down inputs can be rotated: --rotate-values, --rotate-down)"
    )]
    PostNorm {
        /// Its name.
        tensor: String,
        /// Kind of the rotation.
        kind: &'static str,
    },
    /// A block that does not divide the width.
    #[error("--rotate-block: expected a divisor of the hidden size {hidden}, found `{found}`")]
    Block {
        /// Width of the residual stream.
        hidden: usize,
        /// Wanted.
        found: usize,
    },
    /// A rotation in blocks that has none.
    #[error("--rotate-block: a rotation of kind `{kind}` has no blocks\nhint: --rotate hadamard")]
    Whole {
        /// The kind.
        kind: &'static str,
    },
    /// A share of directions outside of (0, 1).
    #[error("share of outlier directions: expected a number between 0 and 1, found `{found}`")]
    Share {
        /// Wanted.
        found: f64,
    },
    /// A rotation that depends on activations, without any.
    #[error("--rotate {kind} needs calibration activations\nhint: give a calibration text")]
    NoEvidence {
        /// The kind.
        kind: &'static str,
    },
    /// Activations of another model.
    #[error("calibration activations: {what}: expected {expected}, found {found}")]
    Evidence {
        /// What differs.
        what: &'static str,
        /// By the model.
        expected: usize,
        /// In the activations.
        found: usize,
    },
    /// A stored tensor has another shape than the architecture gives it.
    #[error("tensor `{tensor}`: expected the shape {expected:?}, found {found:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// By the architecture.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A weight that is infinite or not a number.
    #[error(
        "tensor `{tensor}`: `{found}` at row {row}, column {column}: a rotation would spread it over all channels\nhint: repair the checkpoint, or --rotate none"
    )]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Row.
        row: usize,
        /// Column.
        column: usize,
        /// The value.
        found: f32,
    },
    /// A rotation cannot be made.
    #[error("rotation of {what}: {source}")]
    Matrix {
        /// What is rotated.
        what: String,
        /// Why.
        source: LinalgError,
    },
    /// A weight cannot be had.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// The rewritten config is not one.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The rewritten model does not fit its config.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No forward pass.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// No statistics.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
}

/// Names what a factorization was for.
pub(super) fn of(what: impl Into<String>) -> impl FnOnce(LinalgError) -> TransformError {
    let what = what.into();
    move |source| TransformError::Matrix { what, source }
}
