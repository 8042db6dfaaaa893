//! A package with adaptively rounded weights: block by block, on the streams of the float model
//! and of the quantized one.
use super::PipelineError;
use crate::{
    calibrate::{CalibrationSet, HiddenStates},
    checkpoint::OutputDir,
    linalg::Team,
    model::{Model, ModelSpec, Tensors, WeightStore},
    package::{Manifest, Opened, Rewritten, Summary, refuse_over_input},
    progress::{Progress, Unit},
    quantize::{
        self, CodeChoice, LayerReport, Plan, QuantizeError, RoundedBlock, RoundingWalk, Settings,
        Streams, rtn::Rtn,
    },
    runtime::Kernels,
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
    /// Text to calibrate on.
    pub calibration: &'a CalibrationSet,
    /// SHA-256 of the model's tensors, see [`Source`](crate::package::Source).
    pub source_sha256: &'a str,
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
    /// Each rounded layer, in the order of the work.
    pub layers: Vec<LayerReport>,
    /// The layer with the largest error.
    pub worst: Option<LayerReport>,
}

/// Version of the JSON form of [`Quantized`].
const SCHEMA: u32 = 1;

/// The file beside the weights that holds a [`Quantized`].
pub(super) const REPORT_FILE: &str = "quantize.json";

impl Quantize<'_> {
    /// Quantizes. The package appears at `target` when it is complete.
    pub fn write(&self, target: &Path, force: bool) -> Result<(Quantized, Summary), PipelineError> {
        OutputDir::check(target, force)?;
        refuse_over_input(self.opened, target)?;
        let source = &self.opened.model;
        let plan = quantize::plan(source, self.settings)?;
        let mut weights = self.ends(&plan)?;
        let ends = Model { weights: weights.clone(), ..source.clone() };
        let windows = &self.calibration.windows;
        let mut streams = Streams {
            float: HiddenStates::embed(source, windows)?,
            quantized: HiddenStates::embed(&ends, windows)?,
        };
        let walk = RoundingWalk {
            spec: &source.spec,
            plan: &plan,
            grid: self.settings.method(),
            settings: self.settings.rounding_settings(),
            backend: &Kernels::new(),
            team: self.team,
            progress: self.progress,
        };
        let blocks = source.spec.blocks.len();
        let tokens = blocks * self.calibration.tokens();
        self.progress.start("quantize", 2 * tokens as u64, Unit::Tokens);
        let mut layers = Vec::new();
        for b in 0..blocks {
            let RoundedBlock { weights: block, layers: done } =
                walk.block(b, block_tensors(source, b), &mut streams)?;
            source.release(b);
            weights.raw.extend(block.raw);
            weights.quantized.extend(block.quantized);
            layers.extend(done);
        }
        self.progress.finish();
        let worst = layers.iter().max_by(|a, b| a.error.total_cmp(&b.error)).cloned();
        let quantized = Quantized { schema: SCHEMA, layers, worst };
        let model = Model { weights, ..source.clone() };
        let manifest = self.write_package(&model, &quantized, target, force)?;
        Ok((quantized, Summary::new(&manifest, &plan)))
    }

    /// Everything outside of blocks: embedding and head rounded to nearest, norms as they are.
    fn ends(&self, plan: &Plan) -> Result<WeightStore, PipelineError> {
        let source = &self.opened.model;
        let inside: std::collections::BTreeSet<&str> = in_blocks(&source.spec).collect();
        let outside = source.weights.raw.iter().filter(|(name, _)| !inside.contains(name.as_str()));
        let raw = outside.map(|(name, raw)| (name.clone(), raw.clone())).collect();
        let mut weights = WeightStore { raw, ..WeightStore::default() };
        for (name, (scheme, shape)) in plan.schemes() {
            if inside.contains(name.as_str()) {
                continue;
            }
            let grid = Rtn {
                scheme: scheme.weights,
                scale_type: scheme.scale_type,
                method: self.settings.method(),
            };
            let values = weights.get(&name).map_err(QuantizeError::from)?.to_f32();
            let tensor = grid.tensor_on(&values, shape, self.team);
            weights.quantize(&name, scheme, &tensor);
        }
        Ok(weights)
    }

    fn write_package(
        &self,
        model: &Model,
        quantized: &Quantized,
        target: &Path,
        force: bool,
    ) -> Result<Manifest, PipelineError> {
        let report = serde_json::to_string_pretty(quantized).map_err(PipelineError::State)? + "\n";
        let rewritten = Rewritten {
            opened: self.opened,
            source_sha256: self.source_sha256,
            model,
            recipe: self.recipe,
            files: &BTreeMap::from([(REPORT_FILE.to_owned(), report)]),
            method: self.settings.method(),
            shard_bytes: self.settings.shard_size.0,
            team: self.team,
            progress: self.progress,
        };
        Ok(rewritten.write(target, force)?)
    }
}

/// Names of all tensors of blocks.
fn in_blocks(spec: &ModelSpec) -> impl Iterator<Item = &str> {
    spec.tensors.iter().filter(|it| it.block.is_some()).map(|it| it.name.as_str())
}

/// The tensors of a block.
fn block_tensors(model: &Model, block: usize) -> Tensors {
    let inside = model.spec.tensors.iter().filter(|it| it.block == Some(block));
    let stored = inside.filter_map(|it| Some((it.name.clone(), model.weights.raw.get(&it.name)?)));
    stored.map(|(name, raw)| (name, raw.clone())).collect()
}

/// Whether a quantization needs text to calibrate on.
pub fn needs_text(settings: &Settings) -> bool {
    settings.rounding() == CodeChoice::Adaptive
}
