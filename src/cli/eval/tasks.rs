//! `eval --tasks`: benchmarks from a folder of data files.
use super::{Settings, folder::Folder, recall};
use crate::{
    checkpoint::sha256,
    cli::{Context, Outcome, input, model::with_kv_cache, output},
    eval::task::{
        Counted, Data, Gated, Items, ModelAnswerer, Options, Paired, Record, RecordKey, SAMPLE,
        Summary, TASKS, Task, TaskError, Template, Warnings, find, judge_lines, suite_task,
        summarize,
    },
    linalg::Team,
    model::WeightStore,
    number::whole,
    package::{self, MANIFEST_FILE, Opened},
    report::{self, Shard, TaskReport},
    runtime::Engine,
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

/// What [`recall`] and the summaries are made of.
struct Bench<'a> {
    settings: &'a Settings,
    context: &'a Context,
    shard: Option<Shard>,
}

/// Runs the tasks on a model and on its base, writes records and summaries.
pub(super) fn run(model: &str, settings: &Settings, context: &Context) -> anyhow::Result<Outcome> {
    let shard = settings.tasks.shard.as_deref().map(super::runs::shard).transpose()?;
    anyhow::ensure!(
        shard.is_none() || (settings.reference.is_none() && settings.gates.all()?.is_empty()),
        "a part is neither compared nor gated\nhint: give --reference and gates to `eval --merge`"
    );
    let bench = Bench { settings, context, shard };
    let base = bench.base()?;
    let mut opened = package::open(model)?;
    opened.model = with_kv_cache(&opened.model, settings.kv_cache).into_owned();
    let key = fingerprint(&opened, &context.team)?;
    let (summaries, records) = bench.run((&opened, key), settings.tasks.judge.as_deref())?;
    let report = TaskReport { shard, ..TaskReport::new(model, summaries) };
    bench.finish(report, &records, base.as_deref())
}

/// Joins parts and writes what one run would have written.
pub(super) fn merge(
    parts: &[PathBuf],
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let bench = Bench { settings, context, shard: None };
    let (report, records) = super::runs::merge(parts, &settings.tasks.chosen()?, context)?;
    let names: Vec<&str> = report.tasks.iter().map(|it| it.task.as_str()).collect();
    for gate in settings.gates.all()? {
        gate.check(false, &names, settings.reference.is_some())?;
    }
    let base = bench.base()?;
    bench.finish(report, &records, base.as_deref())
}

/// A table of all tasks.
pub(super) fn list() -> anyhow::Result<()> {
    let lines = TASKS.iter().map(|task| format!("{:<16} {}\n", task.name(), task.about()));
    output::text(&lines.collect::<String>())
}

