//! Why a pipeline stops.
use crate::{
    calibrate::CalibrateError,
    checkpoint::CheckpointError,
    eval::EvalError,
    forward::ForwardError,
    model::{ConfigError, OpenError},
    package::PackageError,
    prune::PruneError,
    quantize::QuantizeError,
    train::TrainError,
    transform::TransformError,
};

/// A stage fails.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the stages' errors say what they are")]
pub enum PipelineError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    #[error(transparent)]
    Prune(#[from] PruneError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Transform(#[from] TransformError),
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Model(#[from] OpenError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Eval(#[from] EvalError),
    #[error(transparent)]
    Package(#[from] PackageError),
    /// What is asked for is not what the engine takes.
    #[error(
        "the package would not load in {engine}: {reason}\nhint: change that, or say what it is made for: --for milm is this program's own runtime"
    )]
    Engine {
        /// The engine.
        engine: &'static str,
        /// Why it does not load it.
        reason: String,
    },
    /// A loss that is no number.
    #[error(
        "the loss of `{unit}` on an int4 grid is no finite number\nhint: is a weight damaged? `milm-compress verify` or `inspect` the model"
    )]
    Loss {
        /// Weights that were rounded.
        unit: String,
    },
    /// The record of unfinished work cannot be read.
    #[error("the record of the unfinished work is damaged: {0}\nhint: start anew with --force")]
    State(serde_json::Error),
    /// A part of unfinished work is not there, or not what it should be.
    #[error("`{name}` of the unfinished work is missing or damaged\nhint: start anew with --force")]
    Damaged {
        /// Its name in the work folder.
        name: String,
    },
}
