//! Why a model cannot be calibrated.
use crate::{
    checkpoint::{CheckpointError, HeaderError},
    forward::ForwardError,
    model::{Role, WeightError},
    number::OutOfRange,
    tensor::MapError,
    text::TextError,
};

/// Activations that are NaN or infinite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "block {block}, window {window}: activations are NaN or infinite, first behind {layer}\nhint: is a weight damaged? `milm-compress verify` or `inspect` the model"
)]
pub struct NonFinite {
    /// The block.
    pub block: usize,
    /// The window of the calibration set.
    pub window: usize,
    /// What gave them, in backquotes.
    pub layer: String,
}

/// Calibration fails.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// Activations overflow.
    #[error(transparent)]
    NonFinite(#[from] NonFinite),
    /// Stored streams that are none.
    #[error("{bytes} bytes are no residual streams\nhint: the file is damaged; start anew")]
    States {
        /// Their number.
        bytes: usize,
    },
    /// A reference model of another shape.
    #[error(
        "the reference model has other blocks than the model\nhint: cross covariances need models of one shape, e.g. a package and the checkpoint it was made from"
    )]
    OtherShape,
    /// The model does not run.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// A weight cannot be had.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A setting out of its range.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// A setting that makes no sense.
    #[error("`{setting}` of `{found}`\nhint: expected {rule}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What it must be.
        rule: &'static str,
    },
    /// Samples longer than the model allows.
    #[error(
        "--calibration-tokens of {found}: the model was made for {positions} positions\n\
         hint: choose at most {positions}"
    )]
    Positions {
        /// Tokens of a sample.
        found: usize,
        /// Of the model.
        positions: usize,
    },
    /// The texts cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A text cannot be read from the disk.
    #[error(transparent)]
    File(#[from] MapError),
    /// The tokenizer refuses a text.
    #[error("{detail}")]
    Encode {
        /// What it says.
        detail: String,
    },
    /// The texts do not fill a window.
    #[error(
        "every text to calibrate on has fewer than {needed} tokens, the longest {longest}\nhint: give more text, or a smaller --calibration-tokens"
    )]
    TooShort {
        /// Tokens of a window.
        needed: usize,
        /// Tokens of the longest text.
        longest: usize,
    },
    /// The model cannot write its own text.
    #[error("the model wrote no calibration text: {detail}")]
    Generate {
        /// Why.
        detail: String,
    },
    /// A covariance of fewer tokens than it has rows.
    #[error(
        "block {block}: the covariance of the input of {role:?} has {width} rows, {tokens} tokens were seen\nhint: give more text or samples, or go on with --allow-rank-deficient"
    )]
    RankDeficient {
        /// The block.
        block: usize,
        /// The layer.
        role: Role,
        /// Tokens that its input was seen for.
        tokens: u64,
        /// Width of the input.
        width: usize,
    },
    /// Statistics in a file that is damaged.
    #[error("{source}\nhint: the file holds no statistics; make it with `calibrate`")]
    Header {
        /// What is wrong.
        source: Box<HeaderError>,
    },
    /// Statistics that lack something.
    #[error("no statistics: {detail}\nhint: make the file with `calibrate`")]
    Form {
        /// What is wrong.
        detail: String,
    },
    /// Statistics of something else.
    #[error(
        "stale statistics: they were made with {what} `{stored}`, wanted is `{here}`\nhint: calibrate again, or use the model, text and settings that they were made with"
    )]
    Stale {
        /// What differs.
        what: String,
        /// In the file.
        stored: String,
        /// Here.
        here: String,
    },
    /// Statistics cannot be written.
    #[error(transparent)]
    Output(#[from] CheckpointError),
}
