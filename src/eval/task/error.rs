//! What can go wrong with a benchmark.
use crate::{forward::ForwardError, runtime::GenerateError, text::TextError};

/// A benchmark cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// No task of this name.
    #[error("no task `{found}`\nhint: known are {known}")]
    Unknown {
        /// As it was given.
        found: String,
        /// The names there are.
        known: String,
    },
    /// A subject that the task does not have.
    #[error("task `{task}` has no subject `{found}`\nhint: docs/evaluation.md names the subjects")]
    Subject {
        /// The task.
        task: &'static str,
        /// As it was given.
        found: String,
    },
    /// A task's data is not there.
    #[error("`{file}` is not in the data folder; task `{task}` needs it\nhint: {hint}")]
    NoData {
        /// The task.
        task: &'static str,
        /// What was looked for.
        file: String,
        /// Where it comes from.
        hint: String,
    },
    /// A data file cannot be read.
    #[error("cannot read `{file}`: {detail}\nhint: is it there, and readable?")]
    Read {
        /// The file.
        file: String,
        /// The system's reason.
        detail: String,
    },
    /// A data file is no text of its form.
    #[error("`{file}`, row {row}: {detail}\nhint: the file is damaged, or has another form")]
    Form {
        /// The file.
        file: String,
        /// Row from 1 on, the header not counted.
        row: usize,
        /// What is wrong.
        detail: String,
    },
    /// A column is missing.
    #[error("`{file}` has no column `{column}`, it has {found}\nhint: {hint}")]
    Column {
        /// The file.
        file: String,
        /// What was looked for.
        column: String,
        /// The columns there are.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// Nothing of a data file can be asked.
    #[error(
        "`{file}` holds no item that can be asked: {reason}: {count} (first: row {row})\nhint: is it the split with answers?"
    )]
    Unusable {
        /// The file.
        file: String,
        /// Why rows were left out.
        reason: &'static str,
        /// How many were.
        count: usize,
        /// The first, from 1 on, the header not counted.
        row: usize,
    },
    /// A data file has nothing to ask.
    #[error("`{file}` holds no items\nhint: is it the right file?")]
    Empty {
        /// The file.
        file: String,
    },
    /// Fewer examples than asked for.
    #[error("`{file}` has {found} examples, {wanted} are asked for\nhint: lower --num-fewshot")]
    Shots {
        /// The file.
        file: String,
        /// Examples there are.
        found: usize,
        /// Examples asked for.
        wanted: usize,
    },
    /// The task is judged by a model, which this program does not do.
    #[error(
        "task `{task}` is scored by a judge, not by rules\nhint: export its prompts and answers with --judge FILE; no score is made up here"
    )]
    Judge {
        /// The task.
        task: &'static str,
    },
    /// Responses do not fit the requests of an item.
    #[error("item `{item}`: {detail}\nhint: delete the records of this task and evaluate again")]
    Responses {
        /// The item.
        item: String,
        /// What does not fit.
        detail: String,
    },
    /// A request that cannot be put to the model.
    #[error("request {at}: {detail}")]
    Request {
        /// Its place in the list.
        at: usize,
        /// Why not.
        detail: String,
    },
    /// As [`Self::Request`], with the item that it is of.
    #[error(
        "task `{task}`, item `{item}`: {detail}\nhint: this model cannot be measured with this item"
    )]
    Item {
        /// The task.
        task: &'static str,
        /// The item.
        item: String,
        /// Why not.
        detail: String,
    },
    /// Runs that cannot be put together.
    #[error("{detail}\nhint: {hint}")]
    Runs {
        /// What does not fit.
        detail: String,
        /// What to do.
        hint: &'static str,
    },
    /// Items or their rules are damaged.
    #[error(transparent)]
    Items(#[from] Box<crate::eval::EvalError>),
    /// The model failed.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The tokenizer failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Nothing could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A record could not be kept.
    #[error("cannot keep the record of `{item}`: {detail}\nhint: is the disk full?")]
    Keep {
        /// The item.
        item: String,
        /// The system's reason.
        detail: String,
    },
}

impl From<crate::eval::EvalError> for TaskError {
    fn from(error: crate::eval::EvalError) -> Self {
        Self::Items(Box::new(error))
    }
}
