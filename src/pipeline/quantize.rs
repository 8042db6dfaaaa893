//! A package with adaptively rounded weights: block by block, on the streams of the float model
//! and of the quantized one.
use super::{
    Allocate, Allocation, PipelineError,
    journal::{Journal, Phase},
};
use crate::{
    calibrate::{CalibrationSet, HiddenStates},
    checkpoint::{OutputDir, WorkDir},
    linalg::Team,
    model::{Model, Tensors},
    package::{Opened, Rewritten, Summary, refuse_over_input},
    progress::{Progress, Unit},
    quantize::{
        self, Candidates, CodeChoice, LayerReport, Plan, QuantizeError, RoundingWalk, Settings,
        Streams, rtn::Rtn,
    },
    runtime::Kernels,
    transform::{self, Evidence, Transform},
};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// A model to quantize and how.
#[derive(Clone, Copy)]
pub struct Quantize<'a> {
    /// The float model.
    pub opened: &'a Opened,
    /// What is wanted.
    pub settings: &'a Settings,
    /// How its coordinates are turned before.
    pub transform: &'a transform::Settings,
    /// Seed of rotations.
    pub seed: u64,
    /// Text to calibrate on; may be empty where none is needed.
    pub calibration: &'a CalibrationSet,
    /// SHA-256 of the model's tensors, see [`Source`](crate::package::Source).
    pub source_sha256: &'a str,
    /// Everything that the result depends on: a work that was begun with another is not resumed.
    pub key: &'a Value,
    /// Stored in the manifest: the resolved recipe.
    pub recipe: &'a Value,
    /// Threads.
    pub team: &'a Team,
    /// Told of the work.
    pub progress: &'a dyn Progress,
}

/// What quantization did.
#[derive(Clone, Debug, Serialize)]
pub struct Quantized {
    /// Version of this form.
    pub schema: u32,
    /// How its coordinates were turned before.
    pub transform: Option<transform::Report>,
    /// How a budget was spread, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Allocation>,
    /// Each rounded layer, in the order of the work.
    pub layers: Vec<LayerReport>,
    /// The layer with the largest error.
    pub worst: Option<LayerReport>,
}

/// Version of the JSON form of [`Quantized`].
const SCHEMA: u32 = 1;

/// Where an [`Allocation`] lies until the work is done.
const ALLOCATION_FILE: &str = "allocation.json";

/// The file beside the weights that holds a [`Quantized`].
pub(super) const REPORT_FILE: &str = "quantize.json";

