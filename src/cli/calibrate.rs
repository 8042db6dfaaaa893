//! `milm-compress calibrate`: statistics of activations in a file.
use super::{Context, Outcome, calibration, output};
use crate::{
    calibrate::{
        self, CalibrationSet, RankWarning, Request, StatisticsWriter, Walk, check_rank,
        statistics_bytes,
    },
    checkpoint::OutputFile,
    forward::Reference,
    model::{ModelSpec, Role},
    package::{self, Opened},
    pipeline,
    progress::Unit,
};
use anyhow::Context as _;
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// Collect statistics of activations over a text
///
/// The model is run block by block over the calibration text. `prune` takes the file instead of
/// forward passes; it refuses one that was made with another model, text or settings.
/// docs/calibration.md tells what is measured.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress calibrate builtin:milm-mini -o mini.statistics\n  \
    milm-compress calibrate ./model --calibration chats.jsonl=3 --calibration wiki.txt -o a.statistics\n  \
    milm-compress calibrate ./model --self-generate --covariance all -o a.statistics")]
pub(super) struct Args {
    /// Checkpoint, package, or builtin:milm-mini
    model: String,
    #[command(flatten)]
    settings: calibrate::Settings,
    /// Inputs of linear layers whose covariance is stored
    #[arg(long, value_enum, default_value_t)]
    covariance: Covariance,
    /// Float model to run beside: sums products of its inputs with the model's, where there are
    /// covariances
    #[arg(long, value_name = "MODEL")]
    reference: Option<String>,
    /// File to write
    #[arg(long, short, value_name = "FILE", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// Show the sources and the size of the file; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Which covariances are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Covariance {
    /// None
    None,
    /// Those of the output and down projections
    #[default]
    Consumers,
    /// Those of every linear layer of a block
    All,
}

impl Covariance {
    fn request(self) -> Request {
        let roles: &[Role] = match self {
            Self::None => &[],
            Self::Consumers => &[Role::O, Role::Down],
            Self::All => &[Role::Q, Role::O, Role::Gate, Role::Down],
        };
        let heads = self != Self::None;
        Request { covariance: roles.iter().copied().collect(), heads, cross: false }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let opened = package::open(&args.model)?;
    let reference = args.reference.as_deref().map(package::open).transpose()?;
    let request = Request { cross: reference.is_some(), ..args.covariance.request() };
    let bytes = statistics_bytes(&opened.model.spec, &request);
    let set = calibration::prepare(&opened, &args.settings, 0, context)?;
    if args.dry_run {
        tell(args, &set, &json!({ "bytes": bytes }), context)?;
        return Ok(Outcome::Done);
    }
    let target = args.output.as_deref().context("--output is missing")?;
    let file = OutputFile::create(target, context.force)?;
    refuse_early(&opened.model.spec, &request, &set, args.settings.allow_rank_deficient)?;
    let mut fingerprint =
        pipeline::fingerprint((&args.model, &opened), &set, &request, context.progress())?;
    if let Some(reference) = &reference {
        fingerprint.reference_sha256 = Some(reference.model_sha256(context.progress()));
    }
    let writer = StatisticsWriter::new(file, &fingerprint, &opened.model.spec)?;
    let begin = Instant::now();
    let models = (&opened, reference.as_ref());
    let warnings = collect(models, &set, (writer, &request), args, context)?;
    let rate = set.tokens() as f64 / begin.elapsed().as_secs_f64().max(1e-9);
    let mut told: Vec<String> = warnings.iter().take(4).map(warning).collect();
    if warnings.len() > told.len() {
        told.push(format!("and {} more", warnings.len() - told.len()));
    }
    for line in told {
        context.note(format_args!("warning: {line}"));
    }
    let result = json!({
        "output": target, "bytes": bytes, "tokens_per_second": rate, "warnings": warnings,
        "fingerprint": fingerprint,
    });
    tell(args, &set, &result, context)?;
    Ok(Outcome::Done)
}

/// Layers that see every token: too few tokens are known before any work.
fn refuse_early(
    spec: &ModelSpec,
    request: &Request,
    set: &CalibrationSet,
    allow: bool,
) -> anyhow::Result<()> {
    Ok(calibrate::check_tokens(spec, request, set.tokens() as u64, allow)?)
}

fn collect(
    (opened, reference): (&Opened, Option<&Opened>),
    set: &CalibrationSet,
    (mut writer, request): (StatisticsWriter<OutputFile>, &Request),
    args: &Args,
    context: &Context,
) -> anyhow::Result<Vec<RankWarning>> {
    let (model, progress) = (&opened.model, context.progress());
    let blocks = model.spec.blocks.len();
    progress.start("calibrate", (blocks * set.tokens()) as u64, Unit::Tokens);
    let mut walk = Walk::new(model, &Reference, &set.windows, (&context.team, progress))?;
    if let Some(reference) = reference {
        walk = walk.beside(&reference.model, &set.windows)?;
    }
    let mut warnings = Vec::new();
    for block in 0..blocks {
        let statistics = walk.observe(request)?;
        warnings.extend(check_rank(block, &statistics, args.settings.allow_rank_deficient)?);
        writer.block(&statistics)?;
    }
    progress.finish();
    writer.finish()?.commit()?;
    Ok(warnings)
}

fn warning(it: &RankWarning) -> String {
    format!(
        "block {}: the covariance of the input of {:?} has {} rows, {} tokens were seen",
        it.block, it.role, it.width, it.tokens
    )
}

/// Sources, tokens and what came of them.
fn tell(
    args: &Args,
    set: &CalibrationSet,
    result: &serde_json::Value,
    context: &Context,
) -> anyhow::Result<()> {
    if args.json {
        let mut value = json!({
            "schema": 1, "model": args.model, "data": set.fingerprint, "tokens": set.tokens(),
            "notes": set.notes,
        });
        for (key, it) in result.as_object().into_iter().flatten() {
            value[key] = it.clone();
        }
        return output::json(Path::new("-"), &value, context);
    }
    let sources = set
        .fingerprint
        .sources
        .iter()
        .map(|it| format!("{}: {} samples, weight {}\n", it.name, it.samples, it.weight));
    let place = args.output.as_deref().filter(|_| !args.dry_run);
    let place = place.map_or("statistics".into(), |path| path.display().to_string());
    let rate = result["tokens_per_second"].as_f64();
    let rate = rate.map_or(String::new(), |rate| format!(" at {rate:.1} tokens/s"));
    let size = result["bytes"].as_f64().unwrap_or_default() / 1e6;
    let last = format!("{place}: {size:.2} MB, {} tokens{rate}\n", set.tokens());
    output::text(&sources.chain([last]).collect::<String>())
}
