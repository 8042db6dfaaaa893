//! Which quantized weights a file can hold code by code.
use super::{
    error::{ExportError, Unsupported},
    experts::accepts_stacks,
};
use crate::{
    model::{Model, ModelSpec, WeightStore, part_name},
    scheme::{
        Activations, Schemes, TensorScheme,
        ggml::{self, HalfChange},
    },
};

/// Refuses weights whose codes no block type has, and activations that llama.cpp does not compute.
/// A function of schemes and shapes `[out, in]`: it can be asked before there are weights.
pub fn accepts_schemes(spec: &ModelSpec, schemes: &Schemes) -> Result<(), Unsupported> {
    for (name, (scheme, [_, columns])) in schemes {
        let (tensor, columns) = (name.clone(), *columns);
        if scheme.outliers > 0 {
            return Err(Unsupported::Outliers { tensor });
        }
        if scheme.activations == Activations::Int8Static {
            return Err(Unsupported::StaticActivations { tensor });
        }
        if scheme.weights.blocks(columns).is_none() {
            let grid = scheme.weights.to_string();
            return Err(Unsupported::Grid { tensor, grid, columns });
        }
    }
    accepts_stacks(spec, schemes)
}

/// What float16 changes of the scales of all quantized weights; an error where one is beyond it.
pub(super) fn scale_change(weights: &WeightStore) -> Result<Option<HalfChange>, ExportError> {
    if !weights.activations.is_empty() {
        return Err(Unsupported::ActivationGrids.into());
    }
    let mut all: Option<HalfChange> = None;
    // Bytes of exponents stay what they are.
    let floats = |(_, (scheme, _)): &(_, &(TensorScheme, _))| {
        scheme.weights.described().scale_dtype.is_none()
    };
    for (name, _) in weights.quantized.iter().filter(floats) {
        let raw = weights.raw.get(&part_name(name, "weight_scale"));
        let scales = raw.and_then(crate::tensor::RawTensor::to_f32).unwrap_or_default();
        let tensor = || name.clone();
        let change = ggml::half_change(&scales);
        let change = change.ok_or_else(|| ExportError::Scale { tensor: tensor() })?;
        let before = all.unwrap_or_default();
        let largest = change.largest.max(before.largest);
        all = Some(HalfChange { largest, tiny: change.tiny + before.tiny });
    }
    Ok(all)
}

/// What llama.cpp does in its own way with a quantized model.
pub(super) fn notes(model: &Model, change: Option<HalfChange>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(change) = change {
        notes.push(match change {
            HalfChange { largest: 0.0, tiny: 0 } => {
                "scales are stored as float16, which holds them exactly".to_owned()
            }
            HalfChange { largest, .. } => {
                format!(
                    "scales are stored as float16: the largest relative change is {largest:.1e}"
                )
            }
        });
        if change.tiny > 0 {
            notes.push(format!(
                "{} scales are too near 0 for float16: they become its smallest numbers or 0",
                change.tiny
            ));
        }
    }
    let mut schemes = model.weights.quantized.values();
    if schemes.any(|(scheme, _)| scheme.activations == Activations::Int8PerToken) {
        notes.push(
            "llama.cpp rounds the activations of quantized weights in its own way, in blocks of 32"
                .to_owned(),
        );
    }
    if model.spec.kv_cache.bits().is_some() {
        notes.push(format!(
            "keys and values at {} are a choice at run time there (--cache-type-k, --cache-type-v)",
            model.spec.kv_cache.name()
        ));
    }
    notes
}
