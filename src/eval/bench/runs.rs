//! Runs of tasks put beside each other, or together.
use super::{BenchError, Candidate, Shard, TaskReport};
use crate::{
    eval::task::{Options, Paired, Record, Task, find, summarize},
    tensor::read_text,
};
use std::path::{Path, PathBuf};

/// An earlier run, read from files.
#[derive(Clone, Debug)]
pub struct Run {
    /// The file's name without its extension.
    pub name: String,
    /// Its report; none of a run that is named by its records.
    pub report: Option<TaskReport>,
    /// A record of each item.
    pub records: Vec<Record>,
}

impl Run {
    /// Whether a name is that of a run's results, not of a model.
    pub fn is(name: &str) -> bool {
        let path = Path::new(name);
        let extension = path.extension().and_then(|it| it.to_str());
        path.is_file() && matches!(extension, Some("json" | "jsonl"))
    }

    /// Reads a run by its report or by its records; the other one lies beside it.
    pub fn open(path: &Path) -> Result<Self, BenchError> {
        let is_report = path.extension().is_some_and(|it| it == "json");
        let lines = path.with_extension("jsonl");
        let hint = "name what --json and --records wrote";
        let mut records = Vec::new();
        for (at, line) in read_text(&lines, hint)?.lines().enumerate() {
            let place = |source| BenchError::Record { path: lines.clone(), line: at + 1, source };
            records.push(serde_json::from_str(line).map_err(place)?);
        }
        let report = if is_report {
            let wrong = |source| BenchError::Report { path: path.to_owned(), source };
            Some(serde_json::from_str(&read_text(path, hint)?).map_err(wrong)?)
        } else {
            None
        };
        let name =
            path.file_stem().map_or_else(String::new, |it| it.to_string_lossy().into_owned());
        Ok(Self { name, report, records })
    }
}

fn refused(detail: impl Into<String>, hint: &'static str) -> BenchError {
    BenchError::Runs { detail: detail.into(), hint }
}

/// Compares candidates with the first run, task by task; the best candidate first, by the mean over
/// its tasks. `seed` is that of the bootstrap.
pub fn compare(paths: &[PathBuf], seed: u64) -> Result<Vec<Candidate>, BenchError> {
    let runs = paths.iter().map(|path| Run::open(path)).collect::<Result<Vec<Run>, _>>()?;
    let Some((base, candidates)) = runs.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Err(refused("nothing to compare with", "name the base first, then candidates"));
    };
    let mut tasks: Vec<&str> = base.records.iter().map(|record| record.task.as_str()).collect();
    tasks.dedup();
    let mut compared = Vec::new();
    for candidate in candidates {
        for name in &tasks {
            // Tasks of other names are suites.
            let metric = find(name).map_or("score", |task| task.main_metric());
            let paired = Paired::of((name, metric), &base.records, &candidate.records, seed)?;
            compared.push(Candidate {
                base: base.name.clone(),
                name: candidate.name.clone(),
                paired,
            });
        }
    }
    if compared.is_empty() {
        return Err(refused("the base has no records", "evaluate it with --tasks"));
    }
    let mean = |name: &str| {
        let of: Vec<f64> =
            compared.iter().filter(|it| it.name == name).map(|it| it.paired.difference).collect();
        of.iter().sum::<f64>() / of.len() as f64
    };
    let mut order: Vec<(f64, usize)> =
        compared.iter().enumerate().map(|(at, it)| (mean(&it.name), at)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    Ok(order.iter().map(|(_, at)| compared[*at].clone()).collect())
}

/// A part of an evaluation and where it was found.
struct Part {
    shard: Shard,
    path: PathBuf,
    report: TaskReport,
    records: Vec<Record>,
}

/// Parts of an evaluation that were put together.
#[derive(Clone, Debug)]
pub struct Joined {
    /// As of one run over everything.
    pub report: TaskReport,
    /// Its records.
    pub records: Vec<Record>,
    /// How many parts there were.
    pub parts: usize,
}

