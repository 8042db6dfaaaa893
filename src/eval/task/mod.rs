//! Benchmarks: data files, prompts, scorers.
//!
//! [`Data`] → [`Task::items`] makes [`Item`]s with [`Request`]s → [`run`] asks an [`Answerer`] →
//! [`Task::score`] → [`Record`]s, one per item → [`summarize`] averages them as published.
//! Add a task: one file that implements [`Task`], one line in [`TASKS`].
mod choice;
mod counted;
mod data;
mod encode;
mod error;
mod exam;
#[cfg(test)]
mod faults;
mod folder;
mod gated;
mod generation;
mod model;
mod paired;
mod record;
mod run;
mod sample;
#[cfg(test)]
mod tests;
mod tree;

pub use choice::Choice;
pub use counted::Counted;
pub use data::{Data, Table, Warnings, read_csv, read_jsonl};
pub use error::TaskError;
pub use exam::Exam;
pub use folder::DataFolder;
pub use gated::Gated;
pub use generation::{
    Capability, FollowBench, IfEval, Judged, NeedleTask, judge_lines, suite_task,
};
pub use model::ModelAnswerer;
pub use paired::Paired;
pub use record::{Answered, Group, Metric, Record, RecordKey, Summary, fingerprint, summarize};
pub use run::{Answerer, Recall, run};
pub use sample::{SAMPLE, Sample};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A benchmark: where its data lies, how it is put to a model, how answers are scored.
pub trait Task: Sync {
    /// As it is asked for, e.g. `hellaswag`.
    fn name(&self) -> &'static str;

    /// Of prompts and scorer: results of different versions are not comparable.
    fn version(&self) -> u32;

    /// One line for people: what it measures and where its form comes from.
    fn about(&self) -> &'static str;

    /// The metric that stands for the task.
    fn main_metric(&self) -> &'static str;

    /// Reads the data and writes the prompts. What is wrong with single rows is counted in the
    /// warnings; what makes the whole file useless is an error.
    fn items(&self, data: &dyn Data, options: &Options) -> Result<Items, TaskError>;

    /// Scores the responses to an item's requests, in their order.
    fn score(&self, item: &Item, responses: &[Response]) -> Result<Score, TaskError>;

    /// What is worth counting about a record beside its score.
    fn remark(&self, _record: &Record) -> Option<&'static str> {
        None
    }

    /// The averages over records, the one over everything first.
    fn aggregate(&self, records: &[Record]) -> Vec<Group> {
        vec![Group::mean("all", records.iter())]
    }
}

/// Choices that tasks share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Worked examples in front of each question; tasks without examples ignore it.
    pub num_fewshot: usize,
    /// Whose prompts are used, where there are several.
    pub template: Template,
    /// The first so many items of each subject.
    pub limit: Option<usize>,
    /// These subjects only; empty: all.
    pub subjects: Vec<String>,
    /// Of what is drawn at random.
    pub seed: u64,
    /// Window of the model, tokens; `usize::MAX` when nothing is known of one.
    pub window: usize,
}

impl Default for Options {
    fn default() -> Self {
        let template = Template::default();
        Self {
            num_fewshot: 0,
            template,
            limit: None,
            subjects: vec![],
            seed: 0,
            window: usize::MAX,
        }
    }
}

/// Whose prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Template {
    /// Of the benchmark's authors
    #[default]
    Official,
    /// Of EleutherAI's lm-evaluation-harness
    Harness,
}

/// What a task asks.
#[derive(Clone, Debug, Default)]
pub struct Items {
    /// In the order of the data.
    pub items: Vec<Item>,
    /// What was odd about the data.
    pub warnings: Warnings,
}

/// One question of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    /// Unique in the task and stable: `subject/row`.
    pub id: String,
    /// What the item is averaged with: a subject, a category; empty without such.
    pub subject: String,
    /// What the model is asked.
    pub requests: Vec<Request>,
    /// What scoring needs: the right answer, the rules of an instruction.
    pub answer: serde_json::Value,
}

