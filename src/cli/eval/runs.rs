//! Runs of tasks put beside each other, or together.
use crate::{
    cli::{Context, input, output},
    eval::task::{Options, Paired, Record, Task, find, summarize},
    report::{self, Compared, Shard, TaskReport},
};
use anyhow::{Context as _, bail, ensure};
use std::path::{Path, PathBuf};

/// The part that `--shard` names: `3/16`, `auto` or `auto/16`.
pub(super) fn shard(text: &str) -> anyhow::Result<Shard> {
    shard_in(text, &|name| std::env::var(name).ok())
}

fn shard_in(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Shard> {
    let unclear = || {
        format!(
            "`{text}` is no part of an evaluation\nhint: write 3/16 for the third of sixteen, or \
             auto in a Slurm array or an indexed Kubernetes job (auto/16 when the number of parts \
             is not in the environment)"
        )
    };
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let (index, of) = text.split_once('/').map_or((text, None), |(i, n)| (i, Some(n)));
    let of = of.map(|it| number(it).with_context(unclear)).transpose()?;
    let (index, of) = if index == "auto" {
        let env = |name: &str| variable(name).as_deref().and_then(number);
        let slurm = env("SLURM_ARRAY_TASK_ID").map(|id| {
            let first = env("SLURM_ARRAY_TASK_MIN").unwrap_or(0);
            (id.saturating_sub(first) + 1, env("SLURM_ARRAY_TASK_COUNT"))
        });
        let job = || Some((env("JOB_COMPLETION_INDEX")? + 1, env("JOB_COMPLETIONS")));
        let (index, count) = slurm.or_else(job).with_context(unclear)?;
        (index, of.or(count).with_context(unclear)?)
    } else {
        (number(index).with_context(unclear)?, of.with_context(unclear)?)
    };
    ensure!((1..=of).contains(&index), unclear());
    Ok(Shard { index, of })
}

/// A report and its records.
struct Run {
    name: String,
    report: Option<TaskReport>,
    records: Vec<Record>,
}

/// Reads a run by its report or by its records; the other one lies beside it.
fn open(path: &Path) -> anyhow::Result<Run> {
    let is_report = path.extension().is_some_and(|it| it == "json");
    let records = path.with_extension("jsonl");
    let hint = "name what --json and --records wrote";
    let text = input::text(&records, hint)?;
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let record = serde_json::from_str(line);
        let place = || format!("`{}`, line {}, is no record", records.display(), at + 1);
        all.push(record.with_context(place)?);
    }
    let report = if is_report {
        let wrong = || format!("`{}` is no report of tasks", path.display());
        Some(serde_json::from_str(&input::text(path, hint)?).with_context(wrong)?)
    } else {
        None
    };
    let name = path.file_stem().map_or_else(String::new, |it| it.to_string_lossy().into_owned());
    Ok(Run { name, report, records: all })
}

/// The records of a run, named by them or by its report.
pub(super) fn records(path: &Path) -> anyhow::Result<Vec<Record>> {
    Ok(open(path)?.records)
}

/// Compares candidates with the first run, task by task.
pub(super) fn compare(
    paths: &[PathBuf],
    json: Option<&Path>,
    context: &Context,
) -> anyhow::Result<()> {
    let runs = paths.iter().map(|path| open(path)).collect::<anyhow::Result<Vec<Run>>>()?;
    let Some((base, candidates)) = runs.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        bail!("nothing to compare with\nhint: name the base first, then candidates");
    };
    let mut tasks: Vec<&str> = base.records.iter().map(|record| record.task.as_str()).collect();
    tasks.dedup();
    let mut compared = Vec::new();
    for candidate in candidates {
        for name in &tasks {
            // Tasks of other names are suites.
            let metric = find(name).map_or("score", |task| task.main_metric());
            let paired =
                Paired::of((name, metric), &base.records, &candidate.records, context.seed)?;
            compared.push(Compared {
                base: base.name.clone(),
                name: candidate.name.clone(),
                paired,
            });
        }
    }
    ensure!(!compared.is_empty(), "the base has no records\nhint: evaluate it with --tasks");
    // Best candidates first, by the mean over tasks.
    let mean = |name: &str| {
        let of: Vec<f64> =
            compared.iter().filter(|it| it.name == name).map(|it| it.paired.difference).collect();
        of.iter().sum::<f64>() / of.len() as f64
    };
    let mut order: Vec<(f64, usize)> =
        compared.iter().enumerate().map(|(at, it)| (mean(&it.name), at)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let ranked: Vec<Compared> = order.iter().map(|(_, at)| compared[*at].clone()).collect();
    if let Some(path) = json {
        output::json(path, &ranked, context)?;
    }
    if json != Some(Path::new("-")) {
        output::text(&report::compared_table(&ranked))?;
    }
    Ok(())
}

