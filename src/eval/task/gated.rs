//! Figures of tasks, as gates ask for them.
use super::{Metric, Paired, Record, Summary, TaskError};
use crate::eval::{Against, Measured, Ratio};

/// 97.5 % quantile of the normal distribution.
const Z_975: f64 = 1.959_964;

/// A run, and a base on the same items when there is one.
#[derive(Clone, Copy, Debug)]
pub struct Gated<'a> {
    /// Averages of the run.
    pub summaries: &'a [Summary],
    /// Its items.
    pub records: &'a [Record],
    /// The base's items.
    pub base: Option<&'a [Record]>,
    /// Of the bootstrap.
    pub seed: u64,
}

impl Gated<'_> {
    /// The figure `task[/group][:metric]`: the group `all` and the task's main metric unless others
    /// are named. Losses and recoveries are means over items, of everything or of a subject.
    /// `None` where there is no such figure.
    pub fn measured(&self, figure: &str, relative: bool) -> Result<Option<Measured>, TaskError> {
        let (path, metric) = figure.split_once(':').map_or((figure, None), |(a, b)| (a, Some(b)));
        let (task, group) = path.split_once('/').map_or((path, None), |(a, b)| (a, Some(b)));
        let Some(summary) = self.summaries.iter().find(|it| it.task == task) else {
            return Ok(None);
        };
        let metric = metric.unwrap_or(&summary.main_metric);
        let named = summary.groups.iter().find(|it| it.name == group.unwrap_or("all"));
        let base = self.base.filter(|_| relative);
        let undefined = self.records.iter().chain(base.into_iter().flatten());
        let undefined = undefined.filter(|it| it.is_undefined()).count();
        let value = match named.and_then(|it| it.metrics.get(metric)) {
            Some(value) => *value,
            // An average over nothing: items without a number have no likelihood.
            None if undefined > 0 && named.is_some() => {
                Metric { value: f64::NAN, standard_error: None }
            }
            None => return Ok(None),
        };
        let against = match base {
            Some(base) => {
                let of = |records: &[Record]| -> Vec<Record> {
                    let wanted = |it: &&Record| group.is_none_or(|name| it.subject == name);
                    records.iter().filter(|it| it.task == task).filter(wanted).cloned().collect()
                };
                match Paired::of((task, metric), &of(base), &of(self.records), self.seed) {
                    Err(_) if undefined > 0 => Some(UNKNOWN),
                    paired => Some(against(&paired?)),
                }
            }
            None => None,
        };
        Ok(Some(Measured { value: interval(value), against, undefined }))
    }
}

/// Value ± 1.96 errors.
fn interval(metric: Metric) -> Ratio {
    let end = |sign: f64| metric.standard_error.map(|error| metric.value + sign * Z_975 * error);
    Ratio { value: metric.value, low: end(-1.0), high: end(1.0) }
}

/// Beside a base, where no item has a number.
const UNKNOWN: Against = {
    let nothing = Ratio { value: f64::NAN, low: None, high: None };
    let (base, detectable) = (f64::NAN, f64::NAN);
    Against { loss: nothing, recovery: nothing, base, detectable, items: 0 }
};

fn against(it: &Paired) -> Against {
    let ratio = |value, low, high| Ratio { value, low: Some(low), high: Some(high) };
    Against {
        // From 0, so that no loss is 0, not -0.
        loss: ratio(0.0 - it.difference, 0.0 - it.high, 0.0 - it.low),
        recovery: ratio(it.recovery, it.recovery_low, it.recovery_high),
        base: it.base,
        detectable: it.detectable,
        items: it.items,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Options, SAMPLE, Warnings, find, run, summarize,
        tests::{key, oracle},
    };
    use super::*;
    use crate::eval::Gate;

    /// NaN of some questions is kept, counted and told; they are wrong, and no gate passes.
    #[test]
    fn questions_without_a_number_are_wrong_and_no_gate_passes() {
        let silent = crate::progress::Silent;
        for (name, gates) in [
            (
                "hellaswag",
                ["hellaswag >= 0", "hellaswag:acc >= 0 by-interval", "hellaswag loss <= 100%"],
            ),
            ("winogrande", ["winogrande >= 0", "winogrande <= 1", "winogrande recovery >= 0"]),
            ("truthfulqa", ["truthfulqa >= 0", "truthfulqa:mc1 >= 0", "truthfulqa loss <= 100%"]),
            ("lambada", ["lambada >= 0", "lambada:perplexity <= 1e9", "lambada:nll loss <= 100%"]),
            ("ceval", ["ceval >= 0", "ceval/law:acc >= 0", "ceval loss <= 100%"]),
        ] {
            let task = find(name).unwrap();
            let items = task.items(&SAMPLE, &Options::default()).unwrap().items;
            let run_with = |likes: &dyn Fn(&str) -> f64| {
                let asked = (items.as_slice(), 0..items.len());
                run(task, asked, &key(), &mut oracle(likes), (&mut (), &silent)).unwrap()
            };
            let sound = run_with(&|text| -(text.len() as f64));
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let records = run_with(&|_| bad);
                for record in &records {
                    let line = serde_json::to_string(record).unwrap();
                    assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), *record);
                    assert!(
                        record.is_undefined() && record.score.metrics[task.main_metric()] == 0.0
                    );
                }
                // One question of all is enough.
                let mixed = [&records[..1], &sound[1..]].concat();
                for (records, count) in [(&records, records.len()), (&mixed, 1), (&sound, 0)] {
                    let summary =
                        summarize(task, &Options::default(), records, &Warnings::default());
                    assert_eq!(summary.undefined, count);
                    let told = format!("{count} of {} questions gave NaN", records.len());
                    assert_eq!(summary.warnings.iter().any(|it| it.contains(&told)), count > 0);
                    let gated =
                        Gated { summaries: &[summary], records, base: Some(&sound), seed: 0 };
                    for gate in gates {
                        let gate: Gate = gate.parse().unwrap();
                        let measured = gated.measured(&gate.figure, gate.is_relative()).unwrap();
                        let judged = gate.judge(measured.as_ref()).unwrap();
                        assert_eq!(judged.passed, count == 0, "{gate} {bad}");
                        let note = judged.note.unwrap_or_default();
                        assert_eq!(
                            note.contains("questions gave NaN"),
                            count > 0,
                            "{gate}: {note}"
                        );
                    }
                }
                // A base without numbers flatters what is compared with it.
                let summary = summarize(task, &Options::default(), &sound, &Warnings::default());
                let base = Some(records.as_slice());
                let gated = Gated { summaries: &[summary], records: &sound, base, seed: 0 };
                let gate: Gate = gates[2].parse().unwrap();
                let measured = gated.measured(&gate.figure, gate.is_relative()).unwrap();
                let relative = gate.is_relative();
                assert_eq!(gate.judge(measured.as_ref()).unwrap().passed, !relative, "{gate}");
            }
        }
    }
}
