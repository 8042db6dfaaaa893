//! Checkpoints with E4M3 weights and float scales of blocks (`quant_method` `fp8`, the form of
//! Qwen3-FP8 and DeepSeek), read as the float checkpoints that transformers makes of them: code ×
//! scale in float32, rounded to the config's `dtype`. All of it is in memory.
use super::StoredError;
use crate::{
    checkpoint::Tensors,
    tensor::{Bytes, Dtype, E4M3, FloatType, RawTensor},
};
use rayon::prelude::*;
use serde_json::Value;

/// `quant_method` of these checkpoints.
pub(super) const METHOD: &str = "fp8";
/// What the name of a weight's scales ends in.
const SCALES: &str = "_scale_inv";
/// Scales of activations, which float weights have no use for.
const ACTIVATIONS: &str = ".activation_scale";
/// Keys that change nothing in how a weight is decoded: types and shapes of tensors tell.
const TOLD_BY_TENSORS: &[&str] = &[
    "quant_method",
    "activation_scheme",
    "modules_to_not_convert",
    "modules_to_convert",
    "ignored_layers",
    "scale_fmt",
    "dequantize",
];
/// Values that are decoded at a time.
const PIECE: usize = 64 << 10;

/// Decodes every fp8 tensor, and takes the quantization out of the config.
pub(super) fn decode(config: &mut Value, tensors: &mut Tensors) -> Result<(), StoredError> {
    let quantization = config.get("quantization_config").filter(|it| !it.is_null());
    let method = quantization.and_then(|it| it.get("quant_method")).and_then(Value::as_str);
    let is_fp8 = |raw: &RawTensor| matches!(raw.dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2);
    if method != Some(METHOD) {
        let bare = tensors.raw.iter().find(|(_, raw)| quantization.is_none() && is_fp8(raw));
        return bare.map_or(Ok(()), |(name, raw)| {
            Err(no_scales(name, raw, "config.json has no `quantization_config`"))
        });
    }
    let block = block_size(quantization.unwrap_or(&Value::Null))?;
    let float = dtype(config);
    let names: Vec<String> = tensors.raw.iter().filter(|it| is_fp8(it.1)).map(named).collect();
    for name in names {
        let raw = &tensors.raw[&name];
        let scales = format!("{name}{SCALES}");
        if raw.dtype != Dtype::F8_E4M3 {
            return Err(no_scales(&name, raw, "E4M3 was expected"));
        }
        let Some(found) = tensors.raw.get(&scales) else {
            return Err(no_scales(&name, raw, &format!("`{scales}` is missing")));
        };
        let decoded = Weight { name: &name, raw, scales: (&scales, found), block }.decode(float)?;
        tensors.raw.insert(name, decoded);
        tensors.remove(&scales);
    }
    let unused = tensors.raw.keys().filter(|name| name.ends_with(ACTIVATIONS));
    for name in unused.cloned().collect::<Vec<_>>() {
        tensors.remove(&name);
    }
    if let Some(config) = config.as_object_mut() {
        config.remove("quantization_config");
    }
    Ok(())
}

fn named((name, _): (&String, &RawTensor)) -> String {
    name.clone()
}

fn no_scales(name: &str, raw: &RawTensor, reason: &str) -> StoredError {
    StoredError::NoScales { tensor: name.to_owned(), dtype: raw.dtype, reason: reason.to_owned() }
}

/// `weight_block_size`; `None` for one scale per tensor. Any key that is not known is an error.
fn block_size(quantization: &Value) -> Result<Option<[usize; 2]>, StoredError> {
    let refused = |key: &str, found: &Value| {
        let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        Err(StoredError::Key { key: key.to_owned(), found })
    };
    let mut block = None;
    for (key, value) in quantization.as_object().into_iter().flatten() {
        match key.as_str() {
            "weight_block_size" if value.is_null() => {}
            "weight_block_size" => {
                let size =
                    |at: usize| value.get(at)?.as_u64().filter(|it| (1..1 << 24).contains(it));
                let two = value.as_array().is_some_and(|it| it.len() == 2);
                match (two, size(0), size(1)) {
                    (true, Some(rows), Some(columns)) => {
                        block = Some([rows as usize, columns as usize]);
                    }
                    _ => return refused(key, value),
                }
            }
            "fmt" if value == "e4m3" || value.is_null() => {}
            "expert_dtype" if value == "fp8" || value.is_null() => {}
            other if TOLD_BY_TENSORS.contains(&other) => {}
            _ => return refused(key, value),
        }
    }
    Ok(block)
}

