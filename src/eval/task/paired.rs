//! Two runs on the same items: is the difference real?
use super::{Record, TaskError};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Deserializer, Serialize};
use statrs::distribution::{Binomial, DiscreteCDF};
use std::collections::BTreeMap;

/// With fewer subjects, items are resampled: a handful of clusters makes intervals too narrow.
const MIN_SUBJECTS: usize = 8;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 10_000;

/// How a candidate's answers differ from a base's, on the items that both were asked alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Name of the task.
    pub task: String,
    /// What is compared: 0 or 1 per item, or a number.
    pub metric: String,
    /// Items that both were asked.
    pub items: usize,
    /// Items that only one was asked, or that were put differently.
    pub unpaired: usize,
    /// Clusters that were resampled: subjects, or single items without such.
    pub clusters: usize,
    /// Mean of the base.
    pub base: f64,
    /// Mean of the candidate.
    pub candidate: f64,
    /// Candidate − base.
    pub difference: f64,
    /// Interval of the difference, 95 %.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Candidate ÷ base; `null` in JSON when the base has nothing.
    #[serde(deserialize_with = "null_is_nan")]
    pub recovery: f64,
    /// Its interval, of the same resamples.
    #[serde(deserialize_with = "null_is_nan")]
    pub recovery_low: f64,
    /// Its upper end.
    #[serde(deserialize_with = "null_is_nan")]
    pub recovery_high: f64,
    /// Items right before and wrong now.
    pub lost: usize,
    /// Items wrong before and right now.
    pub won: usize,
    /// Exact `McNemar` test of `lost` against `won`, two-sided.
    pub p_value: f64,
    /// Share of items with another answer, right or wrong.
    pub changed: f64,
    /// The smallest loss that this many items would show with 80 % power at 5 %, given how often
    /// answers differ; at least 3 of the items, since what happens to fewer of them may happen to none
    /// of a sample (rule of three, Hanley & Lippman-Hand 1983).
    pub detectable: f64,
}

/// JSON has no NaN.
fn null_is_nan<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(f64::NAN))
}

/// Subject, both values, and whether the answers differ.
type Pair<'a> = (&'a str, f64, f64, bool);

