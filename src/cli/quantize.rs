//! `milm-compress quantize`: a float checkpoint becomes a package.
use super::{Context, Outcome, calibration, device::Device, output, resident::resident};
use crate::{
    calibrate::{self, Request},
    model::Model,
    package::{self, Estimate, Job, Opened, Summary},
    pipeline::{Bases, Footprint, PipelineError, Quantize, Quantized, fingerprint},
    quantize::{self, Effort},
    report, transform,
};
use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Quantize a checkpoint into a package
///
/// Codes are chosen on calibration text, block by block, in coordinates that a trial chooses; with
/// --preset fast each weight is rounded to the nearest code, without text. The package
/// appears under its name when it is complete. Norms, biases and routers stay as they are;
/// tensors that the architecture does not know are carried through.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress quantize builtin:milm-mini --scheme w4a16 --group-size 64 -o ./package\n  \
    milm-compress quantize ./model --scheme w8a8 -o ./package --dry-run\n  \
    milm-compress quantize ./model --rule 're:.*\\.mlp\\..*=w8a16' --embeddings float -o ./package")]
pub(super) struct Args {
    /// Checkpoint, or builtin:milm-mini
    model: String,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    device: Device,
    /// Folder to write
    #[arg(long, short, value_name = "DIR", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// Show the plan and what it will take; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on with work that was interrupted
    #[arg(long)]
    resume: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Settings of `quantize`. Every field is a flag and a recipe key of the same name.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Settings {
    #[command(flatten)]
    #[serde(flatten)]
    quantize: quantize::Settings,
    #[command(flatten)]
    #[serde(flatten)]
    transform: transform::Settings,
    #[command(flatten)]
    #[serde(flatten)]
    calibration: calibrate::Settings,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let opened = package::open(&args.model)?;
    let mut settings = args.settings.clone();
    if let Some(profile) = args.device.profile()? {
        settings.quantize.engine.get_or_insert(profile.engine);
    }
    let settings = &settings;
    let bases = settings.bases(&opened.model)?;
    args.device.check_plan(&opened.model, &bases.plan, context)?;
    if args.dry_run {
        if settings.quantize.has_budget() {
            context.note("the budget is met, and spread by measured loss: below without it");
        }
        let recipe = json!({ "step": [{ "do": "quantize", "settings": settings }] });
        let job = settings.job(&opened, &recipe, context);
        let plan = &bases.plan;
        let package_bytes = job.package_bytes(plan)?;
        // Of a walk over text its own progress tells.
        let timed = bases.is_streamed();
        let estimate = Estimate {
            package_bytes,
            disk_bytes: package_bytes,
            memory_bytes: memory(&opened, &bases, settings, context)?,
            seconds: timed.then(|| job.seconds(plan, package_bytes)),
        };
        if args.json {
            output::json(Path::new("-"), &plan_json(&bases, estimate), context)?;
        } else {
            output::text(&plan_table(&bases, estimate))?;
        }
        return Ok(Outcome::Done);
    }
    let target = args.output.as_deref().context("--output is missing")?;
    let prepared = Prepared::read((&args.model, &opened), (settings, bases), context)?;
    let recipe = json!({ "step": [prepared.step] });
    let done = prepared.write((target, args.resume), &recipe, context)?;
    if args.json {
        let mut value = serde_json::to_value(&done.summary)?;
        value["schema"] = 1.into();
        value["output"] = target.display().to_string().into();
        value["memory_bytes"] = resident().map(|(_, peak)| peak).into();
        if let Some(quantized) = &done.quantized {
            value["layers"] = serde_json::to_value(&quantized.layers)?;
            value["allocation"] = serde_json::to_value(&quantized.allocation)?;
        }
        output::json(Path::new("-"), &value, context)?;
    } else {
        output::text(&done.text(target))?;
    }
    Ok(Outcome::Done)
}

impl Settings {
    /// The text to calibrate on, to tune on and to measure on.
    fn text(
        &self,
        opened: &Opened,
        context: &Context,
    ) -> anyhow::Result<calibrate::CalibrationSet> {
        let tuning = &self.quantize.tuning;
        let learnt = tuning.tune.map_or(0, |_| tuning.tune_samples);
        let mut set = calibration::prepare(opened, &self.calibration, HELD_OUT + learnt, context)?;
        set.learn_from_held_out(HELD_OUT);
        Ok(set)
    }
}

/// Peak memory of the work, where it is known: what the program holds when the text is read, and
/// what the work adds to that.
fn memory(
    opened: &Opened,
    bases: &Bases,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<Option<u64>> {
    let (mut windows, mut held_out) = (Vec::new(), Vec::new());
    if bases.needs_text() {
        if settings.calibration.self_generate {
            return Ok(None); // the model would have to write it
        }
        let set = settings.text(opened, context)?;
        windows.extend(set.windows.iter().map(Vec::len));
        held_out.extend(set.held_out.iter().map(Vec::len));
    }
    let footprint = Footprint {
        model: &opened.model,
        is_mapped: !opened.folder.is_carried(),
        settings: &settings.quantize,
        bases,
        plan: &bases.plan,
        windows: &windows,
        held_out: &held_out,
        threads: context.team.threads(),
    };
    let work = footprint.bytes();
    Ok(resident().zip(work).map(|((now, peak), work)| peak.max(now + work)))
}

impl Settings {
    /// The same with everything that the preset chooses written out.
    pub(super) fn resolved(&self) -> Self {
        Self { quantize: self.quantize.resolved(), ..self.clone() }
    }

    /// The name of the scheme.
    pub(super) fn scheme(&self) -> &str {
        &self.quantize.scheme
    }

    /// A vendor's standard scheme with the same bits and the same text.
    pub(super) fn vendor_standard(&self) -> Self {
        let quantize = quantize::Settings {
            scheme: self.quantize.scheme.clone(),
            preset: Effort::VendorStandard,
            allow_nonfinite: self.quantize.allow_nonfinite,
            ..quantize::Settings::default()
        };
        Self {
            quantize,
            transform: transform::Settings::default(),
            calibration: self.calibration.clone(),
        }
    }

    /// The coordinates that a model may be quantized in; refuses what the engine does not take.
    pub(super) fn bases(&self, model: &Model) -> Result<Bases, PipelineError> {
        Bases::of(model, &self.quantize, &self.transform)
    }

    fn job<'a>(&'a self, opened: &'a Opened, recipe: &'a Value, context: &'a Context) -> Job<'a> {
        let (team, progress) = (&context.team, context.progress());
        Job { opened, settings: &self.quantize, recipe, team, progress }
    }
}

/// Windows of calibration text that the loss is measured on, if there is so much text.
const HELD_OUT: usize = 4;

/// A quantization with everything that it needs read.
pub(super) struct Prepared<'a> {
    opened: &'a Opened,
    settings: &'a Settings,
    bases: Bases,
    /// Text to calibrate on, empty where none is needed, and the hash of the source; none where
    /// tensors are rounded one at a time.
    calibration: Option<(calibrate::CalibrationSet, String)>,
    /// The step as manifests hold it, with everything that the result depends on.
    pub(super) step: Value,
}

/// A package that was made.
pub(super) struct Done {
    summary: Summary,
    quantized: Option<Quantized>,
}

impl<'a> Prepared<'a> {
    /// Reads text.
    pub(super) fn read(
        (model, opened): (&str, &'a Opened),
        (settings, bases): (&'a Settings, Bases),
        context: &Context,
    ) -> anyhow::Result<Self> {
        for note in &bases.notes {
            context.note(note);
        }
        let mut step = json!({ "do": "quantize", "settings": settings.resolved() });
        let mut calibrated = None;
        if !bases.is_streamed() {
            let set = if bases.needs_text() {
                settings.text(opened, context)?
            } else {
                calibrate::CalibrationSet::default()
            };
            let request = Request::default();
            let progress = context.progress();
            let here = fingerprint((model, opened), &set, &request, progress)?;
            let source = opened.source_sha256(progress);
            step["version"] = env!("CARGO_PKG_VERSION").into();
            step["model"] = serde_json::to_value(here)?;
            step["seed"] = context.seed.into();
            calibrated = Some((set, source));
        }
        Ok(Self { opened, settings, bases, calibration: calibrated, step })
    }

    /// Quantizes into a folder. `recipe` is stored in its manifest.
    pub(super) fn write(
        &self,
        (target, resume): (&Path, bool),
        recipe: &Value,
        context: &Context,
    ) -> anyhow::Result<Done> {
        let Some((calibration, source_sha256)) = &self.calibration else {
            let summary =
                self.settings.job(self.opened, recipe, context).write(target, context.force)?;
            return Ok(Done { summary, quantized: None });
        };
        let quantize = Quantize {
            opened: self.opened,
            settings: &self.settings.quantize,
            bases: &self.bases,
            seed: context.seed,
            calibration,
            source_sha256,
            key: &self.step,
            recipe,
            team: &context.team,
            progress: context.progress(),
        };
        let (quantized, summary) = quantize.write(target, resume, context.force)?;
        Ok(Done { summary, quantized: Some(quantized) })
    }
}

impl Done {
    /// As told on a terminal.
    pub(super) fn text(&self, target: &Path) -> String {
        let mut text = summary_text(target, &self.summary);
        if let Some(quantized) = &self.quantized {
            text += &report::quantized_text(quantized);
        }
        text
    }
}

fn summary_text(target: &Path, summary: &Summary) -> String {
    let first = format!(
        "{}: {:.2} MB from {:.2} MB, {:.3} bits per weight ({:.3} over the {} quantized)\n",
        target.display(),
        summary.bytes as f64 / 1e6,
        summary.source_bytes as f64 / 1e6,
        summary.bits_per_weight,
        summary.quantized_bits_per_weight.unwrap_or_default(),
        summary.quantized
    );
    let carried = summary.carried.iter().map(|it| format!("carried through: {it}\n"));
    let beyond = summary.beyond_standard.iter().map(|it| format!("beyond the standard: {it}\n"));
    let left_out = summary.left_out.first().map(|first| {
        let count = summary.left_out.len();
        format!("left out, for their coordinates are turned: {count} tensors, `{first}` first\n")
    });
    std::iter::once(first).chain(carried).chain(left_out).chain(beyond).collect()
}

fn plan_json(bases: &Bases, estimate: Estimate) -> serde_json::Value {
    let plan = &bases.plan;
    let tensors: serde_json::Map<String, serde_json::Value> = plan
        .tensors
        .iter()
        .map(|(name, it)| {
            let value = json!({
                "role": it.role, "shape": it.shape, "scheme": it.scheme, "bytes": it.bytes,
                "source_bytes": it.source_bytes, "bits_per_weight": it.bits_per_weight(),
            });
            (name.clone(), value)
        })
        .collect();
    json!({
        "schema": 1,
        "bits_per_weight": plan.bits_per_weight(),
        "quantized_bits_per_weight": plan.quantized_bits_per_weight(),
        "bytes": plan.bytes(),
        "source_bytes": plan.source_bytes(),
        "estimate": estimate,
        "carried": plan.carried(),
        "rotations": bases.offers,
        "notes": bases.notes,
        "tensors": tensors,
    })
}

fn plan_table(bases: &Bases, estimate: Estimate) -> String {
    let plan = &bases.plan;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["tensor", "shape", "becomes", "bytes", "bits"]);
    for (name, it) in &plan.tensors {
        let becomes = match (it.scheme, it.role) {
            (Some(scheme), _) => scheme.to_string(),
            (None, Some(_)) => "kept".into(),
            (None, None) => "carried through".into(),
        };
        let shape: Vec<String> = it.shape.iter().map(ToString::to_string).collect();
        table.add_row([
            name.clone(),
            shape.join("×"),
            becomes,
            it.bytes.to_string(),
            format!("{:.3}", it.bits_per_weight()),
        ]);
    }
    for column in [3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let memory = match estimate.memory_bytes {
        Some(bytes) => format!("memory about {} MB", bytes.div_ceil(1_000_000)),
        None => "memory not estimated for these settings".to_owned(),
    };
    let time = match estimate.seconds {
        Some(seconds) => format!("some {:.0} s", seconds.ceil()),
        None => "time not estimated: it depends on the text, and the progress tells".to_owned(),
    };
    format!(
        "{table}\n\n{:.3} bits per weight ({:.3} over the quantized), {:.2} MB from {:.2} MB\n\
         package {:.2} MB, disk {:.2} MB, {memory}, {time}\n{}",
        plan.bits_per_weight(),
        plan.quantized_bits_per_weight().unwrap_or_default(),
        plan.bytes() as f64 / 1e6,
        plan.source_bytes() as f64 / 1e6,
        estimate.package_bytes as f64 / 1e6,
        estimate.disk_bytes as f64 / 1e6,
        report::bases_text(bases),
    )
}
