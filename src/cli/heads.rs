//! `milm-compress heads`: heads that guess ahead.
use super::{Context, Outcome, calibration, output};
use crate::{
    calibrate::{self, Request},
    number::whole,
    package,
    pipeline::{TrainHeads, fingerprint},
    report,
    train::MedusaSettings,
};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Train Medusa heads: they guess the next tokens, so that a pass may write several
///
/// The model stays as it is, quantized or not: head i learns, from the stream that the model's own head sees,
/// what the model says i + 1 tokens further. The result is a folder in the form that vLLM reads, for
/// `run --medusa`. Acceptance is measured on windows that are not learnt from.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress heads ./package --calibration text.txt --calibration-samples 500 -o ./heads\n  \
    milm-compress heads ./package --self-generate --heads 2 --draft-vocabulary 4096 -o ./heads")]
pub(super) struct Args {
    /// Checkpoint or package, or builtin:milm-mini
    model: String,
    #[command(flatten)]
    medusa: MedusaSettings,
    #[command(flatten)]
    calibration: calibrate::Settings,
    /// Windows of the text that are not learnt from, to measure on
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = whole::<usize>(1..=u32::MAX.into()))]
    validation_windows: usize,
    /// Folder to write
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let opened = package::open(&args.model)?;
    let mut set =
        calibration::prepare(&opened, &args.calibration, args.validation_windows, context)?;
    let held_out = std::mem::take(&mut set.held_out);
    anyhow::ensure!(
        !held_out.is_empty(),
        "the text has no window beside those to learn from, to measure on\n\
         hint: more text, or fewer --calibration-samples"
    );
    let progress = context.progress();
    let base = fingerprint((&args.model, &opened), &set, &Request::default(), progress)?;
    let recipe = json!({
        "model": base, "settings": args.medusa, "seed": context.seed,
        "version": env!("CARGO_PKG_VERSION"),
    });
    let learnt = set.windows.len();
    let windows: Vec<Vec<u32>> = set.windows.into_iter().chain(held_out).collect();
    let train = TrainHeads {
        opened: &opened,
        settings: &args.medusa,
        windows: &windows,
        learnt,
        recipe: &recipe,
        seed: context.seed,
        team: &context.team,
        progress,
    };
    let learnt = train.write(&args.output, context.force)?;
    if args.json {
        output::json(Path::new("-"), &learnt, context)?;
    } else {
        output::text(&report::heads_table(&learnt))?;
    }
    Ok(Outcome::Done)
}
