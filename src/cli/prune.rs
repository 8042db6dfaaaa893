//! `milm-compress prune`: a checkpoint with narrower blocks.
use super::{Context, Outcome, calibration, measure::Measure, output};
use crate::{
    calibrate::{self, CalibrationSet, Fingerprint, Request, Statistics},
    package::{self, Declared, EngineFit, Opened},
    pipeline::{Measured, Prune, Pruned, fingerprint},
    prune::{self, Plan},
    report,
    scheme::Schemes,
    tensor::Bytes,
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Cut the inner widths of a checkpoint, and repair what is left
///
/// Heads, rotary pairs, value channels and hidden units of the MLPs go; the residual stream stays.
/// What reads the cut spaces is refitted by least squares. The result is an ordinary checkpoint
/// with the report `prune.json` beside the weights. Finished blocks lie in `DIR.partial` until the
/// checkpoint is complete: --resume goes on from there after an interruption.
#[derive(clap::Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[command(after_help = "Examples:\n  \
    milm-compress prune ./model --keep 0.8 -o ./pruned\n  \
    milm-compress prune ./milm2-6b --target-params 3.5B -o ./milm2-4b --dry-run\n  \
    milm-compress prune ./model --ffn-width 1024 --calibration chats.jsonl -o ./pruned\n  \
    milm-compress prune ./model --keep 0.6 --shots 4 --measure held-out.txt -o ./pruned")]
pub(super) struct Args {
    /// Checkpoint, or builtin:milm-mini
    model: String,
    #[command(flatten)]
    settings: Settings,
    /// Folder to write
    #[arg(long, short, value_name = "DIR", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// Show the widths and what they make of the model; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on with work that was interrupted
    #[arg(long)]
    resume: bool,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the result as Markdown
    #[arg(long)]
    markdown: bool,
}

/// Settings of `prune`. Every field is a flag and a recipe key of the same name.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Settings {
    #[command(flatten)]
    #[serde(flatten)]
    prune: prune::Settings,
    #[command(flatten)]
    #[serde(flatten)]
    calibration: calibrate::Settings,
    /// Statistics that `calibrate` made: the first shot takes them instead of forward passes
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    measure: Measure,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let opened = package::open(&args.model)?;
    if args.dry_run {
        let (plan, engines) = planned(&opened, &args.settings)?;
        if args.json {
            let value = json!({ "schema": 1, "plan": plan, "engines": engines });
            output::json(Path::new("-"), &value, context)?;
        } else {
            output::text(&report::pruning_plan(&plan, &engines))?;
        }
        return Ok(Outcome::Done);
    }
    let target = args.output.as_deref().context("--output is missing")?;
    let prepared = Prepared::read((&args.model, &opened), &args.settings, context)?;
    let recipe = json!({ "step": [prepared.step] });
    let pruned = prepared.write(target, args.resume, &recipe, context)?;
    match (args.json, args.markdown) {
        (true, _) => output::json(Path::new("-"), &pruned, context)?,
        (_, true) => output::text(&report::pruning_markdown(&pruned))?,
        _ => output::text(&report::pruning_table(&pruned))?,
    }
    Ok(Outcome::Done)
}

/// What will become of a model, and which engines will load it.
fn planned(opened: &Opened, settings: &Settings) -> anyhow::Result<(Plan, Vec<EngineFit>)> {
    prune::check_float(&opened.model)?;
    let plan = settings.plan(opened)?;
    let (spec, config) = (&plan.spec, &plan.config);
    let engines = package::engines(Declared { spec, config, schemes: &Schemes::new() });
    Ok((plan, engines))
}

/// A cut with everything that it needs read.
pub(super) struct Prepared<'a> {
    opened: &'a Opened,
    settings: &'a Settings,
    plan: Plan,
    calibration: CalibrationSet,
    measured: Vec<Measured>,
    statistics: Option<Statistics>,
    source_sha256: String,
    /// The step as manifests hold it, with everything that the result depends on.
    pub(super) step: Value,
}

impl<'a> Prepared<'a> {
    /// Tells the plan, reads texts and statistics.
    pub(super) fn read(
        (model, opened): (&str, &'a Opened),
        settings: &'a Settings,
        context: &Context,
    ) -> anyhow::Result<Self> {
        let (plan, engines) = planned(opened, settings)?;
        context.table(report::pruning_plan(&plan, &engines));
        let held_out = settings.measure.held_out();
        let mut calibration =
            calibration::prepare(opened, &settings.calibration, held_out, context)?;
        let held_out = std::mem::take(&mut calibration.held_out);
        let progress = context.progress();
        let here = fingerprint((model, opened), &calibration, &Request::default(), progress)?;
        let source_sha256 = opened.source_sha256(progress);
        let statistics = match &settings.statistics {
            Some(path) => Some(statistics(path, opened, here.clone())?),
            None => None,
        };
        let measured = settings.measure.texts(opened, held_out)?;
        let step = json!({
            "do": "prune", "settings": settings, "version": env!("CARGO_PKG_VERSION"),
            "model": here, "seed": context.seed,
        });
        Ok(Self { opened, settings, plan, calibration, measured, statistics, source_sha256, step })
    }

    /// Prunes into a folder. `recipe` is stored in its manifest.
    pub(super) fn write(
        &self,
        target: &Path,
        resume: bool,
        recipe: &Value,
        context: &Context,
    ) -> anyhow::Result<Pruned> {
        let prune = Prune {
            opened: self.opened,
            settings: &self.settings.prune,
            calibration: &self.calibration,
            allow_rank_deficient: self.settings.calibration.allow_rank_deficient,
            measured: &self.measured,
            source_sha256: &self.source_sha256,
            statistics: self.statistics.as_ref(),
            key: &self.step,
            recipe,
            seed: context.seed,
            team: &context.team,
            progress: context.progress(),
        };
        for note in prune.warnings(&self.plan)? {
            context.note(format_args!("warning: {note}"));
        }
        Ok(prune.write(target, resume, context.force)?)
    }
}

impl Settings {
    /// What will become of a model.
    pub(super) fn plan(&self, opened: &Opened) -> anyhow::Result<Plan> {
        Ok(Plan::of(&opened.model, &self.prune)?)
    }
}

/// Statistics of this model over this calibration set; others are refused.
fn statistics(path: &Path, opened: &Opened, here: Fingerprint) -> anyhow::Result<Statistics> {
    let statistics = Statistics::open(Bytes::map(path)?)?;
    statistics.check_shapes(&opened.model.spec)?;
    // Whether what is needed was collected shows when it is asked for.
    let request = statistics.fingerprint().request.clone();
    statistics.check(&Fingerprint { request, ..here })?;
    Ok(statistics)
}
