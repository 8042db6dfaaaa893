//! What is kept of each item, and averages over it.
use super::{Item, Options, Response, Score, Task, Warnings};
use crate::checkpoint::sha256;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A response and what had to be done to the prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// What the model answered.
    pub response: Response,
    /// Shots that were dropped so that the prompt fits.
    pub dropped_shots: usize,
    /// Tokens that were cut off the beginning after that.
    pub cut_tokens: usize,
}

/// One item of a run: a JSON line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the task.
    pub task: String,
    /// Of the task's prompts and scorer.
    pub version: u32,
    /// Unique in the task.
    pub id: String,
    /// What the item is averaged with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// SHA-256 of the requests and the right answer: equal for all models that were asked alike.
    pub item: String,
    /// SHA-256 of model, settings and item: the same work would be done again.
    pub key: String,
    /// The scores.
    #[serde(flatten)]
    pub score: Score,
    /// What the model answered, per request.
    pub responses: Vec<Response>,
    /// The most shots that were dropped of a prompt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_shots: usize,
    /// The most tokens that were cut off a prompt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cut_tokens: usize,
}

impl Record {
    /// The model gave no number where one was asked for: the answer counts as wrong.
    pub fn is_undefined(&self) -> bool {
        self.responses.iter().any(Response::is_undefined)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What records depend on beside the item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecordKey {
    /// What identifies the model's weights and tokenizer.
    pub model: String,
    /// How it is run: backend, precision of the cache, chat template.
    pub settings: serde_json::Value,
}

impl RecordKey {
    /// The hashes of an item of a task: its own, and with model and settings.
    pub fn of(&self, task: &dyn Task, item: &Item) -> [String; 2] {
        let own = fingerprint(&(task.name(), task.version(), item));
        let all = fingerprint(&(self, &own));
        [own, all]
    }
}

/// SHA-256 of the JSON form.
pub fn fingerprint(value: &impl Serialize) -> String {
    sha256(serde_json::to_string(value).expect("plain data").as_bytes())
}

/// A mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The mean.
    pub value: f64,
    /// Of the mean; none of a single item.
    pub standard_error: Option<f64>,
}

/// Averages over some items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// A subject, a category, `all`.
    pub name: String,
    /// How many items.
    pub items: usize,
    /// By the metric's name.
    pub metrics: BTreeMap<String, Metric>,
}

impl Group {
    /// The mean over items; error: standard deviation / √n. A metric that an item lacks is
    /// averaged over those that have it.
    pub fn mean<'a>(name: &str, records: impl Iterator<Item = &'a Record>) -> Self {
        let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut items = 0;
        for record in records {
            items += 1;
            for (metric, value) in &record.score.metrics {
                values.entry(metric).or_default().push(*value);
            }
        }
        let metrics = values.into_iter().map(|(name, values)| (name.to_owned(), mean(&values)));
        Self { name: name.to_owned(), items, metrics: metrics.collect() }
    }

    /// The mean of groups' means, each counting alike: a macro average.
    pub fn macro_mean(name: &str, groups: &[&Self]) -> Self {
        let names: BTreeSet<&String> = groups.iter().flat_map(|it| it.metrics.keys()).collect();
        let metrics = names.into_iter().map(|metric| {
            let of: Vec<&Metric> = groups.iter().filter_map(|it| it.metrics.get(metric)).collect();
            let count = of.len() as f64;
            let value = of.iter().map(|it| it.value).sum::<f64>() / count;
            let squares: Option<f64> = of.iter().map(|it| it.standard_error.map(|e| e * e)).sum();
            (metric.clone(), Metric { value, standard_error: squares.map(|it| it.sqrt() / count) })
        });
        let items = groups.iter().map(|it| it.items).sum();
        Self { name: name.to_owned(), items, metrics: metrics.collect() }
    }

    /// One group per subject, in the order in which subjects come.
    pub fn by_subject(records: &[Record]) -> Vec<Self> {
        let mut order: Vec<&str> = Vec::new();
        let mut parts: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
        for record in records {
            let part = parts.entry(&record.subject).or_default();
            if part.is_empty() {
                order.push(&record.subject);
            }
            part.push(record);
        }
        order.iter().map(|name| Self::mean(name, parts[name].iter().copied())).collect()
    }
}

fn mean(values: &[f64]) -> Metric {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let standard_error = (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt());
    Metric { value: mean, standard_error }
}

/// A task's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the task.
    pub task: String,
    /// Of its prompts and scorer.
    pub version: u32,
    /// The metric that stands for it.
    pub main_metric: String,
    /// How it was asked.
    pub options: Options,
    /// The average over everything first.
    pub groups: Vec<Group>,
    /// Items where the model gave NaN or infinity: they count as wrong, and no gate passes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub undefined: usize,
    /// What was odd, counted.
    pub warnings: Vec<String>,
    /// What was odd about the data, of a part of an evaluation: it is not counted twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_warnings: Option<Warnings>,
}

/// Averages records as the task's authors do; tells what was odd about them.
pub fn summarize(
    task: &dyn Task,
    options: &Options,
    records: &[Record],
    warnings: &Warnings,
) -> Summary {
    let mut warnings = warnings.clone();
    for record in records {
        if let Some(remark) = task.remark(record) {
            warnings.add(remark, &record.id);
        }
        if record.dropped_shots > 0 {
            warnings.add("prompts longer than the window, oldest shots dropped", &record.id);
        }
        if record.cut_tokens > 0 {
            warnings.add("prompts longer than the window, their beginning cut off", &record.id);
        }
    }
    let undefined = records.iter().filter(|it| it.is_undefined()).count();
    let first = records.iter().find(|it| it.is_undefined()).map(|first| {
        let (of, id) = (records.len(), &first.id);
        format!("{undefined} of {of} questions gave NaN, counted as wrong (first: {id})")
    });
    Summary {
        task: task.name().to_owned(),
        version: task.version(),
        main_metric: task.main_metric().to_owned(),
        options: options.clone(),
        groups: task.aggregate(records),
        undefined,
        warnings: first.into_iter().chain(warnings.lines()).collect(),
        data_warnings: None,
    }
}
