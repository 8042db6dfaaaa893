//! The bytes of tensors, piece by piece.
use super::{
    arch::halved_row,
    ends::RoundedTensor,
    error::{ExportError, Unsupported},
    write::Entry,
};
use crate::{
    checkpoint::{NonFinite, OutputFile, find_nonfinite, hex},
    model::{Model, Weight},
    package::trust::{RowHash, row_hash, values_hash},
    progress::Progress,
    scheme::ggml::{BlockFormat, Rounding},
    tensor::{Bytes, FloatType, RawTensor},
};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Weights that are converted at a time.
const CHUNK: usize = 1 << 20;

/// Where the values of a tensor, or of one expert of a stack, come from.
#[derive(Debug)]
pub(super) enum Source<'a> {
    /// A tensor of the model with its type and the type that is written; with the width of the
    /// heads whose rows change places, and what is added to the values.
    Stored {
        tensor: &'a RawTensor,
        own: FloatType,
        float: FloatType,
        heads: Option<usize>,
        offset: f32,
    },
    /// A quantized weight of the model by name, alike.
    Codes { name: &'a str, heads: Option<usize> },
    /// A weight of the model by name that is rounded to blocks.
    Rounded { name: &'a str, rounding: Rounding },
    /// Values that the metadata implies.
    Computed(Vec<f32>),
}

/// Hashes of a tensor as the metadata says them.
#[derive(Default)]
pub(super) struct Hashes {
    pub(super) bytes: String,
    /// Empty of plain floats.
    pub(super) values: String,
}

/// Where the bytes of a tensor go.
pub(super) struct Sink<'a> {
    pub(super) file: &'a mut OutputFile,
    pub(super) progress: &'a dyn Progress,
    hash: Sha256,
    rows: Vec<RowHash>,
    rounded: Vec<RoundedTensor>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(file: &'a mut OutputFile, progress: &'a dyn Progress) -> Self {
        Self { file, progress, hash: Sha256::new(), rows: Vec::new(), rounded: Vec::new() }
    }

    /// The hashes of what was put since the last call.
    pub(super) fn hashes(&mut self) -> Hashes {
        let bytes = hex(&self.hash.finalize_reset());
        let rows = std::mem::take(&mut self.rows);
        let values = if rows.is_empty() { String::new() } else { values_hash(&rows) };
        Hashes { bytes, values }
    }

    /// Every tensor that was rounded.
    pub(super) fn rounded(self) -> Vec<RoundedTensor> {
        self.rounded
    }

    /// Puts whole rows of blocks.
    fn put_rows(
        &mut self,
        format: &dyn BlockFormat,
        columns: usize,
        bytes: &[u8],
    ) -> Result<(), ExportError> {
        let stride = format.bytes(columns).unwrap_or(0).max(1);
        let hash = |row: &[u8]| {
            let mut values = vec![0.0; columns];
            format.decode(row, &mut values);
            row_hash(&values)
        };
        self.rows.par_extend(bytes.par_chunks(stride).map(hash));
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.hash.update(bytes);
        self.progress.advance(bytes.len() as u64);
        Ok(self.file.append(bytes)?)
    }
}

impl Source<'_> {
    /// Writes the values as piece `at` of a tensor of the file.
    pub(super) fn write(
        &self,
        model: &Model,
        (entry, at): (&Entry, usize),
        sink: &mut Sink<'_>,
    ) -> Result<(), ExportError> {
        match self {
            Self::Computed(values) => {
                let mut bytes = Vec::new();
                FloatType::F32.encode(values, &mut bytes);
                sink.put(&bytes)
            }
            Self::Stored { tensor, own, float, heads, offset } => {
                let source = (*tensor, *own, *heads);
                write_floats((entry, at), source, (*float, *offset), sink)?;
                tensor.bytes.release();
                Ok(())
            }
            Self::Codes { name, heads } => write_codes(model, (name, *heads), entry.format, sink),
            Self::Rounded { name, rounding } => write_rounded(model, name, *rounding, sink),
        }
    }
}

/// Writes the blocks of a quantized weight.
fn write_codes(
    model: &Model,
    (name, heads): (&str, Option<usize>),
    format: &dyn BlockFormat,
    sink: &mut Sink<'_>,
) -> Result<(), ExportError> {
    let scheme = model.weights.quantized.get(name).map(|(scheme, _)| scheme.weights);
    let (Some(grid), Weight::Quantized { tensor, .. }) = (scheme, model.weights.get(name)?) else {
        return Err(Unsupported::Outliers { tensor: name.to_owned() }.into());
    };
    let [rows, columns] = tensor.shape;
    let per_chunk = (CHUNK / columns.max(1)).max(1);
    for first in (0..rows).step_by(per_chunk) {
        let mut bytes = Vec::new();
        for row in first..(first + per_chunk).min(rows) {
            let row = heads.map_or(row, |head| halved_row(row, head));
            grid.encode_blocks(&tensor, row, &mut bytes);
        }
        sink.put_rows(format, columns, &bytes)?;
    }
    model.weights.release(name);
    Ok(())
}