impl Quantize<'_> {
    /// Quantizes. The package appears at `target` when it is complete; finished blocks lie in a
    /// work folder beside it before, from which `resume` goes on.
    pub fn write(
        &self,
        target: &Path,
        resume: bool,
        force: bool,
    ) -> Result<(Quantized, Summary), PipelineError> {
        // A run may have been killed between the last two steps.
        let finished = (resume || !force) && WorkDir::is_finished(target, self.key, REPORT_FILE)?;
        if !finished {
            OutputDir::check(target, force)?;
        }
        refuse_over_input(self.opened, target)?;
        let basis = Basis::new(self)?;
        let candidates = Candidates::of(&basis.outline, self.settings)?;
        if candidates.is_none() {
            quantize::plan(&basis.outline, self.settings)?; // refuses before anything is written
        }
        let work = WorkDir::begin(target, self.key, resume || finished, force)?;
        let mut journal = Journal::open(work)?;
        let mut settings = self.settings.clone();
        let mut allocation = None;
        if let Some(candidates) = &candidates {
            let spread = self.spread(&basis, candidates, &journal)?;
            settings.rules.splice(..0, spread.rules(candidates));
            allocation = Some(spread);
        }
        let plan = quantize::plan(&basis.outline, &settings)?;
        let mut model = self.ends(&basis, &plan)?;
        match self.settings.rounding() {
            CodeChoice::Adaptive => self.adaptive(&basis, &plan, &mut model, &mut journal)?,
            CodeChoice::Nearest => self.nearest(&basis, &plan, &mut model)?,
        }
        let layers = journal.state.layers.clone();
        let worst = layers.iter().max_by(|a, b| a.error.total_cmp(&b.error)).cloned();
        let transform = basis.transform.as_ref().map(|it| it.report().clone());
        let quantized = Quantized { schema: SCHEMA, transform, allocation, layers, worst };
        let report = serde_json::to_string_pretty(&quantized).map_err(PipelineError::State)? + "\n";
        let rewritten = Rewritten {
            opened: self.opened,
            source_sha256: self.source_sha256,
            model: &model,
            recipe: self.recipe,
            files: &BTreeMap::from([(REPORT_FILE.to_owned(), report.clone())]),
            method: self.settings.method(),
            shard_bytes: self.settings.shard_size.0,
            team: self.team,
            progress: self.progress,
        };
        journal.note_output(&report)?;
        let manifest = rewritten.write(target, force || finished)?;
        journal.finish()?;
        Ok((quantized, Summary::new(&manifest, &plan)))
    }

    /// Spreads a budget over the weights, unless the journal says how that was done.
    fn spread(
        &self,
        basis: &Basis<'_>,
        candidates: &Candidates,
        journal: &Journal<LayerReport>,
    ) -> Result<Allocation, PipelineError> {
        if let Some(noted) = journal.noted(ALLOCATION_FILE)? {
            return Ok(noted);
        }
        let allocate = Allocate {
            outline: &basis.outline,
            block: &|block| basis.block(block),
            candidates,
            method: self.settings.method(),
            windows: &self.calibration.windows,
            team: self.team,
            progress: self.progress,
        };
        let allocation = allocate.run()?;
        journal.put_note(ALLOCATION_FILE, &allocation)?;
        Ok(allocation)
    }

    /// Rounds every block on the streams of both models.
    fn adaptive(
        &self,
        basis: &Basis<'_>,
        plan: &Plan,
        model: &mut Model,
        journal: &mut Journal<LayerReport>,
    ) -> Result<(), PipelineError> {
        let windows = &self.calibration.windows;
        let mut streams = match (journal.streams("float")?, journal.streams("quantized")?) {
            (Some(float), Some(quantized)) => Streams { float, quantized },
            _ => Streams {
                float: HiddenStates::embed(&basis.outline, windows)?,
                quantized: HiddenStates::embed(model, windows)?,
            },
        };
        let spec = model.spec.clone();
        let walk = RoundingWalk {
            spec: &spec,
            plan,
            grid: self.settings.method(),
            settings: self.settings.rounding_settings(),
            backend: &Kernels::new(),
            team: self.team,
            progress: self.progress,
        };
        if !journal.is_past(0, Phase::Observe) {
            journal.begin(0, Phase::Rewrite)?;
        }
        let (first, blocks) = (journal.next(0, Phase::Rewrite), spec.blocks.len());
        let tokens = (blocks - first.min(blocks)) * self.calibration.tokens();
        self.progress.start("quantize", tokens as u64, Unit::Tokens);
        for b in first..blocks {
            let block = walk.block(b, basis.block(b)?, &mut streams)?;
            basis.source.release(b);
            journal.put_block(0, b, &block.weights.raw)?;
            journal.state.layers.extend(block.layers);
            journal.finished(&[("float", &streams.float), ("quantized", &streams.quantized)])?;
        }
        self.progress.finish();
        for b in 0..blocks {
            model.weights.raw.extend(journal.block(0, b)?);
        }
        model.weights.quantized.extend(plan.schemes());
        Ok(())
    }

    /// Rounds every weight of every block to nearest.
    fn nearest(
        &self,
        basis: &Basis<'_>,
        plan: &Plan,
        model: &mut Model,
    ) -> Result<(), PipelineError> {
        let blocks = basis.source.spec.blocks.len();
        self.progress.start("quantize", blocks as u64, Unit::Items);
        for b in 0..blocks {
            model.weights.raw.extend(basis.block(b)?);
            basis.source.release(b);
            self.round_nearest(plan, model, Some(b))?;
            self.progress.advance(1);
        }
        self.progress.finish();
        Ok(())
    }

    /// Everything outside of blocks: embedding and head rounded to nearest, norms as they are.
    fn ends(&self, basis: &Basis<'_>, plan: &Plan) -> Result<Model, PipelineError> {
        let mut model = basis.outline.clone();
        for tensor in basis.outline.spec.tensors.iter().filter(|it| it.block.is_some()) {
            model.weights.raw.remove(&tensor.name);
        }
        self.round_nearest(plan, &mut model, None)?;
        Ok(model)
    }

    /// Rounds the planned weights of a block, or of none, to nearest.
    fn round_nearest(
        &self,
        plan: &Plan,
        model: &mut Model,
        block: Option<usize>,
    ) -> Result<(), PipelineError> {
        let here = model.spec.tensors.iter().filter(|it| it.block == block);
        let names: Vec<String> = here.map(|it| it.name.clone()).collect();
        for name in names {
            let Some(planned) = plan.tensors.get(&name) else { continue };
            let (Some(scheme), &[out, columns]) = (planned.scheme, planned.shape.as_slice()) else {
                continue;
            };
            let grid = Rtn {
                scheme: scheme.weights,
                scale_type: scheme.scale_type,
                method: self.settings.method(),
            };
            let values = model.weights.get(&name).map_err(QuantizeError::from)?.to_f32();
            let tensor = grid.tensor_on(&values, [out, columns], self.team);
            model.weights.quantize(&name, scheme, &tensor);
        }
        Ok(())
    }
}

