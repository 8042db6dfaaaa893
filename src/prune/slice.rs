//! The tensors of a block with fewer units.
use super::{Kept, KeptHead, PruneError, Values};
use crate::{
    model::{Axis, Expert, Model, Part, Role, Space, TensorSpec, Tensors, WeightError},
    tensor::{Bytes, FloatType, RawTensor},
};
use ndarray::{Array1, Array2, ArrayView2, s};

/// Corrections of the gains of QK-norm for pairs that were cut: √(E of the mean square of the
/// kept channels / E of that of all channels) before the norm. The norm divides by the root mean
/// square of what it sees, so that without it (1) queries and keys keep their size on average only
/// if kept channels are like the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GainRatios {
    /// Of queries.
    pub q: f64,
    /// Of keys.
    pub k: f64,
}

impl Default for GainRatios {
    fn default() -> Self {
        Self { q: 1.0, k: 1.0 }
    }
}

/// The tensors of block `block` that `kept` leaves, under their names and in their float types.
///
/// Queries and keys keep the rows of the kept pairs, first halves before second halves; values
/// their channels or their map, of which W_o undoes the map. Engines scale attention scores by
/// 1/√head_dim, so that √(kept / width before) goes into the queries' weights and biases, or into
/// their gain where they are normalized. Tensors that nothing is cut from are the source's bytes;
/// where something is computed it is in float64, rounded to the stored type at the end.
pub fn slice_block(
    model: &Model,
    block: usize,
    kept: &Kept,
    ratios: GainRatios,
) -> Result<Tensors, PruneError> {
    let sizes = model.spec.blocks.get(block);
    let blocks = model.spec.blocks.len();
    let sizes = sizes.ok_or(PruneError::Blocks { expected: blocks, found: block + 1 })?;
    kept.check(block, sizes)?;
    let (before, after) = (sizes.head_dim, kept.kv_heads[0].pairs.len() * 2);
    let scale = if before == after { 1.0 } else { (after as f64 / before as f64).sqrt() };
    let slicer = Slicer { kept, head_dim: before, repeat: sizes.kv_repeat() };
    let mut tensors = Tensors::new();
    for spec in model.spec.tensors.iter().filter(|it| it.block == Some(block)) {
        let raw = stored(model, spec)?;
        let factor = match spec.role {
            Role::Q if !sizes.has_head_norms() => scale,
            Role::QNorm => scale * ratios.q,
            Role::KNorm => ratios.k,
            _ => 1.0,
        };
        tensors.insert(spec.name.clone(), slicer.slice(spec, &raw, factor)?);
    }
    Ok(tensors)
}

/// A float tensor of the declared shape.
fn stored(model: &Model, spec: &TensorSpec) -> Result<RawTensor, PruneError> {
    let name = || spec.name.clone();
    if model.weights.quantized.contains_key(&spec.name) {
        return Err(PruneError::Already { tensor: name() });
    }
    let raw = model.weights.raw.get(&spec.name);
    let raw = raw.ok_or_else(|| WeightError::Missing { name: name() })?;
    let expected = model.spec.shape(spec);
    if raw.shape != expected {
        return Err(PruneError::Shape { tensor: name(), expected, found: raw.shape.clone() });
    }
    Ok(raw.clone())
}

/// Which part of an axis stays.
enum Pick<'a> {
    All,
    Some(Vec<usize>),
    /// Values of these heads, some of which are mapped.
    Mapped(&'a [KeptHead]),
}

struct Slicer<'a> {
    kept: &'a Kept,
    head_dim: usize,
    /// Query heads per key/value head.
    repeat: usize,
}