impl Bench<'_> {
    /// The base's records: of an earlier run, or of the reference that is run now.
    fn base(&self) -> anyhow::Result<Option<Vec<Record>>> {
        let Some(name) = &self.settings.reference else { return Ok(None) };
        if is_run(name) {
            return Ok(Some(super::runs::records(Path::new(name))?));
        }
        let opened = package::open(name)?;
        let key = fingerprint(&opened, &self.context.team)?;
        Ok(Some(self.run((&opened, key), None)?.1))
    }

    /// Compares with the base, judges, writes.
    fn finish(
        &self,
        mut report: TaskReport,
        records: &[Record],
        base: Option<&[Record]>,
    ) -> anyhow::Result<Outcome> {
        let Self { settings, context, .. } = *self;
        if let Some(base) = base {
            report.reference.clone_from(&settings.reference);
            let compare =
                |it: &Summary| Paired::of((&it.task, &it.main_metric), base, records, context.seed);
            report.compared = report.tasks.iter().map(compare).collect::<Result<_, _>>()?;
        }
        let gated = Gated { summaries: &report.tasks, records, base, seed: context.seed };
        let mut judged = vec![];
        for gate in settings.gates.all()?.iter().filter(|it| !it.is_of_text()) {
            let measured = gated.measured(&gate.figure, gate.is_relative())?;
            judged.push(gate.judge(measured.as_ref())?);
        }
        report.passed = judged.iter().all(|gate| gate.passed);
        report.gates = judged;
        if let Some(path) = settings.records_file() {
            let lines = records.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
            let text: String = lines.into_iter().map(|line| line + "\n").collect();
            output::file_or_stdout(&path, &text, context)?;
        }
        let table = |colour| {
            report::tasks_table(&report) + &report::gates_table(&report.gates, None, colour)
        };
        settings.outputs.write((&report.sheet(), &report), table, &settings.place(), context)
    }

    fn run(
        &self,
        (opened, fingerprint): (&Opened, String),
        judge: Option<&Path>,
    ) -> anyhow::Result<(Vec<Summary>, Vec<Record>)> {
        let Self { settings, context, .. } = *self;
        let wanted = &settings.tasks;
        let tokenizer = opened.tokenizer()?;
        let limit = opened.model.spec.max_positions;
        let options = Options {
            num_fewshot: wanted.num_fewshot,
            template: wanted.template,
            limit: wanted.limit,
            subjects: wanted.subjects.clone(),
            seed: context.seed,
            window: wanted.task_window.map_or(limit, |it| it.min(limit)),
        };
        // What can be wrong with the data is found before the model is loaded.
        let data = wanted.data()?;
        let data = Counted::new(&*data, &tokenizer, wanted.chat_template)?;
        let mut all = Vec::new();
        for task in &wanted.chosen()? {
            match task.items(&data, &options) {
                // Of what the program carries, every task that has something is meant.
                Err(TaskError::NoData { .. } | TaskError::Judge { .. }) if wanted.is_sample() => {}
                other => all.push((*task, other?)),
            }
        }
        let backend = settings.backend.backend();
        let key = RecordKey {
            model: fingerprint,
            settings: serde_json::json!({
                "backend": settings.backend.isa(),
                "kv_cache": opened.model.spec.kv_cache,
                "chat_template": wanted.chat_template,
                "window": options.window,
            }),
        };
        let engine = Engine::load(&opened.model, &*backend, &context.team, context.progress())?;
        let chat = wanted.chat_template;
        let mut answerer = ModelAnswerer::new(engine, &tokenizer, &context.team, chat)
            .with_window(wanted.task_window)
            .with_batch(wanted.batch);
        let (mut summaries, mut records) = (Vec::new(), Vec::new());
        for (task, items) in all {
            let (done, warnings) = self.ask((task, items), &key, &mut answerer)?;
            let mut summary = summarize(task, &options, &done, &warnings);
            summary.data_warnings = self.shard.is_some().then_some(warnings);
            for warning in &summary.warnings {
                tracing::warn!("{}: {warning}", task.name());
            }
            summaries.push(summary);
            records.extend(done);
        }
        if let Some(path) = judge {
            let lines = judge_lines(&data, &options, &mut answerer)?;
            context.note(format_args!("{} answers for a judge", lines.len()));
            output::file_or_stdout(path, &(lines.join("\n") + "\n"), context)?;
        }
        Ok((summaries, records))
    }

    /// Asks the items of a task, or of the part that is wanted.
    fn ask(
        &self,
        (task, items): (&'static dyn Task, Items),
        key: &RecordKey,
        answerer: &mut ModelAnswerer<'_>,
    ) -> anyhow::Result<(Vec<Record>, Warnings)> {
        let count = items.items.len();
        let part = self.shard.map_or(0..count, |shard| shard.items(count));
        let cache = self.settings.tasks.cache.as_deref();
        let mut recall = recall::Kept::open(cache, (task, key))?;
        let begin = std::time::Instant::now();
        let progress = self.context.progress();
        let asked = (items.items.as_slice(), part.clone());
        let done = crate::eval::task::run(task, asked, key, answerer, (&mut recall, progress))?;
        let requests: usize = items.items[part].iter().map(|item| item.requests.len()).sum();
        let seconds = begin.elapsed().as_secs_f64();
        self.context.note(format_args!(
            "{}: {} items, {} remembered, {requests} requests in {seconds:.1} s",
            task.name(),
            done.len(),
            recall.found()
        ));
        Ok((done, items.warnings))
    }
}

