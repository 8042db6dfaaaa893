//! `milm-compress eval`: what compression cost, and whether that is within bounds.
mod gates;
mod outputs;
mod task;
mod tasks;

use super::{
    Context, Outcome,
    model::{BackendName, with_kv_cache},
};
use crate::{
    calibrate::bundled,
    checkpoint::OutputFile,
    eval::{
        Figures, Gate, LogitSource, ModelSource, PROTOCOLS, Plan, Protocol, Reduction, StoredKey,
        StoredWriter, TokenScore, Window, measure,
    },
    number::whole,
    package::{self, Opened},
    report::{self, EvalReport, Yardstick},
    scheme::KvPrecision,
    tensor::Bytes,
    text::Form,
};
use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use gates::GateSettings;
use outputs::OutputSettings;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use task::{NO_TEXT, Reference, Task};
pub(super) use tasks::TaskSettings;

/// Measure perplexity, and divergence from a reference
///
/// Exit code 0: done and every gate passed; 1: a gate failed; 2: an error. The protocols are
/// described in docs/evaluation.md; figures of different protocols are not comparable.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress eval ./model --text wiki.test.raw --text-form rows --windows 4\n  \
    milm-compress eval ./package --reference ./model --text a.txt --max-kl 0.05 --json -\n  \
    milm-compress eval ./model --text a.txt --save-reference model.ref\n  \
    milm-compress eval ./package --reference model.ref --text a.txt --max-ppl-increase 2% \\\n    \
    --min-top1 93% --junit eval.xml\n  \
    milm-compress eval ./model --tasks ceval,hellaswag --data ./data --num-fewshot 5 --json a.json\n  \
    milm-compress eval builtin:milm-mini --tasks sample")]
pub(super) struct Args {
    /// Checkpoint, package, or builtin:milm-mini
    #[arg(required_unless_present_any = ["compare", "merge", "tasks"])]
    model: Option<String>,
    /// Compare runs of tasks item by item: records or reports, the base first
    #[arg(long, value_name = "FILE", num_args = 2.., conflicts_with_all = ["model", "merge"])]
    compare: Vec<PathBuf>,
    /// Join the parts that --shard made: folders of reports, or reports
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with = "model")]
    merge: Vec<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// Settings of `eval`. Every field is a flag and a recipe key of the same name.
#[derive(clap::Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Settings {
    /// Model to compare with, or a file that --save-reference made
    #[arg(long, value_name = "MODEL|FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<String>,
    /// Package to beat, e.g. one of --preset vendor-standard: it is measured in the same way, and
    /// the reduction of its loss is told
    #[arg(long, value_name = "MODEL", requires = "reference")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) yardstick: Option<String>,
    /// Text to measure on: plain UTF-8, or jsonl with `text` or `messages`; may be repeated;
    /// builtin:en and builtin:zh are carried by the program
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present_any = ["tasks", "judge", "compare", "merge"])]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) text: Vec<PathBuf>,
    /// How the text files hold their documents
    #[arg(long, value_enum, default_value_t)]
    pub(super) text_form: Form,
    /// Which windows the model sees and which tokens are scored
    #[arg(long, default_value = "gptq", value_parser = protocol_names())]
    pub(super) protocol: String,
    /// Tokens of a window [default: 2048, or what the model allows]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(2..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ctx: Option<usize>,
    /// Tokens from one window to the next, for strided [default: half of --ctx]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stride: Option<usize>,
    /// Measure the first N windows only
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) windows: Option<usize>,
    /// Store the reference's log-probabilities (MODEL's without --reference) for later use
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) save_reference: Option<PathBuf>,
    /// As `run` computes, or in float32; of both models
    #[arg(long, value_enum, default_value_t)]
    pub(super) backend: BackendName,
    /// How MODEL's keys and values are held [default: as the package says, or float]
    #[arg(long, value_enum, value_name = "FORM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kv_cache: Option<KvPrecision>,
    #[command(flatten, next_help_heading = "Gates")]
    #[serde(flatten)]
    pub(super) gates: GateSettings,
    #[command(flatten, next_help_heading = "Results")]
    #[serde(flatten)]
    pub(super) outputs: OutputSettings,
    #[command(flatten, next_help_heading = "Tasks")]
    #[serde(flatten)]
    pub(super) tasks: TaskSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            reference: None,
            yardstick: None,
            text: Vec::new(),
            text_form: Form::Auto,
            protocol: "gptq".into(),
            ctx: None,
            stride: None,
            windows: None,
            save_reference: None,
            backend: BackendName::Kernels,
            kv_cache: None,
            gates: GateSettings::default(),
            outputs: OutputSettings::default(),
            tasks: TaskSettings::default(),
        }
    }
}