impl<'a> Slicer<'a> {
    fn slice(
        &self,
        spec: &TensorSpec,
        raw: &RawTensor,
        factor: f64,
    ) -> Result<RawTensor, PruneError> {
        let type_error = || WeightError::Type { name: spec.name.clone(), found: raw.dtype };
        let float = raw.float_type().ok_or_else(type_error)?;
        let rows = self.pick(spec.output, spec.expert, raw.shape[0]);
        let columns = match spec.input {
            Some(axis) => self.pick(axis, spec.expert, raw.shape[1]),
            None => Pick::All,
        };
        let raw = match (rows, columns) {
            (Pick::Mapped(heads), _) => self.map_rows(raw, float, heads, spec.part),
            (_, Pick::Mapped(heads)) => self.map_columns(raw, float, heads),
            (rows, columns) => gather(raw, float, &rows, &columns),
        };
        Ok(scaled(raw, float, factor))
    }

    /// What stays of an axis of `len`.
    fn pick(&self, axis: Axis, expert: Option<Expert>, len: usize) -> Pick<'a> {
        let kept = self.kept;
        let picked: Vec<usize> = match axis.space {
            Space::AttnQk(_) => self.heads(axis.repeat, |head| self.channels(&head.pairs)),
            Space::QkHead(_) => self.channels(&kept.kv_heads[0].pairs),
            Space::AttnV(_) => {
                let mapped = |head: &KeptHead| matches!(head.values, Values::Map { .. });
                if kept.kv_heads.iter().any(mapped) {
                    return Pick::Mapped(&kept.kv_heads);
                }
                self.heads(axis.repeat, |head| match &head.values {
                    Values::Channels(channels) => channels.clone(),
                    Values::Map { .. } => Vec::new(),
                })
            }
            Space::Mlp(..) => kept.mlp.get(&expert).cloned().unwrap_or_default(),
            _ => return Pick::All,
        };
        let all = picked.len() == len && picked.iter().copied().eq(0..len);
        if all { Pick::All } else { Pick::Some(picked) }
    }

    /// Channels of pairs: first halves, then second halves.
    fn channels(&self, pairs: &[usize]) -> Vec<usize> {
        let second = pairs.iter().map(|pair| pair + self.head_dim / 2);
        pairs.iter().copied().chain(second).collect()
    }

    /// Indices along an axis that holds each key/value head `repeat` times.
    fn heads(&self, repeat: usize, of: impl Fn(&KeptHead) -> Vec<usize>) -> Vec<usize> {
        let mut indices = Vec::new();
        for head in &self.kept.kv_heads {
            let channels = of(head);
            for start in self.copies(head, repeat) {
                indices.extend(channels.iter().map(|channel| start + channel));
            }
        }
        indices
    }

    /// Where the kept copies of a key/value head start along an axis.
    fn copies(&self, head: &KeptHead, repeat: usize) -> Vec<usize> {
        let first = head.kv_head * repeat;
        let copies = if repeat == self.repeat { head.queries.as_slice() } else { &[0] };
        copies.iter().map(|copy| (first + copy) * self.head_dim).collect()
    }

    /// `down·W_v` per head, or `down·b_v`.
    fn map_rows(
        &self,
        raw: &RawTensor,
        float: FloatType,
        heads: &[KeptHead],
        part: Part,
    ) -> RawTensor {
        let columns = if part == Part::Bias { 1 } else { raw.shape[1] };
        let mut rows = 0;
        let mut values = Vec::new();
        for head in heads {
            let whole = decode(raw, float, head.kv_head * self.head_dim, self.head_dim, columns);
            let cut = match &head.values {
                Values::Channels(channels) => whole.select(ndarray::Axis(0), channels),
                Values::Map { down, .. } => down.dot(&whole),
            };
            rows += cut.nrows();
            values.extend(cut.iter().map(|x| *x as f32));
        }
        let mut shape = raw.shape.clone();
        shape[0] = rows;
        encode(shape, float, &values)
    }

    /// `W_o·up` per query head.
    fn map_columns(&self, raw: &RawTensor, float: FloatType, heads: &[KeptHead]) -> RawTensor {
        const BAND: usize = 256;
        let (rows, columns) = (raw.shape[0], raw.shape[1]);
        let width: usize = heads.iter().map(|head| head.queries.len() * head.values.width()).sum();
        let mut bytes = Vec::with_capacity(rows * width * float.size());
        for first in (0..rows).step_by(BAND) {
            let band = decode(raw, float, first, BAND.min(rows - first), columns);
            let cut = self.band(band.view(), heads, width);
            let values: Vec<f32> = cut.iter().map(|x| *x as f32).collect();
            float.encode(&values, &mut bytes);
        }
        RawTensor { dtype: raw.dtype, shape: vec![rows, width], bytes: Bytes::owned(bytes) }
    }

    fn band(&self, band: ArrayView2<'_, f64>, heads: &[KeptHead], width: usize) -> Array2<f64> {
        let mut cut = Array2::zeros((band.nrows(), width));
        let mut at = 0;
        for head in heads {
            for start in self.copies(head, self.repeat) {
                let whole = band.slice(s![.., start..start + self.head_dim]);
                let part = match &head.values {
                    Values::Channels(channels) => whole.select(ndarray::Axis(1), channels),
                    Values::Map { up, .. } => whole.dot(up),
                };
                cut.slice_mut(s![.., at..at + part.ncols()]).assign(&part);
                at += part.ncols();
            }
        }
        cut
    }
}

