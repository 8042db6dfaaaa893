//! `eval --tasks`: benchmarks from a folder of data files.
use super::Settings;
use crate::{
    cli::{
        Context, Outcome,
        model::with_kv_cache,
        output,
        speculation::{Told, Wanted},
    },
    eval::{
        Gate,
        bench::{self, Asked, Bench, Run, Selection, Shard, TaskReport},
        task::{Options, Record, TASKS, Template},
    },
    number::whole,
    package, report,
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What of `eval` concerns tasks. Every field is a flag and a recipe key of the same name.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct TaskSettings {
    /// Benchmarks to run, with commas between them: names, or TOML files of capability suites;
    /// `sample` runs all on data carried by the program, `list` shows them
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tasks: Vec<String>,
    /// Folder of data files [default: MILM_DATA]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,
    /// The first N items of each subject only
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    /// Worked examples in front of each question
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<usize>(0..))]
    num_fewshot: usize,
    /// Whose prompts: the benchmark's authors', or lm-evaluation-harness'
    #[arg(long, value_enum, default_value_t)]
    template: Template,
    /// These subjects only
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subjects: Vec<String>,
    /// Prompts that ask for a text go through the model's chat template
    #[arg(long)]
    chat_template: bool,
    /// Use at most N tokens of the model's window
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    task_window: Option<usize>,
    /// Write N texts at once [default: as many as fit into 1 GiB of keys and values, at most 16];
    /// answers do not depend on it
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    offers: Wanted,
    /// Folder that keeps results, so that an interrupted evaluation goes on where it stopped
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<PathBuf>,
    /// Evaluate a part of the items only, e.g. 3/16; auto: as Slurm or Kubernetes numbers it
    #[arg(long, value_name = "I/N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<String>,
    /// Write FollowBench's prompts and the model's answers for an outside judge, a JSON line each
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    judge: Option<PathBuf>,
    /// Write a JSON line per item [default: beside --json, as .jsonl]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<PathBuf>,
}

/// Runs the tasks on a model and on its base, writes records and summaries.
pub(super) fn run(model: &str, settings: &Settings, context: &Context) -> anyhow::Result<Outcome> {
    let variable = |name: &str| std::env::var(name).ok();
    let shard = settings.tasks.shard.as_deref();
    let shard = shard.map(|it| Shard::named(it, &variable)).transpose()?;
    let gates = settings.gates.all()?;
    anyhow::ensure!(
        shard.is_none() || (settings.reference.is_none() && gates.is_empty()),
        "a part is neither compared nor gated\nhint: give --reference and gates to `eval --merge`"
    );
    let mut opened = package::open(model)?;
    opened.model = with_kv_cache(&opened.model, settings.kv_cache).into_owned();
    let prepared = settings.tasks.offers.prepare(&opened, settings.backend)?;
    let answers = settings.bench(shard, context, |bench| {
        let base = settings.base(bench)?;
        let start = prepared.as_ref().map(|it| it.starter(context.progress()));
        let bench = Bench { offers: start.as_ref().map(|it| it as _), ..*bench };
        Ok((base, bench.run(&opened, settings.tasks.judge.is_some())?))
    });
    let (base, answers) = answers?;
    if let Some(counts) = answers.offers {
        context.note(format_args!("{}", Told::from(counts)));
    }
    if let Some((path, lines)) = settings.tasks.judge.as_ref().zip(answers.for_judge) {
        context.note(format_args!("{} answers for a judge", lines.len()));
        output::file_or_stdout(path, &(lines.join("\n") + "\n"), context)?;
    }
    let report = TaskReport { shard, ..TaskReport::new(model, answers.summaries) };
    finish(report, (&answers.records, base.as_deref()), &gates, (settings, context))
}

/// Joins parts and writes what one run would have written.
pub(super) fn merge(
    parts: &[PathBuf],
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let joined = bench::merge(parts, &settings.tasks.selection().tasks()?)?;
    context.note(format_args!("{} parts, {} items", joined.parts, joined.records.len()));
    let names: Vec<&str> = joined.report.tasks.iter().map(|it| it.task.as_str()).collect();
    let gates = settings.gates.all()?;
    for gate in &gates {
        gate.check(false, &names, settings.reference.is_some())?;
    }
    let base = settings.bench(None, context, |bench| settings.base(bench))?;
    finish(joined.report, (&joined.records, base.as_deref()), &gates, (settings, context))
}

/// Compares candidates with the first run, task by task.
pub(super) fn compare(
    paths: &[PathBuf],
    json: Option<&Path>,
    context: &Context,
) -> anyhow::Result<()> {
    let ranked = bench::compare(paths, context.seed)?;
    if let Some(path) = json {
        output::json(path, &ranked, context)?;
    }
    if json != Some(Path::new("-")) {
        output::text(&report::compared_table(&ranked))?;
    }
    Ok(())
}