/// Rounds a weight, a piece at a time; what that changed is kept.
fn write_rounded(
    model: &Model,
    name: &str,
    rounding: Rounding,
    sink: &mut Sink<'_>,
) -> Result<(), ExportError> {
    let weight = model.weights.get(name)?;
    let (rows, columns) = (weight.shape()[0], weight.shape()[1]);
    let per_chunk = (CHUNK / columns.max(1)).max(1);
    let (mut far, mut all) = (0.0, 0.0);
    for first in (0..rows).step_by(per_chunk) {
        let chunk = first..(first + per_chunk).min(rows);
        let rounded: Vec<(Vec<u8>, [f64; 2])> =
            chunk.into_par_iter().map(|row| round_row(&weight, row, rounding)).collect();
        for (at, (_, [row_far, row_all])) in rounded.iter().enumerate() {
            if !row_all.is_finite() {
                return Err(nonfinite(&weight, (name, first + at), columns));
            }
            if !row_far.is_finite() {
                return Err(ExportError::Scale { tensor: name.to_owned() });
            }
            (far, all) = (far + row_far, all + row_all);
        }
        let bytes: Vec<u8> = rounded.into_iter().flat_map(|(bytes, _)| bytes).collect();
        sink.put_rows(rounding.format, columns, &bytes)?;
    }
    sink.rounded.push(RoundedTensor {
        name: name.to_owned(),
        format: rounding.format.name(),
        twice: !matches!(weight, Weight::Dense(_)),
        error: if all > 0.0 { (far / all).sqrt() } else { 0.0 },
    });
    model.weights.release(name);
    Ok(())
}

/// The blocks of a row, `Σ(w − rounded)²` and `Σw²`.
fn round_row(weight: &Weight, row: usize, rounding: Rounding) -> (Vec<u8>, [f64; 2]) {
    let mut values = vec![0.0; weight.shape()[1]];
    weight.row(row, &mut values);
    let mut bytes = Vec::new();
    rounding.round(&values, &mut bytes);
    let mut back = vec![0.0; values.len()];
    rounding.format.decode(&bytes, &mut back);
    let far = values.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (bytes, [far, values.iter().map(|w| f64::from(*w).powi(2)).sum()])
}

fn nonfinite(weight: &Weight, (name, row): (&str, usize), columns: usize) -> ExportError {
    let mut values = vec![0.0; columns];
    weight.row(row, &mut values);
    let at = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
    let (tensor, position, value) = (name.to_owned(), vec![row, at], values[at]);
    ExportError::NonFinite { found: NonFinite { tensor, position, value }, hint: DAMAGED }
}

/// What to do about a number that is none.
const DAMAGED: &str = "no engine computes with such a weight; is the checkpoint damaged?";

fn write_floats(
    (entry, at): (&Entry, usize),
    (source, own, heads): (&RawTensor, FloatType, Option<usize>),
    (float, offset): (FloatType, f32),
    sink: &mut Sink<'_>,
) -> Result<(), ExportError> {
    // A gain or bias is many rows of one.
    let [rows, width] = match source.shape.as_slice() {
        [rows, width] => [*rows, *width],
        other => [other.iter().product(), 1],
    };
    let shape = source.shape.clone();
    let raw = RawTensor { dtype: float.dtype(), shape: shape.clone(), bytes: Bytes::fixed(&[]) };
    let stride = width * own.size();
    let per_chunk = (CHUNK / width.max(1)).max(1);
    let mut values = vec![0.0; per_chunk.min(rows) * width];
    for first in (0..rows).step_by(per_chunk) {
        let count = per_chunk.min(rows - first);
        let values = &mut values[..count * width];
        for (i, out) in values.chunks_exact_mut(width.max(1)).enumerate() {
            let row = heads.map_or(first + i, |head| halved_row(first + i, head));
            own.decode(&source.bytes[row * stride..], out);
            if offset != 0.0 {
                for x in out.iter_mut() {
                    *x += offset;
                }
            }
        }
        let mut bytes = Vec::new();
        float.encode(values, &mut bytes);
        if let Some(mut found) = find_nonfinite(&entry.name, &raw, &bytes, first) {
            if entry.shape.len() > shape.len() {
                found.position.insert(0, at);
            }
            let hint = match float {
                FloatType::F16 => "float16 ends at 65504; try --dtype bf16 or f32",
                _ => DAMAGED,
            };
            return Err(ExportError::NonFinite { found, hint });
        }
        sink.put(&bytes)?;
    }
    Ok(())
}
