//! In which coordinates a model is quantized.
use super::PipelineError;
use crate::{
    linalg::Team,
    model::{Model, Tensors},
    progress::{Progress, Unit},
    tensor::{Bytes, RawTensor},
    transform::{self, Evidence, Transform},
};

/// Windows of calibration text that rotations are made of, at most.
const EVIDENCE_WINDOWS: usize = 32;
/// Share of the directions that `resq` keeps apart.
const OUTLIER_SHARE: f64 = 0.125;

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
