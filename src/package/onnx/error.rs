//! What can be wrong with an ONNX folder, read or written.
use crate::{checkpoint::CheckpointError, model::WeightError};

/// An ONNX folder cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The output cannot be written, or a file not read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A weight cannot be had.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// The model has no blocks.
    #[error("the model has no blocks\nhint: keep at least one")]
    NoBlocks,
    /// A number that the type cannot hold.
    #[error(
        "tensor `{tensor}`: {value} does not fit the type\nhint: float16 ends at 65504; try --dtype f32"
    )]
    NonFinite {
        /// Its name.
        tensor: String,
        /// What it holds.
        value: f32,
    },
    /// The encodings cannot be written.
    #[error("cannot write the encodings: {source}\nhint: is the disk full?")]
    Encodings {
        /// What the system says.
        source: std::io::Error,
    },
    /// Something that is not there in the form that was planned.
    #[error("{what} cannot be made\nhint: check the package with `milm-compress verify`")]
    Form {
        /// What.
        what: String,
    },
    /// Graphs for an engine.
    #[error(
        "`{folder}` holds graphs for one engine, and no model to go on from\nhint: take the package that it was made from"
    )]
    Compiled {
        /// The folder.
        folder: String,
    },
    /// A file that this program did not write.
    #[error(
        "`{file}` was not written by `milm-compress export`\nhint: only weights of its own graphs are read; start from the model's Hugging Face folder"
    )]
    Foreign {
        /// The file.
        file: String,
    },
    /// Damaged.
    #[error("`{file}`: {what}\nhint: the file is damaged; export the model again")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
}
