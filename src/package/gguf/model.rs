//! A GGUF file as a model in memory, ready to run: codes stay codes.
//!
//! Matrices in `Q4_0`, `Q8_0` and `MXFP4` become int4, int8 and mxfp4 weights in groups of 32 with the
//! file's own codes and scales, and so do those in `Q4_1` whose blocks all begin at a zero point; plain
//! floats stay what they are; every other block becomes float32.
use super::{
    arch::interleaved_row,
    error::GgufError,
    file::Gguf,
    import::{Import, Source},
};
use crate::{
    checkpoint::Folder,
    model::WeightStore,
    scheme::{Activations, QTensor, TensorScheme, WeightGrid, ggml},
    tensor::{Bytes, FloatType, RawTensor},
};

/// The files that a Hugging Face folder of the model would have, and its weights.
pub(super) fn model(gguf: &Gguf) -> Result<(Folder, WeightStore), GgufError> {
    let import = Import::plan(gguf, FloatType::F32)?;
    let folder = Folder::in_memory(&gguf.file, import.files());
    let mut weights = WeightStore::default();
    for source in import.sources() {
        let info = &source.info;
        if let Some((grid, tensor)) = codes(source) {
            let scheme = TensorScheme {
                weights: grid,
                scale_type: FloatType::F16,
                activations: Activations::Float,
                format: grid.format(Activations::Float),
                outliers: 0,
            };
            weights.quantize(&source.name, scheme, &tensor.into());
        } else {
            weights.raw.insert(source.name.clone(), floats(source));
        }
        info.bytes.release();
    }
    Ok((folder, weights))
}

/// The row of the file that is a row of the model.
fn file_row(source: &Source, row: usize) -> usize {
    source.interleaved.map_or(row, |head| interleaved_row(row, head))
}

/// The weight with the file's codes, where its blocks are codes of a grid.
fn codes(source: &Source) -> Option<(WeightGrid, QTensor)> {
    let (info, grid) = (&source.info, WeightGrid::of_blocks(source.info.format)?);
    let [rows, columns] = *info.shape.as_slice() else { return None };
    grid.blocks(columns)?;
    let stride = info.bytes.len() / rows.max(1);
    let row = |row| &info.bytes[file_row(source, row) * stride..][..stride];
    Some((grid, grid.decode_blocks([rows, columns], &row)?))
}

fn floats(source: &Source) -> RawTensor {
    let (info, shape) = (&source.info, source.info.shape.clone());
    let plain = [FloatType::F32, FloatType::F16, FloatType::Bf16]
        .into_iter()
        .find(|float| ggml::float_format(*float).id() == info.format.id());
    if let (Some(float), None, true) = (plain, source.interleaved, source.offset == 0.0) {
        return RawTensor { dtype: float.dtype(), shape, bytes: info.bytes.clone() };
    }
    let rows = shape.first().copied().unwrap_or(1);
    let count: usize = shape.iter().product();
    let (width, stride) = (count / rows.max(1), info.bytes.len() / rows.max(1));
    let mut values = vec![0.0; count];
    for (row, out) in values.chunks_mut(width.max(1)).enumerate() {
        info.format.decode(&info.bytes[file_row(source, row) * stride..][..stride], out);
        for x in out.iter_mut() {
            *x -= source.offset;
        }
    }
    let float = plain.unwrap_or(FloatType::F32);
    let mut bytes = Vec::new();
    float.encode(&values, &mut bytes);
    RawTensor { dtype: float.dtype(), shape, bytes: Bytes::owned(bytes) }
}
