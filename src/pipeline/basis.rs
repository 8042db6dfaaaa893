//! In which coordinates a model is quantized.
use super::{PipelineError, Quantize, journal::Journal, quantize::streams};
use crate::{
    calibrate::HiddenStates,
    model::{Model, ModelSpec, Tensors},
    progress::Unit,
    quantize::{self, CodeChoice, Effort, GroupSize, LayerReport, Settings},
    runtime::Kernels,
    scheme::Activations,
    tensor::{Bytes, RawTensor},
    transform::{self, Evidence, Rotate, Transform},
};
use serde::{Deserialize, Serialize};

/// Windows of calibration text that rotations are made of, at most.
const EVIDENCE_WINDOWS: usize = 32;
/// Share of the directions that `resq` keeps apart.
const OUTLIER_SHARE: f64 = 0.125;
/// Blocks that a trial rounds, at most.
pub(super) const TRIAL_BLOCKS: usize = 8;
/// Windows that a trial rounds on, and as many that it measures on, at most.
pub(super) const TRIAL_WINDOWS: usize = 8;
/// The record of trials in a work folder.
const TRIALS_FILE: &str = "trials.json";

/// Coordinates that were tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Place among those that were tried.
    pub at: usize,
    /// The rotation and what is multiplied at run time.
    pub transform: transform::Settings,
    /// Mean squared difference of the normalized residual streams of the float and the quantized
    /// model behind the blocks that were rounded, on windows that they were not rounded on.
    pub error: f64,
}

/// The coordinates that are tried: what is asked for, or what the preset offers. Rotations help
/// where a scale covers a whole row and where activations are integers, and cost a matrix before
/// a tied head; small groups may do without.
pub(super) fn bases(settings: &Settings, wanted: &transform::Settings) -> Vec<transform::Settings> {
    let none = transform::Settings { rotate: Some(Rotate::None), ..Default::default() };
    let preset = settings.preset().ok();
    let integers = preset.is_some_and(|it| it.activations != Activations::Float);
    let hadamard = transform::Settings {
        rotate: Some(Rotate::Hadamard),
        rotate_down: integers.then_some(true),
        ..Default::default()
    };
    if wanted.rotate.is_some() {
        return vec![wanted.clone()];
    }
    let bits = preset.map_or(8, |it| it.weight_bits);
    let coarse = bits == 4 && settings.group_size_for(bits) == GroupSize::Channel;
    let offered = match settings.preset {
        Effort::Fast if coarse || integers => vec![hadamard],
        Effort::Fast | Effort::VendorStandard => vec![none],
        Effort::Balanced | Effort::Best => vec![none, hadamard],
    };
    offered.iter().map(|it| wanted.clone().or(it)).collect()
}

/// The architectures that a quantization may end with: one for each basis that is tried.
pub fn outcomes(
    spec: &ModelSpec,
    settings: &Settings,
    transform: &transform::Settings,
) -> Vec<ModelSpec> {
    let bases = bases(settings, transform);
    bases.iter().map(|basis| Transform::planned(basis, spec)).collect()
}

/// Whether a quantization takes a tensor at a time, or goes block by block over the whole model.
pub fn is_streamed(settings: &Settings, transform: &transform::Settings) -> bool {
    let turned = bases(settings, transform).iter().any(|it| !it.is_identity());
    let searched = settings.rounding() != CodeChoice::Nearest || settings.has_budget();
    !(searched || turned || settings.preset == Effort::VendorStandard)
}

/// Whether a quantization needs text to calibrate on.
pub fn needs_text(settings: &Settings, transform: &transform::Settings) -> bool {
    settings.rounding() == CodeChoice::Adaptive
        || bases(settings, transform).iter().any(transform::Settings::needs_evidence)
        || settings.has_budget()
        || settings.preset == Effort::VendorStandard
}

/// A model in the coordinates in which it is quantized.
pub(super) struct Basis<'a> {
    pub(super) source: &'a Model,
    /// None where nothing is turned.
    pub(super) transform: Option<Transform>,
    /// The model in these coordinates, but for the tensors of its blocks, which are the source's.
    pub(super) outline: Model,
}

impl<'a> Basis<'a> {
    pub(super) fn new(
        quantize: &Quantize<'a>,
        settings: &transform::Settings,
    ) -> Result<Self, PipelineError> {
        let source = &quantize.opened.model;
        if settings.is_identity() {
            return Ok(Self { source, transform: None, outline: source.clone() });
        }
        let windows = &quantize.calibration.windows;
        let windows = &windows[..windows.len().min(EVIDENCE_WINDOWS)];
        let aids = (quantize.team, quantize.progress);
        let mut evidence = None;
        if settings.needs_evidence() {
            let tokens = windows.iter().map(Vec::len).sum::<usize>();
            let blocks = source.spec.blocks.len();
            quantize.progress.start("rotate", (tokens * blocks) as u64, Unit::Tokens);
            evidence = Some(Evidence::collect(source, windows, aids)?);
            quantize.progress.finish();
        }
        let seeds = (quantize.seed, OUTLIER_SHARE);
        let transform = Transform::new(source, settings, seeds, evidence.as_ref())?;
        let mut weights = transform.carried(source)?;
        weights.raw.extend(transform.ends(source)?);
        let outline = Model::new(transform.config(&source.config), weights)?;
        Ok(Self { source, transform: Some(transform), outline })
    }