fn protocol_names() -> PossibleValuesParser {
    let value = |it: &Protocol| clap::builder::PossibleValue::new(it.name).help(it.about);
    PossibleValuesParser::new(PROTOCOLS.iter().map(value))
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let settings = &args.settings;
    if !args.compare.is_empty() {
        tasks::compare(&args.compare, settings.outputs.json.as_deref(), context)?;
        return Ok(Outcome::Done);
    }
    if !args.merge.is_empty() {
        return tasks::merge(&args.merge, settings, context);
    }
    if settings.tasks.is_list() {
        tasks::list()?;
        return Ok(Outcome::Done);
    }
    let model = args.model.as_deref().context("no model\nhint: name what is to be evaluated")?;
    settings.check(context)?;
    let mut outcome = Outcome::Done;
    if settings.has_text() {
        let report = evaluate(model, settings, context)?;
        outcome = show(&report, settings, context)?;
    }
    Ok(outcome.or(run_tasks(model, settings, context)?))
}

/// Runs the benchmarks that are asked for, if any.
pub(super) fn run_tasks(
    model: &str,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let wanted = settings.tasks.is_wanted();
    if wanted { tasks::run(model, settings, context) } else { Ok(Outcome::Done) }
}

/// Measures a model. Everything that can be wrong with the settings is found before any work.
/// The windows that an evaluation with these settings would measure on.
pub(super) fn windows(opened: &Opened, settings: &Settings) -> anyhow::Result<Vec<Window>> {
    Ok(Task::prepare("", opened, settings)?.1.windows)
}

pub(super) fn evaluate(
    model: &str,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<EvalReport> {
    settings.check(context)?;
    let gates = settings.gates.all()?;
    let mut opened = package::open(model)?;
    opened.model = with_kv_cache(&opened.model, settings.kv_cache).into_owned();
    let (task, plan) = Task::prepare(model, &opened, settings)?;
    let run = Run { settings, task: &task, plan: &plan, context };
    let yardstick = match &settings.yardstick {
        Some(name) => Some((name, package::open(name)?)),
        None => None,
    };
    let (figures, scores) = run.measure((model, &opened), settings.save_reference.as_deref())?;
    let yardstick = match yardstick {
        Some((name, opened)) => {
            let (figures, other) = run.measure((name, &opened), None)?;
            Reduction::of(&scores, &other, &plan.windows).map(|reduction| Yardstick {
                model: name.clone(),
                kl_mean: figures.divergence.map(|it| it.kl_mean.value),
                reduction,
            })
        }
        None => None,
    };
    let judge = |gate: &Gate| gate.judge(figures.measured(&gate.figure).as_ref());
    let judged = gates.iter().filter(|it| it.is_of_text()).map(judge).collect::<Result<_, _>>()?;
    let names = (model.to_owned(), settings.reference.clone());
    let method = task.method(settings, &plan, opened.model.spec.kv_cache);
    let report = EvalReport::new(names, method, figures, judged, plan.words);
    Ok(EvalReport { yardstick, ..report })
}

/// A measurement that is prepared.
struct Run<'a> {
    settings: &'a Settings,
    task: &'a Task,
    plan: &'a Plan,
    context: &'a Context,
}

impl Run<'_> {
    /// Measures a model against the reference, if there is one.
    fn measure(
        &self,
        (name, opened): (&str, &Opened),
        save: Option<&Path>,
    ) -> anyhow::Result<(Figures, Vec<TokenScore>)> {
        let Self { settings, task, plan, context } = *self;
        let reference = match &settings.reference {
            Some(name) => Some(Reference::open(name, task, plan)?),
            None => None,
        };
        let backend = settings.backend.backend();
        let team = &context.team;
        let progress = context.progress();
        let source = |model| ModelSource::new(model, &*backend, team, progress);
        let (mut other_model, mut other_file);
        let other: Option<&mut dyn LogitSource> = match reference {
            Some(Reference::Model(ref opened)) => {
                other_model = source(&opened.model);
                Some(&mut other_model)
            }
            Some(Reference::Stored(stored)) => {
                other_file = stored;
                Some(&mut *other_file)
            }
            None => None,
        };
        // The file is named after the model whose log-probabilities it holds.
        let stored = settings.reference.as_deref().unwrap_or(name).to_owned();
        let key = StoredKey { model: stored, ..task.key.clone() };
        let mut saver = match save {
            Some(path) => {
                let file = OutputFile::create(path, context.force)?;
                Some(StoredWriter::new(file, &key, &plan.windows)?)
            }
            None => None,
        };
        let mut model = source(&opened.model);
        let aids = (team, progress);
        let measured = measure(&plan.windows, &mut model, other, saver.as_mut(), aids)?;
        if let Some(saver) = saver {
            saver.finish()?.commit()?;
        }
        Ok(measured)
    }
}

