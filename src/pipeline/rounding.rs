//! A quantization and its parts: the walk that rounds blocks, what lies outside of them, the streams
//! that enter the first.
use super::{Bases, PipelineError, basis::Basis};
use crate::{
    calibrate::{CalibrationSet, HiddenStates},
    forward::Backend,
    linalg::Team,
    model::{Model, ModelSpec},
    package::Opened,
    progress::Progress,
    quantize::{Plan, QuantizeError, RoundingWalk, Settings, Streams, rtn::Rtn},
    scheme::Activations,
    transform,
};
use serde_json::Value;

/// A model to quantize and how.
#[derive(Clone, Copy)]
pub struct Quantize<'a> {
    /// The float model.
    pub opened: &'a Opened,
    /// What is wanted.
    pub settings: &'a Settings,
    /// The coordinates that it may take.
    pub bases: &'a Bases,
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

impl<'a> Quantize<'a> {
    /// The model in some coordinates.
    pub(super) fn basis(&self, settings: &transform::Settings) -> Result<Basis<'a>, PipelineError> {
        let made_of = (self.calibration.windows.as_slice(), self.seed);
        Basis::new((&self.opened.model, settings), made_of, (self.team, self.progress))
    }

    /// The walk that rounds blocks.
    pub(super) fn walk<'b>(
        &'b self,
        (spec, plan): (&'b ModelSpec, &'b Plan),
        calibration: usize,
        backend: &'b dyn Backend,
    ) -> RoundingWalk<'b> {
        RoundingWalk {
            spec,
            plan,
            grid: self.settings.method(),
            calibration,
            settings: self.settings.rounding_settings(),
            backend,
            team: self.team,
            progress: self.progress,
        }
    }

    /// Everything outside of blocks: embedding and head rounded to nearest, norms as they are.
    pub(super) fn ends(&self, basis: &Basis<'_>, plan: &Plan) -> Result<Model, PipelineError> {
        let mut model = basis.outline.clone();
        model.spec.kv_cache = self.settings.kv_cache;
        for tensor in basis.outline.spec.tensors.iter().filter(|it| it.block.is_some()) {
            model.weights.raw.remove(&tensor.name);
        }
        self.round_nearest(plan, &mut model, None)?;
        Ok(model)
    }

    /// Rounds the planned weights of a block, or of none, to nearest.
    pub(super) fn round_nearest(
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
                grid: scheme.weights,
                scale_type: scheme.scale_type,
                method: self.settings.method(),
            };
            let values = model.weights.get(&name).map_err(QuantizeError::from)?.to_f32();
            let tensor = grid.tensor_on(&values, [out, columns], self.team);
            model.weights.quantize(&name, scheme, &tensor.into());
            if scheme.activations == Activations::Int8Static {
                model.weights.set_input_scale(&name, 1.0); // until the last block is done
            }
        }
        Ok(())
    }
}

/// The streams of both models before the first block.
pub(super) fn streams(
    basis: &Basis<'_>,
    model: &Model,
    windows: &[Vec<u32>],
) -> Result<Streams, PipelineError> {
    Ok(Streams {
        float: HiddenStates::embed(&basis.outline, windows)?,
        quantized: HiddenStates::embed(model, windows)?,
    })
}