    /// The tensors of a block.
    pub(super) fn block(&self, block: usize) -> Result<Tensors, PipelineError> {
        if let Some(transform) = &self.transform {
            let tensors = transform.block(self.source, block)?.into_iter();
            return Ok(tensors
                .map(|(name, raw)| (name.clone(), self.narrowed(&name, raw)))
                .collect());
        }
        let inside = self.source.spec.tensors.iter().filter(|it| it.block == Some(block));
        let raw = &self.source.weights.raw;
        let stored = inside.filter_map(|it| Some((it.name.clone(), raw.get(&it.name)?.clone())));
        Ok(stored.collect())
    }
}

impl Basis<'_> {
    /// A vector in the type that it has in the source, where that holds its values exactly: gains
    /// that were folded are ones.
    fn narrowed(&self, name: &str, raw: RawTensor) -> RawTensor {
        let source = self.source.weights.raw.get(name).filter(|_| raw.shape.len() == 1);
        let Some((float, values)) = source.and_then(RawTensor::float_type).zip(raw.to_f32()) else {
            return raw;
        };
        let mut bytes = Vec::new();
        float.encode(&values, &mut bytes);
        let mut back = vec![0.0; values.len()];
        float.decode(&bytes, &mut back);
        if back != values {
            return raw;
        }
        RawTensor { dtype: float.dtype(), shape: raw.shape, bytes: Bytes::owned(bytes) }
    }
}

impl Quantize<'_> {
    /// Tries the coordinates on the first blocks, unless there is nothing to choose or the journal
    /// knows the outcome.
    pub(super) fn trials(
        &self,
        bases: &[transform::Settings],
        journal: &Journal<LayerReport>,
    ) -> Result<Vec<Trial>, PipelineError> {
        if bases.len() < 2 || self.settings.rounding() == CodeChoice::Nearest {
            return Ok(Vec::new());
        }
        if let Some(known) = journal.noted(TRIALS_FILE)? {
            return Ok(known);
        }
        let mut trials = Vec::new();
        for (at, transform) in bases.iter().enumerate() {
            let error = self.trial(&Basis::new(self, transform)?)?;
            trials.push(Trial { at, transform: transform.clone(), error });
        }
        journal.put_note(TRIALS_FILE, &trials)?;
        Ok(trials)
    }

    /// Rounds the first blocks in some coordinates.
    fn trial(&self, basis: &Basis<'_>) -> Result<f64, PipelineError> {
        let windows = &self.calibration.windows;
        let rounded = windows.len().div_ceil(2).min(TRIAL_WINDOWS);
        let windows = &windows[..windows.len().min(2 * rounded)];
        let settings = Settings { avg_bits: None, max_bytes: None, ..self.settings.clone() };
        let plan = quantize::plan(&basis.outline, &settings)?;
        let model = self.ends(basis, &plan)?;
        let mut streams = streams(basis, &model, windows)?;
        let kernels = Kernels::new();
        let walk = self.walk((&model.spec, &plan), rounded, &kernels);
        let blocks = model.spec.blocks.len().min(TRIAL_BLOCKS);
        self.progress.start("try", (blocks * streams.float.tokens()) as u64, Unit::Tokens);
        for b in 0..blocks {
            walk.block(b, basis.block(b)?, &mut streams)?;
        }
        self.progress.finish();
        // Windows that were not rounded on, or the only one there is.
        let measured = rounded.min(windows.len() - 1)..windows.len();
        Ok(difference(&streams.float, &streams.quantized, measured))
    }
}

/// Mean squared difference of tokens divided by their root mean squares.
fn difference(a: &HiddenStates, b: &HiddenStates, windows: std::ops::Range<usize>) -> f64 {
    let normalized = |row: ndarray::ArrayView1<'_, f32>| {
        let row = row.mapv(f64::from);
        let mean = row.mapv(|x| x * x).mean().unwrap_or(0.0);
        row / mean.sqrt().max(f64::MIN_POSITIVE)
    };
    let (mut sum, mut count) = (0.0, 0);
    for window in windows {
        let (a, b) = (a.load(window), b.load(window));
        for (a, b) in a.outer_iter().zip(b.outer_iter()) {
            let difference = normalized(a) - normalized(b);
            sum += difference.mapv(|x| x * x).sum();
            count += difference.len();
        }
    }
    sum / f64::from(u32::try_from(count.max(1)).unwrap_or(u32::MAX))
}