/// Joins the parts of an evaluation, named by their reports or by folders of them: the report and
/// the records of one run over everything. `own` are suites that only the user has. Parts of
/// different evaluations, missing ones and repeated ones are refused.
pub fn merge(paths: &[PathBuf], own: &[&'static dyn Task]) -> Result<Joined, BenchError> {
    let parts = parts(paths)?;
    let Some(like) = parts.first().map(|part| &part.report) else {
        let hint = "name the folders or reports of all parts";
        return Err(refused("no parts to join", hint));
    };
    check(&parts)?;
    let mut records = Vec::new();
    let mut summaries = Vec::new();
    for told in &like.tasks {
        let all: Vec<Record> = parts
            .iter()
            .flat_map(|part| part.records.iter().filter(|it| it.task == told.task).cloned())
            .collect();
        let warnings = told.data_warnings.clone().unwrap_or_default();
        let own = own.iter().copied().find(|it| it.name() == told.task);
        let task = own.map_or_else(|| find(&told.task), Ok)?;
        summaries.push(summarize(task, &told.options, &all, &warnings));
        records.extend(all);
    }
    let report = TaskReport { shard: None, tasks: summaries, ..like.clone() };
    Ok(Joined { report, records, parts: parts.len() })
}

/// The parts that are named, in their order.
fn parts(paths: &[PathBuf]) -> Result<Vec<Part>, BenchError> {
    let mut parts = Vec::new();
    for path in paths.iter().map(|path| reports(path)).collect::<Result<Vec<_>, _>>()?.concat() {
        let Run { report, records, .. } = Run::open(&path)?;
        let whole = || {
            let detail = format!("`{}` is a whole run", path.display());
            refused(detail, "parts are made with --shard")
        };
        // Reports are what was looked for.
        let Some(report) = report else { return Err(whole()) };
        let shard = report.shard.ok_or_else(whole)?;
        parts.push(Part { shard, path, report, records });
    }
    parts.sort_by_key(|part| part.shard.index);
    Ok(parts)
}

/// All parts of one evaluation, each once.
fn check(parts: &[Part]) -> Result<(), BenchError> {
    let Some(first) = parts.first() else { return Ok(()) };
    let of = first.shard.of;
    for (at, Part { shard, path, report, .. }) in parts.iter().enumerate() {
        let path = path.display();
        if shard.of != of || evaluation(report) != evaluation(&first.report) {
            let hint = "join parts of the same model, tasks and settings";
            return Err(refused(format!("`{path}` is a part of another evaluation"), hint));
        }
        if at > 0 && parts[at - 1].shard.index == shard.index {
            let twice = format!("part {}/{} is there twice, in `{path}` too", shard.index, of);
            return Err(refused(twice, "name each part once"));
        }
    }
    match (1..=of).find(|index| parts.iter().all(|it| it.shard.index != *index)) {
        Some(index) => {
            let missing = format!("part {index}/{of} is missing");
            Err(refused(missing, "evaluate it, then join all"))
        }
        None => Ok(()),
    }
}

/// What all parts of an evaluation have in common.
fn evaluation(report: &TaskReport) -> (&str, &str, Vec<(&str, u32, &Options)>) {
    let tasks = report.tasks.iter().map(|it| (it.task.as_str(), it.version, &it.options));
    (&report.model, &report.tool, tasks.collect())
}

/// The reports in a folder, or the one that is named.
fn reports(path: &Path) -> Result<Vec<PathBuf>, BenchError> {
    if !path.is_dir() {
        return Ok(vec![path.with_extension("json")]);
    }
    let cannot = |source| BenchError::Folder { path: path.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let entry = entry.map_err(cannot)?.path();
        if entry.extension().is_some_and(|it| it == "json") {
            found.push(entry);
        }
    }
    if found.is_empty() {
        let detail = format!("`{}` holds no reports", path.display());
        return Err(refused(detail, "parts are written by --json"));
    }
    found.sort();
    Ok(found)
}
