//! Parts of an evaluation, for machines that share it.
use super::BenchError;
use serde::{Deserialize, Serialize};

/// A part of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// From 1 on.
    pub index: usize,
    /// How many parts there are.
    pub of: usize,
}

impl Shard {
    /// The part that a text names: `3/16`, or `auto` and `auto/16` in a Slurm array or an indexed
    /// Kubernetes job, whose numbers are in variables of the environment that `variable` reads.
    pub fn named(
        text: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, BenchError> {
        let shard = read(text, variable).filter(|it| (1..=it.of).contains(&it.index));
        shard.ok_or_else(|| BenchError::Shard { found: text.to_owned() })
    }

    /// Which of `count` items are in this part: runs of neighbours, as equal as can be.
    pub fn items(self, count: usize) -> std::ops::Range<usize> {
        let at = |index: usize| (count as u128 * index as u128 / self.of as u128) as usize;
        at(self.index - 1)..at(self.index)
    }
}

fn read(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<Shard> {
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let (index, of) = text.split_once('/').map_or((text, None), |(i, n)| (i, Some(n)));
    let of = match of {
        Some(it) => Some(number(it)?),
        None => None,
    };
    if index != "auto" {
        return Some(Shard { index: number(index)?, of: of? });
    }
    let env = |name: &str| variable(name).as_deref().and_then(number);
    let slurm = env("SLURM_ARRAY_TASK_ID").map(|id| {
        let first = env("SLURM_ARRAY_TASK_MIN").unwrap_or(0);
        (id.saturating_sub(first) + 1, env("SLURM_ARRAY_TASK_COUNT"))
    });
    let job = || Some((env("JOB_COMPLETION_INDEX")? + 1, env("JOB_COMPLETIONS")));
    let (index, count) = slurm.or_else(job)?;
    Some(Shard { index, of: of.or(count)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_by_hand_or_by_the_cluster() {
        let none = |_: &str| None;
        let part = |index, of| Shard { index, of };
        assert_eq!(Shard::named("3/16", &none).unwrap(), part(3, 16));
        for bad in ["0/4", "5/4", "3", "auto", "a/b", "1/0", ""] {
            let error = Shard::named(bad, &none).unwrap_err().to_string();
            assert!(error.contains("3/16"), "{bad}: {error}");
        }
        let slurm = |name: &str| match name {
            "SLURM_ARRAY_TASK_ID" => Some("7".to_owned()),
            "SLURM_ARRAY_TASK_MIN" => Some("5".to_owned()),
            "SLURM_ARRAY_TASK_COUNT" => Some("4".to_owned()),
            _ => None,
        };
        assert_eq!(Shard::named("auto", &slurm).unwrap(), part(3, 4));
        let job = |name: &str| (name == "JOB_COMPLETION_INDEX").then(|| "0".to_owned());
        assert_eq!(Shard::named("auto/2", &job).unwrap(), part(1, 2));
        assert!(Shard::named("auto", &job).is_err(), "the number of parts is not known");
    }

    #[test]
    fn parts_cover_everything_once() {
        for (count, of) in [(10, 3), (2, 5), (0, 2), (1346, 16)] {
            let parts = (1..=of).flat_map(|index| Shard { index, of }.items(count));
            assert_eq!(parts.collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
        }
    }
}
