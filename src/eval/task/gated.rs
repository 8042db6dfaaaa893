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
        let Some(value) = named.and_then(|it| it.metrics.get(metric)) else { return Ok(None) };
        let against = match self.base.filter(|_| relative) {
            Some(base) => {
                let of = |records: &[Record]| -> Vec<Record> {
                    let wanted = |it: &&Record| group.is_none_or(|name| it.subject == name);
                    records.iter().filter(|it| it.task == task).filter(wanted).cloned().collect()
                };
                let paired = Paired::of((task, metric), &of(base), &of(self.records), self.seed)?;
                Some(against(&paired))
            }
            None => None,
        };
        Ok(Some(Measured { value: interval(*value), against, undefined: 0 }))
    }
}

/// Value ± 1.96 errors.
fn interval(metric: Metric) -> Ratio {
    let end = |sign: f64| metric.standard_error.map(|error| metric.value + sign * Z_975 * error);
    Ratio { value: metric.value, low: end(-1.0), high: end(1.0) }
}

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