/// One question to a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How likely is a continuation?
    LogLikelihood {
        /// What stands before it.
        context: Prompt,
        /// The text whose log-probability is asked for.
        continuation: String,
    },
    /// What does the model write?
    Generate {
        /// What stands before it; with a chat template, the message of the user.
        prompt: Prompt,
        /// Texts that end the answer.
        stop: Vec<String>,
        /// Tokens of the answer at most.
        max_tokens: usize,
    },
}

impl Request {
    /// What stands before the answer.
    pub fn prompt(&self) -> &Prompt {
        match self {
            Self::LogLikelihood { context, .. } => context,
            Self::Generate { prompt, .. } => prompt,
        }
    }
}

/// Text before an answer, in parts: when it is longer than the model's window, the oldest shots
/// are dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Prompt {
    /// What comes first and stays.
    pub head: String,
    /// Worked examples, oldest first, each with what separates it from the next part.
    pub shots: Vec<String>,
    /// The question.
    pub question: String,
}

impl Prompt {
    /// A prompt without shots.
    pub fn plain(question: impl Into<String>) -> Self {
        Self { question: question.into(), ..Self::default() }
    }

    /// The text without the first `dropped` shots.
    pub fn text(&self, dropped: usize) -> String {
        let shots = self.shots.iter().skip(dropped).map(String::as_str);
        [self.head.as_str()].into_iter().chain(shots).chain([self.question.as_str()]).collect()
    }
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::LogLikelihood`].
    LogLikelihood {
        /// Sum over the tokens of the continuation, nats; none, and `null` in JSON, where the model
        /// gave no finite number.
        log_prob: Option<f64>,
        /// Tokens of the continuation.
        tokens: usize,
        /// Each of them is the most likely one.
        greedy: bool,
    },
    /// To [`Request::Generate`].
    Text {
        /// Without the stop text.
        text: String,
        /// Tokens generated.
        tokens: usize,
    },
}

impl Response {
    /// A log-probability was asked for, and the model gave no finite number.
    pub fn is_undefined(&self) -> bool {
        matches!(self, Self::LogLikelihood { log_prob: None, .. })
    }

    /// The log-probability, if one was asked for; NaN where it is undefined.
    pub fn log_prob(&self) -> Option<f64> {
        match self {
            Self::LogLikelihood { log_prob, .. } => Some(log_prob.unwrap_or(f64::NAN)),
            Self::Text { .. } => None,
        }
    }

    /// The text, if one was asked for.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text { text, .. } => Some(text),
            Self::LogLikelihood { .. } => None,
        }
    }
}

/// The score of one item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// By name; accuracies are 0 or 1.
    pub metrics: BTreeMap<String, f64>,
    /// What the model answered, for people: a letter, a text.
    pub answer: String,
    /// What was right, for people.
    pub right: String,
}

impl Score {
    /// From named values.
    pub fn new<const N: usize>(metrics: [(&str, f64); N]) -> Self {
        let metrics = metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { metrics, ..Self::default() }
    }
}

/// All tasks.
pub static TASKS: &[&dyn Task] = &[
    &generation::IfEval,
    &generation::FollowBench,
    &generation::Judged,
    &generation::Capability::DATA,
    &generation::Capability::SAMPLE,
    &generation::NeedleTask::EN,
    &generation::NeedleTask::ZH,
    &exam::CEVAL,
    &exam::CMMLU,
    &exam::MMLU,
    &choice::HELLASWAG,
    &choice::ARC_EASY,
    &choice::ARC_CHALLENGE,
    &choice::PIQA,
    &choice::WINOGRANDE,
    &choice::TRUTHFULQA,
    &choice::LAMBADA,
];

/// The task of a name.
pub fn find(name: &str) -> Result<&'static dyn Task, TaskError> {
    TASKS.iter().copied().find(|task| task.name() == name).ok_or_else(|| TaskError::Unknown {
        found: name.to_owned(),
        known: TASKS.iter().map(|task| task.name()).collect::<Vec<_>>().join(", "),
    })
}