impl Paired {
    /// Compares the records of a task by `metric`. Means are over items. The interval is that of
    /// a bootstrap over subjects (percentiles of 10,000 resamples), over items when there are
    /// fewer than 8 subjects.
    pub fn of(
        (task, metric): (&str, &str),
        base: &[Record],
        candidate: &[Record],
        seed: u64,
    ) -> Result<Self, TaskError> {
        let theirs: BTreeMap<&str, &Record> =
            candidate.iter().filter(|it| it.task == task).map(|it| (it.id.as_str(), it)).collect();
        let ours: Vec<&Record> = base.iter().filter(|it| it.task == task).collect();
        let mut pairs = Vec::new();
        for ours in &ours {
            let theirs = theirs.get(ours.id.as_str()).filter(|other| other.item == ours.item);
            if let Some(other) = theirs {
                let value = |record: &Record| record.score.metrics.get(metric).copied();
                if let (Some(a), Some(b)) = (value(ours), value(other)) {
                    pairs.push((
                        ours.subject.as_str(),
                        a,
                        b,
                        ours.score.answer != other.score.answer,
                    ));
                }
            }
        }
        if pairs.is_empty() {
            return Err(TaskError::Runs {
                detail: format!("the runs have no items of `{task}` with `{metric}` in common"),
                hint: "evaluate both with the same data, template and number of shots",
            });
        }
        let unpaired = ours.len() + theirs.len() - 2 * pairs.len();
        let count = pairs.len() as f64;
        let mean = |of: &dyn Fn(&Pair<'_>) -> f64| pairs.iter().map(of).sum::<f64>() / count;
        let clusters = clusters(&pairs);
        let resampled = resampled(&clusters, seed);
        let (low, high) = interval(&resampled, |[a, b, count]| (b - a) / count);
        let (recovery_low, recovery_high) = interval(&resampled, |[a, b, _]| b / a);
        let lost = pairs.iter().filter(|(_, a, b, _)| a > b).count();
        let won = pairs.iter().filter(|(_, a, b, _)| a < b).count();
        let difference = mean(&|(_, a, b, _)| b - a);
        let variance = mean(&|(_, a, b, _)| (b - a - difference).powi(2));
        Ok(Self {
            task: task.to_owned(),
            metric: metric.to_owned(),
            items: pairs.len(),
            unpaired,
            clusters: clusters.len(),
            base: mean(&|(_, a, _, _)| *a),
            candidate: mean(&|(_, _, b, _)| *b),
            difference,
            low,
            high,
            recovery: mean(&|(_, _, b, _)| *b) / mean(&|(_, a, _, _)| *a),
            recovery_low,
            recovery_high,
            lost,
            won,
            p_value: mcnemar(lost, won),
            changed: mean(&|(_, _, _, changed)| f64::from(u8::from(*changed))),
            // Normal quantiles of 97.5 % and 80 %.
            detectable: ((1.959_964 + 0.841_621) * (variance / count).sqrt()).max(3.0 / count),
        })
    }
}

/// Sums of base and candidate and number of items.
type Sums = [f64; 3];

/// Per subject, or per item where there are few subjects.
fn clusters(pairs: &[Pair<'_>]) -> Vec<Sums> {
    let mut by_subject: BTreeMap<&str, Sums> = BTreeMap::new();
    for (subject, a, b, _) in pairs {
        let sums = by_subject.entry(subject).or_default();
        *sums = [sums[0] + a, sums[1] + b, sums[2] + 1.0];
    }
    if by_subject.len() >= MIN_SUBJECTS {
        return by_subject.into_values().collect();
    }
    pairs.iter().map(|(_, a, b, _)| [*a, *b, 1.0]).collect()
}

/// Sums over resampled clusters.
fn resampled(clusters: &[Sums], seed: u64) -> Vec<Sums> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut sample = || {
        let mut sums = [0.0; 3];
        for _ in clusters {
            let part = clusters[random.random_range(0..clusters.len())];
            sums = std::array::from_fn(|at| sums[at] + part[at]);
        }
        sums
    };
    (0..RESAMPLES).map(|_| sample()).collect()
}

/// Percentiles 2.5 and 97.5 of a figure of the resamples.
fn interval(resampled: &[Sums], figure: impl Fn(Sums) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = resampled.iter().map(|sums| figure(*sums)).collect();
    values.sort_by(f64::total_cmp);
    (values[RESAMPLES / 40], values[RESAMPLES - 1 - RESAMPLES / 40])
}

/// Two-sided exact test that `lost` and `won` are equally likely: twice the smaller tail of the
/// binomial distribution, at most 1.
fn mcnemar(lost: usize, won: usize) -> f64 {
    let flips = Binomial::new(0.5, (lost + won) as u64).expect("a half is a probability");
    (2.0 * flips.cdf(lost.min(won) as u64)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::super::Score;
    use super::*;

    fn record(id: usize, subject: &str, acc: f64, answer: &str) -> Record {
        let mut score = Score::new([("acc", acc)]);
        answer.clone_into(&mut score.answer);
        Record {
            task: "t".into(),
            version: 1,
            id: id.to_string(),
            subject: subject.into(),
            item: id.to_string(),
            key: String::new(),
            score,
            responses: vec![],
            dropped_shots: 0,
            cut_tokens: 0,
        }
    }

    #[test]
    fn mcnemar_is_the_binomial_tail() {
        // Of 10 flips 1 or fewer in one direction: 2 · 11 / 1024.
        assert!((mcnemar(9, 1) - 22.0 / 1024.0).abs() < 1e-12);
        assert!((mcnemar(1, 9) - mcnemar(9, 1)).abs() < 1e-15);
        assert!((mcnemar(0, 5) - 2.0 / 32.0).abs() < 1e-12);
        assert_eq!((mcnemar(0, 0), mcnemar(3, 3)), (1.0, 1.0));
        assert!(mcnemar(4000, 3000) < 1e-30, "large counts do not underflow to 1");
    }

    #[test]
    fn a_run_does_not_differ_from_itself_and_flips_are_counted() {
        let base: Vec<Record> = (0..40)
            .map(|i| record(i, &(i / 5).to_string(), f64::from(u8::from(i % 2 == 0)), "A"))
            .collect();
        let same = Paired::of(("t", "acc"), &base, &base, 1).unwrap();
        assert_eq!((same.difference, same.low, same.high), (0.0, 0.0, 0.0));
        assert_eq!((same.lost, same.won, same.changed, same.p_value), (0, 0, 0.0, 1.0));
        assert!((same.detectable - 3.0 / 40.0).abs() < 1e-12, "three of forty");
        let mut other = base.clone();
        for i in [0, 2, 4] {
            other[i] = record(i, "0", 0.0, "B");
        }
        other[1] = record(1, "0", 1.0, "B");
        other[3] = record(3, "0", 0.0, "B");
        let paired = Paired::of(("t", "acc"), &base, &other, 1).unwrap();
        assert_eq!((paired.lost, paired.won, paired.items, paired.clusters), (3, 1, 40, 8));
        assert!((paired.difference + 2.0 / 40.0).abs() < 1e-12);
        assert!((paired.changed - 5.0 / 40.0).abs() < 1e-12);
        // 20 right before, 18 now; most resamples lack the first subject, or have it once or twice.
        assert!((paired.recovery - 0.9).abs() < 1e-12);
        assert!(paired.low <= -0.1 && paired.high.abs() < 1e-12, "{paired:?}");
        // Variance 4/40 − (2/40)², over 40 items.
        let want = 2.801_585 * ((0.1 - 0.0025) / 40.0_f64).sqrt();
        assert!((paired.detectable - want).abs() < 1e-9);
    }

    #[test]
    fn subjects_are_resampled_whole_where_there_are_enough() {
        // Each subject loses one item of five: every resample of subjects has the same difference.
        let run = |subjects: usize, right: fn(usize) -> bool| -> Vec<Record> {
            let acc = |i: usize| f64::from(u8::from(right(i)));
            (0..5 * subjects).map(|i| record(i, &(i / 5).to_string(), acc(i), "")).collect()
        };
        let paired = |subjects| {
            let (base, other) = (run(subjects, |_| true), run(subjects, |i| i % 5 > 0));
            Paired::of(("t", "acc"), &base, &other, 1).unwrap()
        };
        let whole = paired(8);
        for (value, want) in [(whole.low, -0.2), (whole.high, -0.2), (whole.recovery_low, 0.8)] {
            assert!((value - want).abs() < 1e-12, "{whole:?}");
        }
        let few = paired(7);
        assert!(few.clusters == 35 && few.low < -0.25 && few.high > -0.15, "{few:?}");
    }

    #[test]
    fn items_that_were_put_differently_are_not_compared() {
        let base = vec![record(0, "", 1.0, "A"), record(1, "", 1.0, "A")];
        let mut other = base.clone();
        other[1].item = "another template".into();
        let paired = Paired::of(("t", "acc"), &base, &other, 0).unwrap();
        assert_eq!((paired.items, paired.unpaired), (1, 2));
        assert!(Paired::of(("t", "acc"), &base, &other[1..], 0).is_err());
        assert!(Paired::of(("t", "mc2"), &base, &other, 0).is_err());
    }

    /// A run that is compared with a base of nothing is read again.
    #[test]
    fn a_recovery_that_is_no_number_is_read_back() {
        let nothing = [record(0, "", 0.0, "A")];
        let paired = Paired::of(("t", "acc"), &nothing, &nothing, 0).unwrap();
        assert!(paired.recovery.is_nan());
        let line = serde_json::to_string(&paired).unwrap();
        assert!(serde_json::from_str::<Paired>(&line).unwrap().recovery.is_nan(), "{line}");
    }
}