/// The float type that the config names; bfloat16, which models of this kind were trained in,
/// where it names none.
fn dtype(config: &Value) -> FloatType {
    let name = config.get("dtype").or_else(|| config.get("torch_dtype")).and_then(Value::as_str);
    let all = [FloatType::F32, FloatType::F16, FloatType::Bf16];
    let named = all.into_iter().find(|it| Some(it.config_name()) == name);
    named.unwrap_or(FloatType::Bf16)
}

/// A weight with its scales.
struct Weight<'a> {
    name: &'a str,
    raw: &'a RawTensor,
    scales: (&'a str, &'a RawTensor),
    block: Option<[usize; 2]>,
}

impl Weight<'_> {
    /// Matrices, rows and columns: outer axes hold matrices of their own.
    fn matrices(&self) -> [usize; 3] {
        match self.raw.shape.as_slice() {
            [] => [1, 1, 1],
            [columns] => [1, 1, *columns],
            [outer @ .., rows, columns] => [outer.iter().product(), *rows, *columns],
        }
    }

    /// The scales, and the block that each is for.
    fn scales(&self) -> Result<(Vec<f32>, [usize; 2]), StoredError> {
        let (name, raw) = self.scales;
        let [matrices, rows, columns] = self.matrices();
        let [high, wide] = self.block.unwrap_or([rows.max(1), columns.max(1)]);
        let grid = [rows.div_ceil(high), columns.div_ceil(wide)];
        let outer = self.raw.shape.len().saturating_sub(2);
        let expected = [&self.raw.shape[..outer], &grid].concat();
        let fits = raw.shape == expected || (raw.len() == matrices && self.block.is_none());
        let Some(values) = raw.to_f32().filter(|_| fits) else {
            return Err(StoredError::Scales {
                tensor: name.to_owned(),
                expected,
                block: [high, wide],
                weight: self.raw.shape.clone(),
                dtype: raw.dtype,
                found: raw.shape.clone(),
            });
        };
        match values.iter().position(|it| !it.is_finite()) {
            Some(at) => Err(StoredError::NotANumber { tensor: name.to_owned(), at }),
            None => Ok((values, [high, wide])),
        }
    }

    fn decode(&self, float: FloatType) -> Result<RawTensor, StoredError> {
        let (scales, [high, wide]) = self.scales()?;
        let [_, rows, columns] = self.matrices();
        let (down, across) = (rows.div_ceil(high), columns.div_ceil(wide));
        let band = (PIECE / columns.max(1)).max(1);
        let pieces = self.raw.bytes.par_chunks((band * columns).max(1)).enumerate();
        let decoded: Vec<Result<Vec<u8>, usize>> = pieces
            .map(|(piece, codes)| {
                let mut values: Vec<f32> = codes.iter().map(|it| E4M3[usize::from(*it)]).collect();
                if let Some(at) = values.iter().position(|it| it.is_nan()) {
                    return Err(piece * band * columns + at);
                }
                for (i, row) in values.chunks_mut(columns.max(1)).enumerate() {
                    let (matrix, row_at) =
                        ((piece * band + i) / rows.max(1), (piece * band + i) % rows.max(1));
                    let first = (matrix * down + row_at / high) * across;
                    for (values, scale) in row.chunks_mut(wide).zip(&scales[first..]) {
                        for value in values {
                            *value *= scale;
                        }
                    }
                }
                let mut bytes = Vec::new();
                float.encode(&values, &mut bytes);
                Ok(bytes)
            })
            .collect();
        self.raw.bytes.release();
        let mut bytes = Vec::with_capacity(self.raw.len() * float.size());
        for piece in decoded {
            let tensor = || self.name.to_owned();
            bytes.extend(piece.map_err(|at| StoredError::NotANumber { tensor: tensor(), at })?);
        }
        let (dtype, shape) = (float.dtype(), self.raw.shape.clone());
        Ok(RawTensor { dtype, shape, bytes: Bytes::owned(bytes) })
    }
}
