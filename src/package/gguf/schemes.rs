//! Which quantized weights a file can hold code by code.
use super::{
    error::{ExportError, Unsupported},
    experts::accepts_stacks,
};
use crate::{
    model::{Model, ModelSpec, WeightStore, part_name},
    scheme::{Activations, TensorScheme, ggml},
};
use std::collections::BTreeMap;

/// Refuses weights whose codes no block type has, and activations that llama.cpp does not compute.
/// A function of schemes and shapes `[out, in]`: it can be asked before there are weights.
pub fn accepts_schemes(
    spec: &ModelSpec,
    schemes: &BTreeMap<String, (TensorScheme, [usize; 2])>,
) -> Result<(), Unsupported> {
    for (name, (scheme, [_, columns])) in schemes {
        let (tensor, columns) = (name.clone(), *columns);
        if scheme.outliers > 0 {
            return Err(Unsupported::Outliers { tensor });
        }
        if scheme.activations == Activations::Int8Static {
            return Err(Unsupported::StaticActivations { tensor });
        }
        if ggml::grid_format(scheme.weights, columns).is_none() {
            let grid = scheme.weights.to_string();
            return Err(Unsupported::Grid { tensor, grid, columns });
        }
    }
    accepts_stacks(spec, schemes)
}

/// The largest relative change of a scale of any quantized weight that float16 brings; an error
/// where float16 does not hold one.
pub(super) fn scale_change(weights: &WeightStore) -> Result<Option<f64>, ExportError> {
    if !weights.activations.is_empty() {
        return Err(Unsupported::ActivationGrids.into());
    }
    let mut largest = None;
    for name in weights.quantized.keys() {
        let raw = weights.raw.get(&part_name(name, "weight_scale"));
        let scales = raw.and_then(crate::tensor::RawTensor::to_f32).unwrap_or_default();
        let tensor = || name.clone();
        let change = ggml::half_change(&scales);
        let change = change.ok_or_else(|| ExportError::Scale { tensor: tensor() })?;
        largest = Some(change.max(largest.unwrap_or(0.0)));
    }
    Ok(largest)
}

/// What llama.cpp does in its own way with a quantized model.
pub(super) fn notes(model: &Model, change: Option<f64>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(change) = change {
        notes.push(if change > 0.0 {
            format!("scales are stored as float16: the largest relative change is {change:.1e}")
        } else {
            "scales are stored as float16, which holds them exactly".to_owned()
        });
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
