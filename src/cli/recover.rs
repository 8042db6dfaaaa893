//! `milm-compress recover`: a pruned checkpoint learns from its parent.
use super::{Context, Outcome, calibration, measure::Measure, output};
use crate::{
    calibrate::{self, CalibrationSet, Request},
    number::whole,
    package::{self, Opened},
    pipeline::{Measured, Recover, Recovered, fingerprint},
    report, train,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Let a pruned checkpoint learn from the model that it was cut from
///
/// First each block alone learns to give the stream that its parent's gives, block after block; then the
/// whole model learns the parent's distributions (KL divergence of its logits). What was best on windows
/// that are not learnt from is kept. The shape stays: the result is an ordinary checkpoint with the report
/// `recover.json` beside the weights. Finished parts lie in `DIR.partial` until it is complete: --resume
/// goes on from there, to the same bytes.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress prune ./model --keep 0.8 -o ./pruned\n  \
    milm-compress recover ./pruned --parent ./model --calibration text.txt \\\n      \
    --calibration-samples 1000 -o ./recovered\n  \
    milm-compress recover ./pruned --parent ./model --self-generate --epochs 0 -o ./recovered")]
pub(super) struct Args {
    /// Pruned checkpoint
    model: String,
    /// The model that it was cut from
    #[arg(long, value_name = "MODEL")]
    parent: String,
    /// Go on though the manifest names another parent
    #[arg(long)]
    force_parent: bool,
    #[command(flatten)]
    settings: Settings,
    /// Folder to write
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Go on with work that was interrupted
    #[arg(long)]
    resume: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Settings of `recover`. Every field is a flag and a recipe key of the same name.
#[derive(clap::Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Settings {
    #[command(flatten)]
    #[serde(flatten)]
    train: train::Settings,
    #[command(flatten)]
    #[serde(flatten)]
    calibration: calibrate::Settings,
    /// Windows of the text that are not learnt from and decide which state is the best
    #[arg(long, value_name = "N", default_value_t = VALIDATION, value_parser = whole::<usize>(1..=u32::MAX.into()))]
    validation_windows: usize,
    #[command(flatten)]
    #[serde(flatten)]
    measure: Measure,
}

const VALIDATION: usize = 8;

impl Default for Settings {
    fn default() -> Self {
        Self {
            train: train::Settings::default(),
            calibration: calibrate::Settings::default(),
            validation_windows: VALIDATION,
            measure: Measure::default(),
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let (student, parent) = (package::open(&args.model)?, package::open(&args.parent)?);
    let between = [(&*args.model, &student), (&*args.parent, &parent)];
    let prepared = Prepared::read(between, (&args.settings, args.force_parent), context)?;
    let recipe = json!({ "step": [prepared.step] });
    let recovered = prepared.write(&args.output, args.resume, &recipe, context)?;
    if args.json {
        output::json(Path::new("-"), &recovered, context)?;
    } else {
        output::text(&report::recovery_table(&recovered))?;
    }
    Ok(Outcome::Done)
}

/// A recovery with everything that it needs read.
pub(super) struct Prepared<'a> {
    student: &'a Opened,
    parent: &'a Opened,
    settings: &'a Settings,
    /// Windows to learn from and, behind them, to decide by.
    windows: Vec<Vec<u32>>,
    learnt: usize,
    measured: Vec<Measured>,
    source_sha256: String,
    /// The step as manifests hold it, with everything that the result depends on.
    pub(super) step: Value,
}

impl<'a> Prepared<'a> {
    /// Reads the texts, or lets the parent write them. `models` are the student and its parent, with their
    /// names.
    pub(super) fn read(
        [(model, student), (parent_name, parent)]: [(&str, &'a Opened); 2],
        (settings, force_parent): (&'a Settings, bool),
        context: &Context,
    ) -> anyhow::Result<Self> {
        let progress = context.progress();
        let parent_sha256 = parent.source_sha256(progress);
        if let Some(manifest) = student.manifest.as_ref().filter(|_| !force_parent) {
            let named = &manifest.source.sha256;
            anyhow::ensure!(
                *named == parent_sha256,
                "`{model}` was made from a model with tensors of SHA-256 {named}, `{parent_name}` has {parent_sha256}\n\
                 hint: name its parent, or go on with --force-parent"
            );
        }
        let (validation, measured) = (settings.validation_windows, settings.measure.held_out());
        let held_out = validation + measured;
        let mut set = calibration::prepare(parent, &settings.calibration, held_out, context)?;
        let mut held_out = std::mem::take(&mut set.held_out);
        anyhow::ensure!(
            held_out.len() > measured,
            "the text has {} windows of {} tokens beside those to learn from, too few to decide when the model is best\n\
             hint: more text, fewer --calibration-samples, or another text to --measure",
            held_out.len(),
            set.windows.first().map_or(0, Vec::len)
        );
        let measured =
            settings.measure.texts(parent, held_out.split_off(held_out.len() - measured))?;
        let here = fingerprint((model, student), &set, &Request::default(), progress)?;
        let step = json!({
            "do": "recover", "settings": settings, "version": env!("CARGO_PKG_VERSION"),
            "model": here, "parent": { "name": parent_name, "sha256": parent_sha256 }, "seed": context.seed,
        });
        let CalibrationSet { mut windows, .. } = set;
        let learnt = windows.len();
        windows.extend(held_out);
        let source_sha256 = student.source_sha256(progress);
        Ok(Self { student, parent, settings, windows, learnt, measured, source_sha256, step })
    }

    /// Recovers into a folder. `recipe` is stored in its manifest.
    pub(super) fn write(
        &self,
        target: &Path,
        resume: bool,
        recipe: &Value,
        context: &Context,
    ) -> anyhow::Result<Recovered> {
        let recover = Recover {
            student: self.student,
            parent: self.parent,
            settings: &self.settings.train,
            windows: &self.windows,
            learnt: self.learnt,
            measured: &self.measured,
            source_sha256: &self.source_sha256,
            key: &self.step,
            recipe,
            seed: context.seed,
            team: &context.team,
            progress: context.progress(),
        };
        Ok(recover.write(target, resume, context.force)?)
    }
}
