//! What can go wrong in an evaluation.
use crate::{checkpoint::HeaderError, forward::ForwardError, text::TextError};

/// An evaluation cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The text cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The tokenizer refuses the text.
    #[error("{detail}")]
    Encode {
        /// What it says.
        detail: String,
    },
    /// An item of a task's data is damaged.
    #[error(
        "`{file}`, `{item}`: {detail}\nhint: correct the file, or get it again where it is published"
    )]
    Item {
        /// The file.
        file: String,
        /// Where in it.
        item: String,
        /// What is wrong.
        detail: String,
    },
    /// An answer that only a model can judge was to be judged here.
    #[error(
        "`{item}` takes a model as its judge\nhint: write the answers out for one with --judge FILE; they are not scored here"
    )]
    JudgeOnly {
        /// The item.
        item: String,
    },
    /// A setting that makes no sense.
    #[error("`{setting}` of {found}: {rule}\nhint: {hint}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What it must obey.
        rule: String,
        /// What to do.
        hint: &'static str,
    },
    /// No protocol of this name.
    #[error("no protocol `{found}`\nhint: known are {known}")]
    Protocol {
        /// As it was given.
        found: String,
        /// The names there are.
        known: String,
    },
    /// The text does not fill a window.
    #[error(
        "the text has {tokens} token{}, protocol `{protocol}` needs at least {needed}\nhint: give more text{}",
        if *tokens == 1 { "" } else { "s" },
        if *needed > 2 { ", or a smaller --ctx" } else { "" }
    )]
    TooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens that the protocol needs at least.
        needed: usize,
        /// The protocol.
        protocol: &'static str,
    },
    /// The model cannot be run.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// Model and reference know different tokens.
    #[error(
        "the model has a vocabulary of {model}, the reference of {reference}\nhint: only models with one tokenizer can be compared token by token"
    )]
    Vocabulary {
        /// Of the model.
        model: usize,
        /// Of the reference.
        reference: usize,
    },
    /// A gate that compares, and nothing to compare with.
    #[error(
        "the gate `{gate}` needs a reference\nhint: name the float model or a stored reference with --reference"
    )]
    NoReference {
        /// The gate.
        gate: String,
    },
    /// A gate that cannot be read.
    #[error(
        "`{found}` is no gate\nhint: write `kl <= 0.05`, `ceval >= 0.3`, `ceval loss <= 1%` or `ceval recovery >= 95%`, with `by-interval` behind it to hold the interval to it"
    )]
    Gate {
        /// As it was given.
        found: String,
    },
    /// A gate on something that is not measured.
    #[error(
        "the gate `{gate}` is about something that is not measured\nhint: texts have ppl, ppl-increase, kl, top1 and top5; tasks have `task`, `task/group` and `task:metric`; losses and recoveries are of tasks and their subjects"
    )]
    GateFigure {
        /// The gate.
        gate: String,
    },
    /// A gate on the interval of a figure that has none.
    #[error(
        "the gate `{gate}` needs an interval, which this figure does not have\nhint: leave out `by-interval`, or measure more"
    )]
    NoInterval {
        /// The gate.
        gate: String,
    },
    /// A share that cannot be read.
    #[error("`{found}` is no share\nhint: write 2% or 0.02; 1 and more only with %")]
    Fraction {
        /// As it was given.
        found: String,
    },
    /// A stored reference is damaged.
    #[error(
        "`{file}`: {source}\nhint: the file is damaged or is no stored reference; make it again with --save-reference"
    )]
    StoredHeader {
        /// The file.
        file: String,
        /// What is wrong.
        source: Box<HeaderError>,
    },
    /// A stored reference lacks something, or contradicts itself.
    #[error("`{file}` is no stored reference: {detail}\nhint: make it with --save-reference")]
    StoredForm {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// A stored reference was made on something else.
    #[error(
        "`{file}` was made with {what} `{stored}`, this evaluation has `{here}`\nhint: evaluate with the same text and settings, or store the reference again"
    )]
    StoredDiffers {
        /// The file.
        file: String,
        /// What differs.
        what: &'static str,
        /// In the file.
        stored: String,
        /// In this evaluation.
        here: String,
    },
    /// A stored reference cannot be written.
    #[error("cannot write the stored reference: {source}\nhint: is the disk full?")]
    StoredWrite {
        /// The system's reason.
        source: std::io::Error,
    },
}
