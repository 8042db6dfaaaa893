//! What is known of one candidate.
use super::PageError;
use crate::eval::GateResult;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// One candidate: a name, and what files said about it.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// What it is called.
    pub name: String,
    /// Bytes of its weights, if known.
    pub bytes: Option<u64>,
    pub(super) evaluation: Option<Evaluation>,
    pub(super) layers: Vec<Layer>,
    pub(super) tasks: Vec<Task>,
    task_gates: Vec<GateResult>,
    pub(super) records: Vec<Record>,
    pub(super) recipe: Option<Value>,
    pub(super) made_by: Option<String>,
}

/// Of `eval --json`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Evaluation {
    #[serde(default)]
    pub(super) tool: String,
    pub(super) ppl: Option<f64>,
    pub(super) ppl_increase: Option<f64>,
    pub(super) kl_mean: Option<f64>,
    pub(super) top1_agreement: Option<f64>,
    #[serde(default)]
    pub(super) tokens: u64,
    pub(super) reference: Option<String>,
    #[serde(default)]
    gates: Vec<GateResult>,
    #[serde(default)]
    pub(super) method: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) figures: Value,
}

/// Error of one layer, of `quantize --json`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Layer {
    pub(super) block: Option<usize>,
    pub(super) tensor: String,
    /// Relative error of its output.
    pub(super) error: Option<f64>,
}

/// Of `eval --tasks`.
#[derive(Clone, Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the JSON form")]
pub(super) struct Task {
    pub(super) task: String,
    pub(super) main_metric: String,
    #[serde(default)]
    pub(super) groups: Vec<Group>,
    #[serde(default)]
    pub(super) warnings: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) items: usize,
    pub(super) metrics: BTreeMap<String, Metric>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Metric {
    pub(super) value: Option<f64>,
    pub(super) standard_error: Option<f64>,
}

/// One item of a task.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Record {
    pub(super) task: String,
    pub(super) id: String,
    #[serde(default)]
    pub(super) item: String,
    #[serde(default)]
    pub(super) metrics: BTreeMap<String, f64>,
    #[serde(default)]
    pub(super) answer: String,
    #[serde(default)]
    pub(super) right: String,
}

impl Run {
    /// A run of which nothing is known yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a file: JSON of `eval`, of `quantize`, of tasks, a package's manifest, or JSON lines of
    /// items. What it is shows in its fields.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), PageError> {
        let wrong = |detail: String| PageError::File { file: file.to_owned(), detail };
        match serde_json::from_str::<Value>(text) {
            Ok(value) => self.add_value(value).map_err(wrong),
            Err(_) => self.add_lines(text).map_err(wrong),
        }
    }

    fn add_value(&mut self, value: Value) -> Result<(), String> {
        let broken = |error: serde_json::Error| error.to_string();
        let has = |key: &str| value.get(key).is_some();
        let kinds = [
            ("quantized tensors", has("recipe") && has("tensors")),
            ("figures", has("figures") && has("method")),
            ("layers", has("layers")),
            ("tasks", has("tasks") || has("groups") || value.is_array()),
            ("an item", has("task") && has("id")),
        ];
        match kinds.iter().find(|(_, is)| *is).map(|(kind, _)| *kind) {
            Some("quantized tensors") => {
                self.recipe = Some(value["recipe"].clone());
                let tool = &value["tool"];
                let parts = [&tool["name"], &tool["version"]].map(|it| it.as_str().unwrap_or("?"));
                self.made_by = Some(parts.join(" "));
                match value.get("evaluation") {
                    Some(evaluation) if self.evaluation.is_none() => {
                        self.add_value(evaluation.clone())?;
                    }
                    _ => {}
                }
            }
            Some("figures") => {
                let tasks = value.get("tasks").cloned();
                self.evaluation = Some(serde_json::from_value(value).map_err(broken)?);
                if let Some(tasks) = tasks {
                    self.add_value(tasks)?;
                }
            }
            Some("layers") => {
                self.layers = serde_json::from_value(value["layers"].clone()).map_err(broken)?;
                self.bytes = value["bytes"].as_u64().or(self.bytes);
            }
            Some("tasks") => {
                if let Some(gates) = value.get("gates") {
                    let gates = Vec::<GateResult>::deserialize(gates).map_err(broken)?;
                    self.task_gates.extend(gates);
                }
                let list = match (value.get("tasks"), value.is_array()) {
                    (Some(tasks), _) => tasks.clone(),
                    (None, true) => value,
                    (None, false) => Value::Array(vec![value]),
                };
                let tasks: Vec<Task> = serde_json::from_value(list).map_err(broken)?;
                self.tasks.extend(tasks);
            }
            Some(_) => self.records.push(serde_json::from_value(value).map_err(broken)?),
            None => return Err("none of the known fields is there".into()),
        }
        Ok(())
    }

    fn add_lines(&mut self, text: &str) -> Result<(), String> {
        for (index, line) in text.lines().enumerate().filter(|(_, it)| !it.trim().is_empty()) {
            let record = serde_json::from_str(line);
            self.records.push(record.map_err(|error| format!("line {}: {error}", index + 1))?);
        }
        Ok(())
    }

    /// The gates of texts, then of tasks.
    pub(super) fn gates(&self) -> impl Iterator<Item = &GateResult> {
        self.evaluation.iter().flat_map(|it| &it.gates).chain(&self.task_gates)
    }

    /// The metric that stands for a task: as its summary says, or the first of its items'.
    pub(super) fn main_metric(&self, task: &str) -> Option<&str> {
        let told = self.tasks.iter().find(|it| it.task == task).map(|it| it.main_metric.as_str());
        told.or_else(|| {
            let record = self.records.iter().find(|it| it.task == task)?;
            record.metrics.keys().next().map(String::as_str)
        })
    }
}
