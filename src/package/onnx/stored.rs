//! Tensors of a graph and where their bytes come from.
use super::{OnnxError, proto::DataType};
use crate::{
    linalg::Hadamard,
    model::{Model, Rope, Weight},
    scheme::QTensor,
    tensor::{FloatType, RawTensor},
};

/// Values that are converted at a time.
const CHUNK: usize = 1 << 20;

/// A tensor of the graph.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    pub(super) name: String,
    pub(super) kind: DataType,
    pub(super) shape: Vec<usize>,
    pub(super) source: Source<'a>,
}

/// Where the bytes come from.
#[derive(Clone, Debug)]
pub(super) enum Source<'a> {
    /// These.
    Bytes(Vec<u8>),
    /// The values of a weight.
    Values { name: &'a str, turned: bool, float: FloatType },
    /// Codes of a quantized weight.
    Codes { name: &'a str, piece: Piece, turned: bool },
    /// Its scales.
    Scales { name: &'a str, piece: Piece, turned: bool },
    /// Codes from 0 on as `MatMulNBits` takes them, in the order of `[out, in]`; those of 4 bits two to a byte.
    Unsigned { name: &'a str },
    /// Scales in that order, each so many times.
    Repeated { name: &'a str, times: usize },
    /// Its zero points.
    ZeroPoints { name: &'a str, piece: Piece, turned: bool },
    /// Cosines or sines `[positions, pairs]` of a head width at a length of the text, as a block turns.
    Rotary { sine: bool, head_dim: usize, tokens: usize, block: usize },
    /// The matrix that rows are multiplied by.
    Hadamard(usize),
}

/// Which grid of a weight with outlier columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The only one, or that of most columns.
    Base,
    /// That of the outliers.
    Outliers,
}

/// Takes bytes one after another.
pub(super) type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), OnnxError> + 'a;

impl Stored<'_> {
    /// Bytes in the file.
    pub(super) fn bytes(&self) -> usize {
        self.kind.bytes(&self.shape).unwrap_or(usize::MAX)
    }

    /// Gives out the bytes: one weight, and what is made of it, in memory at a time.
    pub(super) fn write(&self, model: &Model, sink: &mut Sink<'_>) -> Result<(), OnnxError> {
        match &self.source {
            Source::Bytes(bytes) => sink(bytes),
            Source::Values { name, turned, float } => match model.weights.get(name)? {
                Weight::Dense(raw) => {
                    let done = dense(&raw, (name, *turned, *float), sink);
                    raw.bytes.release();
                    done
                }
                weight => {
                    let mut values = weight.to_f32();
                    if let (true, &[rows, _]) = (*turned, weight.shape()) {
                        values = turn(&values, rows);
                    }
                    values.chunks(CHUNK).try_for_each(|it| put(it, (name, *float), sink))
                }
            },
            Source::Codes { name, piece, turned } => {
                let tensor = quantized(model, name, *piece)?;
                let codes = oriented(tensor.codes, tensor.shape[0], *turned);
                sink(&packed(&codes, self.kind))
            }
            Source::Scales { name, piece, turned } => {
                let tensor = quantized(model, name, *piece)?;
                let scales = oriented(tensor.scales, tensor.shape[0], *turned);
                put(&scales, (name, FloatType::F32), sink)
            }
            Source::Unsigned { name } => {
                let tensor = quantized(model, name, Piece::Base)?;
                let half = 1_i16 << (tensor.scheme.bits - 1);
                let code = |code: &i8| (i16::from(*code) + half) as u8;
                if tensor.scheme.bits != 4 {
                    return sink(&tensor.codes.iter().map(code).collect::<Vec<u8>>());
                }
                let pair = |pair: &[i8]| code(&pair[0]) | pair.get(1).map_or(0, code) << 4;
                sink(&tensor.codes.chunks(2).map(pair).collect::<Vec<u8>>())
            }
            Source::Repeated { name, times } => {
                let scales = quantized(model, name, Piece::Base)?.scales;
                let repeated = scales.iter().flat_map(|it| std::iter::repeat_n(*it, *times));
                put(&repeated.collect::<Vec<f32>>(), (name, FloatType::F32), sink)
            }
            Source::ZeroPoints { name, piece, turned } => {
                let tensor = quantized(model, name, *piece)?;
                let zeros = oriented(tensor.zero_points, tensor.shape[0], *turned);
                sink(&packed(&zeros, self.kind))
            }
            Source::Rotary { sine, head_dim, tokens, block } => {
                let rope = model.spec.rope_of(*block);
                rotary(rope, (*sine, *head_dim, *tokens), self.shape[0], sink)
            }
            Source::Hadamard(width) => hadamard(*width, sink),
        }
    }
}

/// A quantized weight, or one grid of it.
pub(super) fn quantized(model: &Model, name: &str, piece: Piece) -> Result<QTensor, OnnxError> {
    let tensor = match (model.weights.get(name)?, piece) {
        (Weight::Quantized { tensor, .. }, Piece::Base) => tensor,
        (Weight::Split { tensor, .. }, Piece::Base) => tensor.base,
        (Weight::Split { tensor, .. }, Piece::Outliers) => tensor.outliers,
        (Weight::Quantized { .. }, Piece::Outliers) | (Weight::Dense(_), _) => {
            return Err(OnnxError::Form { what: format!("the codes of `{name}`") });
        }
    };
    model.weights.release(name);
    Ok(tensor)
}

/// Rows as columns: `[rows, n]` becomes `[n, rows]`.
pub(super) fn turn<T: Copy>(values: &[T], rows: usize) -> Vec<T> {
    let columns = values.len() / rows.max(1);
    let mut turned = Vec::with_capacity(values.len());
    for column in 0..columns {
        turned.extend(values.iter().skip(column).step_by(columns.max(1)).copied());
    }
    turned
}

fn oriented<T: Copy>(values: Vec<T>, rows: usize, turned: bool) -> Vec<T> {
    if turned { turn(&values, rows) } else { values }
}

/// Codes as bytes; int4 ones two to a byte, the first in the low half.
fn packed(codes: &[i8], kind: DataType) -> Vec<u8> {
    if kind != DataType::Int4 {
        return codes.iter().map(|code| *code as u8).collect();
    }
    let nibble = |code: i8| code as u8 & 15;
    let pair = |pair: &[i8]| nibble(pair[0]) | pair.get(1).map_or(0, |code| nibble(*code) << 4);
    codes.chunks(2).map(pair).collect()
}

/// The inverse of [`packed`], of `count` codes.
pub(super) fn unpacked(bytes: &[u8], kind: DataType, count: usize) -> Vec<i8> {
    if kind != DataType::Int4 {
        return bytes.iter().map(|byte| *byte as i8).collect();
    }
    let halves = bytes.iter().flat_map(|byte| [(*byte << 4) as i8 >> 4, *byte as i8 >> 4]);
    halves.take(count).collect()
}

/// Floats in a type, finite ones only.
fn put(
    values: &[f32],
    (name, float): (&str, FloatType),
    sink: &mut Sink<'_>,
) -> Result<(), OnnxError> {
    let mut bytes = Vec::with_capacity(values.len() * float.size());
    float.encode(values, &mut bytes);
    let mut stored = vec![0.0; values.len()];
    float.decode(&bytes, &mut stored);
    if let Some(at) = stored.iter().position(|x| !x.is_finite()) {
        let value = values[at];
        return Err(OnnxError::NonFinite { tensor: name.to_owned(), value });
    }
    sink(&bytes)
}

/// A stored float tensor, some columns at a time where it is turned.
fn dense(
    raw: &RawTensor,
    (name, turned, float): (&str, bool, FloatType),
    sink: &mut Sink<'_>,
) -> Result<(), OnnxError> {
    let wrong = || crate::model::WeightError::Type { name: name.to_owned(), found: raw.dtype };
    let own = raw.float_type().ok_or_else(wrong)?;
    let &[rows, columns] = raw.shape.as_slice() else {
        let values = raw.to_f32().unwrap_or_default();
        return put(&values, (name, float), sink);
    };
    if !turned {
        let mut values = Vec::new();
        for bytes in raw.bytes.chunks(CHUNK * own.size()) {
            values.resize(bytes.len() / own.size(), 0.0);
            own.decode(bytes, &mut values);
            put(&values, (name, float), sink)?;
        }
        return Ok(());
    }
    let per_chunk = (CHUNK / rows.max(1)).max(16).min(columns);
    for first in (0..columns).step_by(per_chunk.max(1)) {
        let count = per_chunk.min(columns - first);
        let mut values = vec![0.0; rows * count];
        for (row, out) in values.chunks_mut(count).enumerate() {
            let at = (row * columns + first) * own.size();
            own.decode(&raw.bytes[at..at + count * own.size()], out);
        }
        put(&turn(&values, rows), (name, float), sink)?;
    }
    Ok(())
}

/// Cosines or sines of the angles, which are float64.
fn rotary(
    rope: &Rope,
    (sine, head_dim, tokens): (bool, usize, usize),
    positions: usize,
    sink: &mut Sink<'_>,
) -> Result<(), OnnxError> {
    let (of, factor) = (rope.frequencies(head_dim, tokens), rope.attention_factor());
    let side = if sine { f64::sin } else { f64::cos };
    for position in 0..positions {
        let row = of.iter().map(|of| (side(position as f64 * of) * factor) as f32);
        put(&row.collect::<Vec<_>>(), ("rotary", FloatType::F32), sink)?;
    }
    Ok(())
}

fn hadamard(width: usize, sink: &mut Sink<'_>) -> Result<(), OnnxError> {
    let form = |_| OnnxError::Form { what: format!("the Hadamard matrix of {width}") };
    let matrix = Hadamard::new(width).map_err(form)?;
    for at in 0..width {
        let mut row = vec![0.0; width];
        row[at] = 1.0;
        matrix.apply(&mut row);
        put(&row, ("hadamard", FloatType::F32), sink)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_two_to_a_byte_and_back() {
        let codes = [-8, 7, -1];
        assert_eq!(packed(&codes, DataType::Int4), [0x78, 0x0f]);
        assert_eq!(unpacked(&[0x78, 0x0f], DataType::Int4, 3), codes);
        assert_eq!(unpacked(&packed(&codes, DataType::Int8), DataType::Int8, 3), codes);
    }

    #[test]
    fn rows_become_columns() {
        assert_eq!(turn(&[1, 2, 3, 4, 5, 6], 2), [1, 4, 2, 5, 3, 6]);
        assert_eq!(turn(&turn(&[1, 2, 3, 4, 5, 6], 2), 3), [1, 2, 3, 4, 5, 6]);
    }
}
