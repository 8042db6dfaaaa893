//! The bytes of tensors, piece by piece.
use super::{
    arch::halved_row,
    error::{ExportError, Unsupported},
    write::Entry,
};
use crate::{
    checkpoint::{OutputFile, find_nonfinite},
    model::{Model, Weight},
    progress::Progress,
    scheme::ggml::encode_row,
    tensor::{Bytes, FloatType, RawTensor},
};
use sha2::{Digest, Sha256};

/// Weights that are converted at a time.
const CHUNK: usize = 1 << 20;

/// Where the values of a tensor, or of one expert of a stack, come from.
#[derive(Debug)]
pub(super) enum Source<'a> {
    /// A tensor of the model with its type and the type that is written; with the width of the
    /// heads whose rows change places.
    Stored { tensor: &'a RawTensor, own: FloatType, float: FloatType, heads: Option<usize> },
    /// A quantized weight of the model by name, alike.
    Codes { name: &'a str, heads: Option<usize> },
    /// Values that the metadata implies.
    Computed(Vec<f32>),
}

/// Where the bytes of a tensor go.
pub(super) struct Sink<'a> {
    pub(super) file: &'a mut OutputFile,
    pub(super) hash: Sha256,
    pub(super) progress: &'a dyn Progress,
}

impl Sink<'_> {
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
            Self::Stored { tensor, own, float, heads } => {
                write_floats((entry, at), (tensor, *own, *heads), *float, sink)?;
                tensor.bytes.release();
                Ok(())
            }
            Self::Codes { name, heads } => write_codes(model, (name, *heads), sink),
        }
    }
}

/// Writes the blocks of a quantized weight.
fn write_codes(
    model: &Model,
    (name, heads): (&str, Option<usize>),
    sink: &mut Sink<'_>,
) -> Result<(), ExportError> {
    let Weight::Quantized { tensor, .. } = model.weights.get(name)? else {
        return Err(Unsupported::Outliers { tensor: name.to_owned() }.into());
    };
    let [rows, columns] = tensor.shape;
    let per_chunk = (CHUNK / columns.max(1)).max(1);
    for first in (0..rows).step_by(per_chunk) {
        let mut bytes = Vec::new();
        for row in first..(first + per_chunk).min(rows) {
            encode_row(&tensor, heads.map_or(row, |head| halved_row(row, head)), &mut bytes);
        }
        sink.put(&bytes)?;
    }
    model.weights.release(name);
    Ok(())
}

fn write_floats(
    (entry, at): (&Entry, usize),
    (source, own, heads): (&RawTensor, FloatType, Option<usize>),
    float: FloatType,
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
        }
        let mut bytes = Vec::new();
        float.encode(values, &mut bytes);
        if let Some(mut found) = find_nonfinite(&entry.name, &raw, &bytes, first) {
            if entry.shape.len() > shape.len() {
                found.position.insert(0, at);
            }
            let hint = match float {
                FloatType::F16 => "float16 ends at 65504; try --dtype bf16 or f32",
                _ => "no engine computes with such a weight; is the checkpoint damaged?",
            };
            return Err(ExportError::NonFinite { found, hint });
        }
        sink.put(&bytes)?;
    }
    Ok(())
}