/// Rows and columns of a tensor, byte by byte.
fn gather(raw: &RawTensor, float: FloatType, rows: &Pick<'_>, columns: &Pick<'_>) -> RawTensor {
    let of = |pick: &Pick<'_>, len: usize| match pick {
        Pick::Some(indices) => indices.clone(),
        _ => (0..len).collect(),
    };
    if matches!((rows, columns), (Pick::All, Pick::All)) {
        return raw.clone();
    }
    let size = float.size();
    let stride = raw.shape.get(1).copied().unwrap_or(1);
    let rows = of(rows, raw.shape[0]);
    let whole_rows = matches!(columns, Pick::All);
    let columns = of(columns, stride);
    let mut bytes = Vec::with_capacity(rows.len() * columns.len() * size);
    for row in &rows {
        let row = &raw.bytes[row * stride * size..(row + 1) * stride * size];
        if whole_rows {
            bytes.extend_from_slice(row);
        } else {
            for column in &columns {
                bytes.extend_from_slice(&row[column * size..(column + 1) * size]);
            }
        }
    }
    let mut shape = vec![rows.len(), columns.len()];
    shape.truncate(raw.shape.len());
    RawTensor { dtype: raw.dtype, shape, bytes: Bytes::owned(bytes) }
}

/// `factor · x`; the same bytes for a factor of 1.
fn scaled(raw: RawTensor, float: FloatType, factor: f64) -> RawTensor {
    if factor.to_bits() == 1.0_f64.to_bits() {
        return raw;
    }
    let values: Array1<f32> = raw.to_f32().unwrap_or_default().into();
    let values = values.mapv(|x| (f64::from(x) * factor) as f32);
    encode(raw.shape, float, values.as_slice().unwrap_or_default())
}

/// Some rows of a tensor, `[rows, columns]`.
fn decode(
    raw: &RawTensor,
    float: FloatType,
    first: usize,
    rows: usize,
    columns: usize,
) -> Array2<f64> {
    let stride = columns * float.size();
    let mut values = vec![0.0; rows * columns];
    float.decode(&raw.bytes[first * stride..(first + rows) * stride], &mut values);
    let wide = values.into_iter().map(f64::from).collect();
    Array2::from_shape_vec((rows, columns), wide).expect("rows × columns values")
}

fn encode(shape: Vec<usize>, float: FloatType, values: &[f32]) -> RawTensor {
    let mut bytes = Vec::new();
    float.encode(values, &mut bytes);
    RawTensor { dtype: float.dtype(), shape, bytes: Bytes::owned(bytes) }
}
