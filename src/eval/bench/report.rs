//! Results of a run, beside those of a base.
use super::{BenchError, Shard};
use crate::eval::{
    Gate, GateResult, SCHEMA,
    task::{Gated, Paired, Record, Summary},
};
use serde::{Deserialize, Serialize};

/// A candidate beside a base.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// The base's name.
    pub base: String,
    /// The candidate's name.
    pub name: String,
    /// What differs.
    #[serde(flatten)]
    pub paired: Paired,
}

/// Results of a model on tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The program's version.
    pub tool: String,
    /// The model, as it was named.
    pub model: String,
    /// Which part of the evaluation it is; none: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// In the order in which they were asked for.
    pub tasks: Vec<Summary>,
    /// The base, as it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Beside the base, item by item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compared: Vec<Paired>,
    /// Every gate was passed; true without gates.
    #[serde(default = "yes")]
    pub passed: bool,
    /// The gates that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateResult>,
}

fn yes() -> bool {
    true
}

/// A base by its name, and its records.
pub type Base<'a> = (&'a str, &'a [Record]);

impl TaskReport {
    /// Puts a report together: nothing beside it, no gates.
    pub fn new(model: &str, tasks: Vec<Summary>) -> Self {
        Self {
            schema: SCHEMA,
            tool: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            model: model.to_owned(),
            shard: None,
            tasks,
            reference: None,
            compared: vec![],
            passed: true,
            gates: vec![],
        }
    }

    /// Compares the run's records with a base's, item by item, and judges the gates that are about
    /// tasks; `seed` is that of the bootstrap. A gate on something that was not measured is an
    /// error, as is a base with other items.
    pub fn judged(
        mut self,
        records: &[Record],
        base: Option<Base<'_>>,
        gates: &[Gate],
        seed: u64,
    ) -> Result<Self, BenchError> {
        if let Some((name, base)) = base {
            self.reference = Some(name.to_owned());
            let compare =
                |it: &Summary| Paired::of((&it.task, &it.main_metric), base, records, seed);
            self.compared = self.tasks.iter().map(compare).collect::<Result<_, _>>()?;
        }
        let base = base.map(|(_, records)| records);
        let gated = Gated { summaries: &self.tasks, records, base, seed };
        let mut judged = vec![];
        for gate in gates.iter().filter(|it| !it.is_of_text()) {
            let measured = gated.measured(&gate.figure, gate.is_relative())?;
            judged.push(gate.judge(measured.as_ref())?);
        }
        self.passed = judged.iter().all(|gate| gate.passed);
        self.gates = judged;
        Ok(self)
    }
}
