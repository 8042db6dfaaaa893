//! The tensors of a rotated model.
use super::{Rotation, TransformError, rotation::product};
use crate::{
    linalg::Hadamard,
    model::{Axis, Expert, Model, Part, Role, Space, TensorSpec, WeightError},
    tensor::{Bytes, FloatType, RawTensor},
};
use ndarray::{Array1, Array2, s};
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// Rows of embeddings and heads that are in memory in float64 at a time.
pub(crate) const BAND: usize = 4096;

/// Hadamard matrices of the inputs of down projections, by block and expert.
pub(super) type Downs = BTreeMap<(usize, Option<Expert>), Arc<Hadamard>>;

/// The rotations of a model.
#[derive(Clone, Debug, Default)]
pub(super) struct Rotations {
    /// R1.
    pub(super) residual: Option<Rotation>,
    /// R2: `[block][kv_head]`; empty when values stay.
    pub(super) values: Vec<Vec<Rotation>>,
    /// R4 of each MLP.
    pub(super) down: Downs,
}

impl Rotations {
    /// A tensor of `model` in the new coordinates, computed in float64 and rounded to float32.
    pub(super) fn tensor(
        &self,
        model: &Model,
        spec: &TensorSpec,
    ) -> Result<RawTensor, TransformError> {
        let raw = stored(model, spec)?;
        if self.residual.is_some() && is_folded_gain(spec) {
            let identity = 1.0 - model.spec.gain_offset;
            return Ok(RawTensor::from_f32(raw.shape.clone(), &vec![identity; raw.len()]));
        }
        let columns = if spec.input.is_some() { raw.shape[1] } else { 1 };
        let rows = raw.len() / columns.max(1);
        let gain = self.gain(model, spec)?;
        let whole = self.turns(spec.output, Side::Rows);
        let band = if whole { rows.max(1) } else { BAND };
        let mut bytes = Vec::with_capacity(raw.len() * FloatType::F32.size());
        for first in (0..rows).step_by(band) {
            let values = band_of(spec, &raw, first..rows.min(first + band), columns)?;
            let turned: Vec<f32> =
                self.turned(spec, values, gain.as_ref()).iter().map(|x| *x as f32).collect();
            FloatType::F32.encode(&turned, &mut bytes);
        }
        Ok(RawTensor {
            dtype: FloatType::F32.dtype(),
            shape: raw.shape,
            bytes: Bytes::owned(bytes),
        })
    }

    /// `Rᵀ·diag(gain)·R`, what stands between the last norm and a tied head: with E the embedding,
    /// `(n·diag(gain))·Eᵀ = (n·R)·(Rᵀ·diag(gain)·R)·(E·R)ᵀ`.
    pub(super) fn correction(&self, model: &Model) -> Result<Array2<f64>, TransformError> {
        let spec = model.spec.find(None, Role::FinalNorm, None, Part::Weight);
        let gain = spec.map(|spec| gain_of(model, spec)).transpose()?.unwrap_or_default();
        let Some(rotation) = &self.residual else { return Ok(Array2::from_diag(&gain)) };
        let matrix = rotation.matrix();
        let scaled = &matrix * &gain.insert_axis(ndarray::Axis(1));
        Ok(product(matrix.t(), scaled.view()))
    }

    /// The embedding as a head of its own: `E·diag(gain)·R`.
    pub(super) fn untied(
        &self,
        model: &Model,
        head: &TensorSpec,
    ) -> Result<RawTensor, TransformError> {
        let embed = model.spec.find(None, Role::Embed, None, Part::Weight);
        let embed = embed.ok_or_else(|| WeightError::Missing { name: head.name.clone() })?;
        self.tensor(model, &TensorSpec { reads: head.reads, ..embed.clone() })
    }

    fn turned(
        &self,
        spec: &TensorSpec,
        mut x: Array2<f64>,
        gain: Option<&Array1<f64>>,
    ) -> Array2<f64> {
        if let Some(gain) = gain {
            x *= gain;
        }
        if let Some(axis) = spec.input {
            self.turn(axis, Side::Columns, &mut x);
        }
        if self.turns(spec.output, Side::Rows) {
            let mut turned = x.t().as_standard_layout().into_owned();
            self.turn(spec.output, Side::Rows, &mut turned);
            x = turned.t().as_standard_layout().into_owned();
        }
        x
    }