/// The coordinates in which a model is quantized.
struct Basis<'a> {
    source: &'a Model,
    /// None where nothing is turned.
    transform: Option<Transform>,
    /// The model in these coordinates, but for the tensors of its blocks, which are the source's.
    outline: Model,
}

impl<'a> Basis<'a> {
    fn new(quantize: &Quantize<'a>) -> Result<Self, PipelineError> {
        let source = &quantize.opened.model;
        let settings = quantize.transform;
        if settings.is_identity() {
            return Ok(Self { source, transform: None, outline: source.clone() });
        }
        let windows = &quantize.calibration.windows;
        let windows = &windows[..windows.len().min(EVIDENCE_WINDOWS)];
        let aids = (quantize.team, quantize.progress);
        let evidence = match settings.needs_evidence() {
            true => {
                let tokens = windows.iter().map(Vec::len).sum::<usize>();
                let blocks = source.spec.blocks.len();
                quantize.progress.start("rotate", (tokens * blocks) as u64, Unit::Tokens);
                let evidence = Evidence::collect(source, windows, aids);
                quantize.progress.finish();
                Some(evidence?)
            }
            false => None,
        };
        let seeds = (quantize.seed, OUTLIER_SHARE);
        let transform = Transform::new(source, settings, seeds, evidence.as_ref())?;
        let mut weights = source.weights.clone();
        weights.raw.extend(transform.ends(source)?);
        let outline = Model::new(transform.config(&source.config), weights)?;
        Ok(Self { source, transform: Some(transform), outline })
    }

    /// The tensors of a block.
    fn block(&self, block: usize) -> Result<Tensors, PipelineError> {
        if let Some(transform) = &self.transform {
            return Ok(transform.block(self.source, block)?);
        }
        let inside = self.source.spec.tensors.iter().filter(|it| it.block == Some(block));
        let raw = &self.source.weights.raw;
        let stored = inside.filter_map(|it| Some((it.name.clone(), raw.get(&it.name)?.clone())));
        Ok(stored.collect())
    }
}

/// Windows of calibration text that rotations are made of, at most.
const EVIDENCE_WINDOWS: usize = 32;
/// Share of the directions that `resq` keeps apart.
const OUTLIER_SHARE: f64 = 0.125;

/// Whether a quantization goes block by block over the whole model, or a tensor at a time.
pub fn is_streamed(settings: &Settings, transform: &transform::Settings) -> bool {
    settings.rounding() == CodeChoice::Nearest && transform.is_identity() && !settings.has_budget()
}

/// Whether a quantization needs text to calibrate on.
pub fn needs_text(settings: &Settings, transform: &transform::Settings) -> bool {
    settings.rounding() == CodeChoice::Adaptive
        || transform.needs_evidence()
        || settings.has_budget()
}
