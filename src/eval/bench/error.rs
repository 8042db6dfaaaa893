//! What can go wrong between tasks, models and results of earlier runs.
use crate::{
    checkpoint::{CheckpointError, LineFileError},
    eval::{EvalError, task::TaskError},
    forward::ForwardError,
    package::PackageError,
    tensor::TextFileError,
    text::TextError,
};
use std::{io, path::PathBuf};

/// Tasks cannot be run, joined or compared.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the first ones say themselves what they are")]
pub enum BenchError {
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error(transparent)]
    Eval(#[from] EvalError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    File(#[from] TextFileError),
    /// No part of an evaluation.
    #[error(
        "`{found}` is no part of an evaluation\nhint: write 3/16 for the third of sixteen, or auto in a Slurm array or an indexed Kubernetes job (auto/16 when the number of parts is not in the environment)"
    )]
    Shard {
        /// As it was given.
        found: String,
    },
    /// The carried data beside something else.
    #[error("`sample` brings its own data\nhint: run other tasks on their own")]
    Sample,
    /// No folder of data.
    #[error(
        "no data for the tasks\nhint: name a folder with --data or MILM_DATA, or try --tasks sample"
    )]
    NoData,
    /// Data in something else than a folder.
    #[error(
        "`{}` is no folder\nhint: name the folder that holds the tasks' data", path.display()
    )]
    NoFolder {
        /// As it was given.
        path: PathBuf,
    },
    /// The folder of remembered results cannot be made.
    #[error("cannot make the folder `{}`", path.display())]
    CacheFolder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of remembered results cannot be used.
    #[error("cannot use `{}`", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: LineFileError,
    },
    /// A file of records with something else in it.
    #[error("`{}`, line {line}, is no record", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// From 1 on.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A file that holds something else than a report of tasks.
    #[error("`{}` is no report of tasks", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Parts whose folder cannot be read.
    #[error("cannot read the folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Runs that cannot be put beside each other, or together.
    #[error("{detail}\nhint: {hint}")]
    Runs {
        /// What does not fit.
        detail: String,
        /// What to do.
        hint: &'static str,
    },
    /// What identifies a model cannot be written down.
    #[error(transparent)]
    Identity(#[from] serde_json::Error),
}