    /// Whether an axis changes.
    fn turns(&self, axis: Axis, side: Side) -> bool {
        match axis.space {
            Space::Residual => self.residual.is_some(),
            Space::AttnV(_) => !self.values.is_empty(),
            Space::Mlp(b, expert) => side == Side::Columns && self.down.contains_key(&(b, expert)),
            _ => false,
        }
    }

    /// Rotates the columns of `x`, which are an axis of a tensor.
    fn turn(&self, axis: Axis, side: Side, x: &mut Array2<f64>) {
        match axis.space {
            Space::Residual => {
                if let Some(rotation) = &self.residual {
                    rotation.rows(x);
                }
            }
            Space::AttnV(b) => {
                let heads = self.values.get(b).into_iter().flatten();
                let copies = heads.flat_map(|head| std::iter::repeat_n(head, axis.repeat));
                let mut at = 0;
                for rotation in copies {
                    let mut columns = x.slice_mut(s![.., at..at + rotation.width()]);
                    let mut turned = columns.to_owned();
                    rotation.rows(&mut turned);
                    columns.assign(&turned);
                    at += rotation.width();
                }
            }
            Space::Mlp(b, expert) if side == Side::Columns => {
                if let Some(matrix) = self.down.get(&(b, expert)) {
                    let signs = vec![1.0; matrix.order()];
                    Rotation::Hadamard { signs, matrix: matrix.clone() }.rows(x);
                }
            }
            _ => {}
        }
    }

    /// The gain of the norm that a tensor reads, where it is folded.
    fn gain(
        &self,
        model: &Model,
        spec: &TensorSpec,
    ) -> Result<Option<Array1<f64>>, TransformError> {
        let norm = spec.reads.filter(|_| self.residual.is_some() && spec.input.is_some());
        let Some(norm) = norm else { return Ok(None) };
        let Some(norm) = model.spec.find(spec.block, norm, None, Part::Weight) else {
            return Ok(None);
        };
        gain_of(model, norm).map(Some)
    }
}

/// Which axis of a matrix.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Rows,
    Columns,
}

/// Whether a tensor is a gain over the residual stream.
fn is_folded_gain(spec: &TensorSpec) -> bool {
    spec.output.space == Space::Residual && spec.input.is_none() && spec.part == Part::Weight
}

/// A float tensor of the declared shape.
fn stored(model: &Model, spec: &TensorSpec) -> Result<RawTensor, TransformError> {
    let name = || spec.name.clone();
    if model.weights.quantized.contains_key(&spec.name) {
        return Err(TransformError::Quantized { tensor: name() });
    }
    let raw = model.weights.raw.get(&spec.name);
    let raw = raw.ok_or_else(|| WeightError::Missing { name: name() })?;
    let expected = model.spec.shape(spec);
    if raw.shape != expected {
        return Err(TransformError::Shape { tensor: name(), expected, found: raw.shape.clone() });
    }
    Ok(raw.clone())
}

/// Some rows of a tensor, `[rows, columns]`. What is not finite would spread over all channels.
fn band_of(
    spec: &TensorSpec,
    raw: &RawTensor,
    rows: Range<usize>,
    columns: usize,
) -> Result<Array2<f64>, TransformError> {
    let tensor = || spec.name.clone();
    let float = raw.float_type();
    let float = float.ok_or_else(|| WeightError::Type { name: tensor(), found: raw.dtype })?;
    let stride = columns * float.size();
    let mut values = vec![0.0; rows.len() * columns];
    float.decode(&raw.bytes[rows.start * stride..rows.end * stride], &mut values);
    if let Some(at) = values.iter().position(|x| !x.is_finite()) {
        let (row, column) = (rows.start + at / columns, at % columns);
        return Err(TransformError::NotFinite { tensor: tensor(), row, column, found: values[at] });
    }
    let values = values.into_iter().map(f64::from).collect();
    Ok(Array2::from_shape_vec((rows.len(), columns), values).expect("rows × columns values"))
}

fn floats(spec: &TensorSpec, raw: &RawTensor) -> Result<Vec<f32>, TransformError> {
    let wrong = || WeightError::Type { name: spec.name.clone(), found: raw.dtype };
    Ok(raw.to_f32().ok_or_else(wrong)?)
}

/// What a norm multiplies by.
fn gain_of(model: &Model, norm: &TensorSpec) -> Result<Array1<f64>, TransformError> {
    let offset = f64::from(model.spec.gain_offset);
    let stored = floats(norm, &stored(model, norm)?)?;
    Ok(stored.into_iter().map(|gain| f64::from(gain) + offset).collect())
}