/// Writes the forms that were asked for.
pub(super) fn show(
    report: &EvalReport,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let sheet = report.sheet();
    let table = |colour| report::table(&sheet, None, colour);
    settings.outputs.write((&sheet, report), table, &settings.place(), context)
}

impl Settings {
    /// Finds what can be wrong before a model is there to measure.
    pub(super) fn check(&self, context: &Context) -> anyhow::Result<()> {
        let gates = self.gates.all()?;
        let tasks = self.tasks.names()?;
        for gate in &gates {
            gate.check(self.has_text(), &tasks, self.reference.is_some())?;
        }
        anyhow::ensure!(
            self.yardstick.is_none() || self.reference.is_some(),
            "a yardstick without a reference\nhint: both losses are measured against `reference`"
        );
        self.tasks.check_offers()?;
        let records = self.tasks.outputs(self);
        let more = self.save_reference.iter().chain(&records).map(PathBuf::as_path);
        self.outputs.check(more, context)?;
        anyhow::ensure!(self.has_text() || self.tasks.is_wanted(), NO_TEXT);
        anyhow::ensure!(
            !(self.has_text() && self.tasks.is_wanted() && self.outputs.any()),
            "texts and tasks have results of their own\nhint: to write files, measure one after the other"
        );
        if let Some(name) = self.reference.as_deref().filter(|_| self.tasks.is_wanted()) {
            tasks::check_base(name)?;
        }
        for path in self.text.iter().filter(|it| bundled(&it.to_string_lossy()).is_none()) {
            Bytes::map(path)?;
        }
        Ok(())
    }

    /// As [`Self::check`], with the model that what is measured will be made from: its tokenizer
    /// and its positions are the same, so text, windows and reference can be tried.
    pub(super) fn check_with(&self, opened: &Opened, context: &Context) -> anyhow::Result<()> {
        self.check(context)?;
        if !self.has_text() {
            return Ok(());
        }
        let (task, plan) = Task::prepare("", opened, self)?;
        if let Some(name) = &self.reference {
            Reference::open(name, &task, &plan)?;
        }
        Ok(())
    }

    /// Whether perplexity is asked for.
    pub(super) fn has_text(&self) -> bool {
        !self.text.is_empty()
    }

    /// The file that holds the gates, for code hosts.
    fn place(&self) -> String {
        let file = self.gates.gates.as_ref();
        file.map_or_else(|| ".".into(), |path| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_its_recipe_key() {
        let command = <Args as clap::Args>::augment_args(clap::Command::new("eval"));
        let full = Settings {
            reference: Some("r".into()),
            yardstick: Some("y".into()),
            ctx: Some(1),
            stride: Some(1),
            windows: Some(1),
            save_reference: Some("s".into()),
            kv_cache: Some(KvPrecision::Int8),
            text: vec!["t".into()],
            gates: GateSettings::full(),
            outputs: OutputSettings::full(),
            tasks: TaskSettings::full(),
            ..Settings::default()
        };
        let value = serde_json::to_value(&full).unwrap();
        let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        // Runs are put beside each other by hand, not in recipes.
        let by_hand = ["compare", "merge"];
        let flags = command.get_arguments().filter_map(clap::Arg::get_long);
        let mut flags: Vec<_> = flags.filter(|flag| !by_hand.contains(flag)).collect();
        keys.sort_unstable();
        flags.sort_unstable();
        assert_eq!(keys, flags);
        assert_eq!(serde_json::from_value::<Settings>(value).unwrap(), full);
    }

    #[test]
    fn recipes_write_shares_as_people_do() {
        let text = "max-ppl-increase = \"2%\"\nmin-top1 = 0.93\ntext = [\"a.txt\"]";
        let settings: Settings = toml::from_str(text).unwrap();
        let want = [Gate::most("ppl-increase", 0.02), Gate::least("top1", 0.93)];
        assert_eq!(settings.gates.all().unwrap(), want);
        let settings: Settings = toml::from_str("gate = [\"ceval loss <= 1%\"]").unwrap();
        assert_eq!(settings.gates.all().unwrap()[0].to_string(), "ceval loss <= 0.01");
    }
}