/// A table of all tasks.
pub(super) fn list() -> anyhow::Result<()> {
    let lines = TASKS.iter().map(|task| format!("{:<16} {}\n", task.name(), task.about()));
    output::text(&lines.collect::<String>())
}

/// Compares with the base, judges, writes.
fn finish(
    report: TaskReport,
    (records, base): (&[Record], Option<&[Record]>),
    gates: &[Gate],
    (settings, context): (&Settings, &Context),
) -> anyhow::Result<Outcome> {
    let base = settings.reference.as_deref().zip(base);
    let report = report.judged(records, base, gates, context.seed)?;
    if let Some(path) = settings.records_file() {
        let lines = records.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        let text: String = lines.into_iter().map(|line| line + "\n").collect();
        output::file_or_stdout(&path, &text, context)?;
    }
    let table =
        |colour| report::tasks_table(&report) + &report::gates_table(&report.gates, None, colour);
    settings.outputs.write((&report.sheet(), &report), table, &settings.place(), context)
}

impl Settings {
    /// Works with the bench that the flags describe.
    fn bench<T>(
        &self,
        shard: Option<Shard>,
        context: &Context,
        work: impl FnOnce(&Bench<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let wanted = &self.tasks;
        let options = Options {
            num_fewshot: wanted.num_fewshot,
            template: wanted.template,
            limit: wanted.limit,
            subjects: wanted.subjects.clone(),
            seed: context.seed,
            window: wanted.task_window.unwrap_or(usize::MAX),
        };
        let done = |it: &Asked<'_>| {
            let Asked { task, items, remembered, requests, seconds } = *it;
            context.note(format_args!(
                "{task}: {items} items, {remembered} remembered, {requests} requests in {seconds:.1} s"
            ));
        };
        work(&Bench {
            selection: &wanted.selection(),
            options: &options,
            backend: (&*self.backend.backend(), self.backend.isa()),
            chat_template: wanted.chat_template,
            batch: wanted.batch,
            offers: None,
            cache: wanted.cache.as_deref(),
            shard,
            team: &context.team,
            progress: context.progress(),
            done: &done,
        })
    }

    /// The records of the base, if there is one.
    fn base(&self, bench: &Bench<'_>) -> anyhow::Result<Option<Vec<Record>>> {
        Ok(self.reference.as_deref().map(|name| bench.base(name)).transpose()?)
    }

    /// Where records go.
    fn records_file(&self) -> Option<PathBuf> {
        let beside = self.outputs.json.as_ref().filter(|path| *path != Path::new("-"));
        self.tasks.records.clone().or_else(|| Some(beside?.with_extension("jsonl")))
    }
}

impl TaskSettings {
    /// Whether there is something to do.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.tasks.is_empty() || self.judge.is_some()
    }

    /// Offers are made to texts of tasks.
    pub(super) fn check_offers(&self) -> anyhow::Result<()> {
        let offered = self.offers.check()?;
        anyhow::ensure!(
            offered.is_none() || self.is_wanted(),
            "`{}`: offers are made to texts that tasks ask for\nhint: give `--tasks`, or leave it out",
            offered.unwrap_or_default()
        );
        Ok(())
    }

    /// Only the table of tasks is asked for.
    pub(super) fn is_list(&self) -> bool {
        self.tasks.len() == 1 && self.tasks[0] == "list"
    }

    /// What is written beside the results of `--json`.
    pub(super) fn outputs(&self, settings: &Settings) -> Vec<PathBuf> {
        let records = self.is_wanted().then(|| settings.records_file()).flatten();
        records.into_iter().chain(self.judge.clone()).collect()
    }

    /// All that can be asked for, each to something.
    #[cfg(test)]
    pub(super) fn full() -> Self {
        Self {
            tasks: vec!["t".into()],
            data: Some("d".into()),
            limit: Some(1),
            subjects: vec!["s".into()],
            task_window: Some(1),
            batch: Some(1),
            offers: Wanted::full(),
            cache: Some("c".into()),
            shard: Some("1/2".into()),
            judge: Some("j".into()),
            records: Some("r".into()),
            ..Self::default()
        }
    }

    /// The tasks and their data.
    fn selection(&self) -> Selection {
        Selection {
            names: self.tasks.clone(),
            data: self.data.clone(),
            usual_data: std::env::var_os("MILM_DATA").map(PathBuf::from),
        }
    }

    /// The names of the tasks.
    pub(super) fn names(&self) -> anyhow::Result<Vec<&'static str>> {
        Ok(self.selection().tasks()?.iter().map(|task| task.name()).collect())
    }
}

/// Before any work: a base that tasks can be compared with.
pub(super) fn check_base(name: &str) -> anyhow::Result<()> {
    if !Run::is(name) {
        let wrong = "tasks need a model or the JSON of an earlier run as their reference";
        package::open(name).context(wrong)?;
    }
    Ok(())
}