impl Settings {
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
            cache: Some("c".into()),
            shard: Some("1/2".into()),
            judge: Some("j".into()),
            records: Some("r".into()),
            ..Self::default()
        }
    }

    fn is_sample(&self) -> bool {
        self.tasks.iter().any(|name| name == "sample")
    }

    /// The tasks by their names.
    pub(super) fn chosen(&self) -> anyhow::Result<Vec<&'static dyn Task>> {
        if self.is_sample() {
            anyhow::ensure!(
                self.tasks.len() == 1 && self.data.is_none(),
                "`sample` brings its own data\nhint: run other tasks on their own"
            );
            return Ok(TASKS.to_vec());
        }
        let named = |name: &String| {
            if !is_suite(name) {
                return Ok(find(name)?);
            }
            let text = input::text(Path::new(name), "name a suite, see docs/evaluation.md")?;
            Ok(suite_task(name, &text)?)
        };
        self.tasks.iter().map(named).collect()
    }

    /// Their names.
    pub(super) fn names(&self) -> anyhow::Result<Vec<&'static str>> {
        Ok(self.chosen()?.iter().map(|task| task.name()).collect())
    }

    fn data(&self) -> anyhow::Result<Box<dyn Data>> {
        // Suites named by their paths bring their own items.
        if self.is_sample() || self.tasks.iter().all(|name| is_suite(name)) {
            return Ok(Box::new(SAMPLE));
        }
        let named = self.data.clone().or_else(|| std::env::var_os("MILM_DATA").map(PathBuf::from));
        let root = named.context(
            "no data for the tasks\nhint: name a folder with --data or MILM_DATA, or try --tasks sample",
        )?;
        anyhow::ensure!(
            root.is_dir(),
            "`{}` is no folder\nhint: name the folder that holds the tasks' data",
            root.display()
        );
        Ok(Box::new(Folder(root)))
    }
}

/// Whether a base is an earlier run's results, not a model.
fn is_run(name: &str) -> bool {
    let path = Path::new(name);
    let extension = path.extension().and_then(|it| it.to_str());
    path.is_file() && matches!(extension, Some("json" | "jsonl"))
}

/// Before any work: a base that tasks can be compared with.
pub(super) fn check_base(name: &str) -> anyhow::Result<()> {
    if !is_run(name) {
        let wrong = "tasks need a model or the JSON of an earlier run as their reference";
        package::open(name).context(wrong)?;
    }
    Ok(())
}

/// Identifies a model by what it computes with: configuration, stored tensors, schemes, and the files
/// of its tokenizer, whatever form it lies in. What evaluations write into a package does not change
/// it.
fn fingerprint(opened: &Opened, team: &Team) -> anyhow::Result<String> {
    let Opened { model, folder, .. } = opened;
    let tensors: Vec<_> = model.weights.raw.iter().collect();
    let mut hashes = vec![String::new(); tensors.len()];
    team.each(hashes.iter_mut().zip(tensors).collect(), |_, (hash, (name, raw))| {
        *hash = format!("{name} {:?} {:?} {}", raw.dtype, raw.shape, sha256(&raw.bytes));
        raw.bytes.release();
    });
    for name in folder.list()? {
        let extension = Path::new(&name).extension().and_then(|it| it.to_str());
        let known = matches!(extension, Some("json" | "jinja" | "model")) && name != MANIFEST_FILE;
        if let Some(bytes) = known.then(|| folder.read(&name)).transpose()?.flatten() {
            hashes.push(format!("{name} {}", sha256(&bytes)));
        }
    }
    let WeightStore { quantized, activations, .. } = &model.weights;
    hashes.push(serde_json::to_string(&(&model.config, quantized, activations))?);
    Ok(sha256(hashes.join("\n").as_bytes()))
}

/// Whether a name is the path of a capability suite.
fn is_suite(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|it| it == "toml")
}