/// Joins the parts of an evaluation: the report and the records of one run over everything. `own`
/// are suites that only the user has.
pub(super) fn merge(
    paths: &[PathBuf],
    own: &[&'static dyn Task],
    context: &Context,
) -> anyhow::Result<(TaskReport, Vec<Record>)> {
    let mut parts = Vec::new();
    for path in paths.iter().map(|path| reports(path)).collect::<anyhow::Result<Vec<_>>>()?.concat()
    {
        let run = open(&path)?;
        let report = run.report.context("a part is named by its report")?;
        let Some(shard) = report.shard else {
            bail!("`{}` is a whole run\nhint: parts are made with --shard", path.display());
        };
        parts.push((shard, path, report, run.records));
    }
    parts.sort_by_key(|(shard, ..)| shard.index);
    let Some((first, _, like, _)) = parts.first() else {
        bail!("no parts to join\nhint: name the folders or reports of all parts");
    };
    for (at, (shard, path, report, _)) in parts.iter().enumerate() {
        let path = path.display();
        ensure!(
            shard.of == first.of && evaluation(report) == evaluation(like),
            "`{path}` is a part of another evaluation\nhint: join parts of the same model, tasks and settings"
        );
        ensure!(
            at == 0 || parts[at - 1].0.index != shard.index,
            "part {}/{} is there twice, in `{path}` too\nhint: name each part once",
            shard.index,
            shard.of
        );
    }
    let missing = (1..=first.of).find(|index| parts.iter().all(|it| it.0.index != *index));
    if let Some(index) = missing {
        bail!("part {index}/{} is missing\nhint: evaluate it, then join all", first.of);
    }
    let mut records = Vec::new();
    let mut summaries = Vec::new();
    for told in &like.tasks {
        let all: Vec<Record> = parts
            .iter()
            .flat_map(|(.., records)| records.iter().filter(|it| it.task == told.task).cloned())
            .collect();
        let warnings = told.data_warnings.clone().unwrap_or_default();
        let own = own.iter().copied().find(|it| it.name() == told.task);
        let task = own.map_or_else(|| find(&told.task), Ok)?;
        summaries.push(summarize(task, &told.options, &all, &warnings));
        records.extend(all);
    }
    context.note(format_args!("{} parts, {} items", parts.len(), records.len()));
    let report = TaskReport { shard: None, tasks: summaries, ..like.clone() };
    Ok((report, records))
}

/// What all parts of an evaluation have in common.
fn evaluation(report: &TaskReport) -> (&str, &str, Vec<(&str, u32, &Options)>) {
    let tasks = report.tasks.iter().map(|it| (it.task.as_str(), it.version, &it.options));
    (&report.model, &report.tool, tasks.collect())
}

/// The reports in a folder, or the one that is named.
fn reports(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.with_extension("json")]);
    }
    let cannot = || format!("cannot read the folder `{}`", path.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(cannot)? {
        let entry = entry.with_context(cannot)?.path();
        if entry.extension().is_some_and(|it| it == "json") {
            found.push(entry);
        }
    }
    ensure!(
        !found.is_empty(),
        "`{}` holds no reports\nhint: parts are written by --json",
        path.display()
    );
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_by_hand_or_by_the_cluster() {
        let none = |_: &str| None;
        let part = |index, of| Shard { index, of };
        assert_eq!(shard_in("3/16", &none).unwrap(), part(3, 16));
        for bad in ["0/4", "5/4", "3", "auto", "a/b", "1/0", ""] {
            let error = shard_in(bad, &none).unwrap_err().to_string();
            assert!(error.contains("3/16"), "{bad}: {error}");
        }
        let slurm = |name: &str| match name {
            "SLURM_ARRAY_TASK_ID" => Some("7".to_owned()),
            "SLURM_ARRAY_TASK_MIN" => Some("5".to_owned()),
            "SLURM_ARRAY_TASK_COUNT" => Some("4".to_owned()),
            _ => None,
        };
        assert_eq!(shard_in("auto", &slurm).unwrap(), part(3, 4));
        let job = |name: &str| (name == "JOB_COMPLETION_INDEX").then(|| "0".to_owned());
        assert_eq!(shard_in("auto/2", &job).unwrap(), part(1, 2));
        assert!(shard_in("auto", &job).is_err(), "the number of parts is not known");
    }
}
