//! In which coordinates a model is quantized.
use super::PipelineError;
use crate::{
    linalg::Team,
    model::{Model, ModelSpec, Tensors},
    progress::{Progress, Unit},
    quantize::{CodeChoice, Effort, GroupSize, Settings},
    scheme::Activations,
    tensor::{Bytes, RawTensor},
    transform::{self, Evidence, Rotate, Transform},
};

/// Windows of calibration text that rotations are made of, at most.
const EVIDENCE_WINDOWS: usize = 32;
/// Share of the directions that `resq` keeps apart.
const OUTLIER_SHARE: f64 = 0.125;

/// The coordinates that are tried: what is asked for, or what the preset offers. Rotations help
/// where a scale covers a whole row and where activations are integers, and cost a matrix before
/// a tied head; small groups may do without. A model with norms behind its halves has a stream that
/// cannot be turned: nothing is offered.
pub(super) fn bases(
    spec: &ModelSpec,
    settings: &Settings,
    wanted: &transform::Settings,
) -> Vec<transform::Settings> {
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
        _ if spec.post_norm().is_some() => vec![none],
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
    let bases = bases(spec, settings, transform);
    bases.iter().map(|basis| Transform::planned(basis, spec)).collect()
}

/// Whether a quantization takes a tensor at a time, or goes block by block over the whole model.
pub fn is_streamed(spec: &ModelSpec, settings: &Settings, transform: &transform::Settings) -> bool {
    let turned = bases(spec, settings, transform).iter().any(|it| !it.is_identity());
    let searched = settings.rounding() != CodeChoice::Nearest || settings.has_budget();
    !(searched || turned || settings.preset == Effort::VendorStandard)
}

/// Whether a quantization needs text to calibrate on.
pub fn needs_text(spec: &ModelSpec, settings: &Settings, transform: &transform::Settings) -> bool {
    settings.rounding() == CodeChoice::Adaptive
        || bases(spec, settings, transform).iter().any(transform::Settings::needs_evidence)
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
    /// Turns `source` by `settings`; `windows` are what rotations may be made of.
    pub(super) fn new(
        (source, settings): (&'a Model, &transform::Settings),
        (windows, seed): (&[Vec<u32>], u64),
        aids: (&Team, &dyn Progress),
    ) -> Result<Self, PipelineError> {
        if settings.is_identity() {
            return Ok(Self { source, transform: None, outline: source.clone() });
        }
        let windows = &windows[..windows.len().min(EVIDENCE_WINDOWS)];
        let mut evidence = None;
        if settings.needs_evidence() {
            let tokens = windows.iter().map(Vec::len).sum::<usize>();
            let blocks = source.spec.blocks.len();
            aids.1.start("rotate", (tokens * blocks) as u64, Unit::Tokens);
            evidence = Some(Evidence::collect(source, windows, aids)?);
            aids.1.finish();
        }
        let seeds = (seed, OUTLIER_SHARE);
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
