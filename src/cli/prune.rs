//! `milm-compress prune`: a checkpoint with narrower blocks.
use super::{Context, Outcome, calibration, output};
use crate::{
    calibrate::{self, CalibrationSet, Statistics},
    eval::Window,
    package::{self, EngineFit, Opened},
    pipeline::{Measured, Prune, Pruned},
    prune::{self, Plan},
    report,
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
    /// Statistics that `calibrate` made: scores and repair take them instead of forward passes
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    measure: Measure,
}

/// What the cost is measured on.
#[derive(clap::Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Measure {
    /// Text to measure the cost on; may be repeated [default: windows of the calibration text that
    /// are not calibrated on]
    #[arg(long, value_name = "FILE")]
    measure: Vec<PathBuf>,
    /// Windows to measure on, of each text; 0 measures nothing
    #[arg(long, value_name = "N", default_value_t = 4)]
    measure_windows: usize,
    /// Tokens of a window to measure on [default: as many as are calibrated on]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    measure_tokens: Option<usize>,
}

impl Default for Measure {
    fn default() -> Self {
        Self { measure: Vec::new(), measure_windows: 4, measure_tokens: None }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let opened = package::open(&args.model)?;
    if args.dry_run {
        let (plan, engines) = planned(&opened, &args.settings)?;
        let value = json!({ "schema": 1, "plan": plan, "engines": engines });
        show(args, &value, &report::pruning_plan(&plan, &engines), context)?;
        return Ok(Outcome::Done);
    }
    let target = args.output.as_deref().context("--output is missing")?;
    let pruned = prune(&opened, &args.settings, (target, args.resume), context)?;
    let table = if args.markdown { report::pruning_markdown } else { report::pruning_table };
    show(args, &serde_json::to_value(&pruned)?, &table(&pruned), context)?;
    Ok(Outcome::Done)
}

fn show(args: &Args, value: &Value, text: &str, context: &Context) -> anyhow::Result<()> {
    if args.json { output::json(Path::new("-"), value, context) } else { output::text(text) }
}

/// What will become of a model, and which engines will load it.
fn planned(opened: &Opened, settings: &Settings) -> anyhow::Result<(Plan, Vec<EngineFit>)> {
    let plan = prune::plan(&opened.model, &settings.prune)?;
    let engines = package::engines(&plan.spec, &plan.config);
    Ok((plan, engines))
}

/// Prunes a model into a folder.
pub(super) fn prune(
    opened: &Opened,
    settings: &Settings,
    (target, resume): (&Path, bool),
    context: &Context,
) -> anyhow::Result<Pruned> {
    let (plan, engines) = planned(opened, settings)?;
    context.note(report::pruning_plan(&plan, &engines));
    let statistics = settings.statistics.as_deref().map(Bytes::map).transpose()?;
    let statistics = statistics.map(|bytes| Statistics::open(bytes)).transpose()?;
    let (calibration, held_out) = calibration::with_held_out(
        opened,
        &settings.calibration,
        if settings.measure.measure.is_empty() { settings.measure.measure_windows } else { 0 },
        context,
    )?;
    let source_sha256 = package::source_sha256(opened, context.progress());
    let measured = settings.measure.windows(opened, held_out)?;
    let key = json!({
        "version": env!("CARGO_PKG_VERSION"), "source": source_sha256, "settings": settings,
        "seed": context.seed, "calibration": calibration.fingerprint,
    });
    let prune = Prune {
        opened,
        settings: &settings.prune,
        calibration: &calibration,
        measured: &measured,
        source_sha256: &source_sha256,
        statistics: statistics.as_ref(),
        key: &key,
        seed: context.seed,
        team: &context.team,
        progress: context.progress(),
    };
    Ok(prune.write(target, resume, context.force)?)
}
