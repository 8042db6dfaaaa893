//! The keys of `quantization_config` that are understood. Any other one may change what weights
//! stand for, and is an error.
//!
//! Source: compressed-tensors 0.19, `quantization/{quant_config, quant_scheme, quant_args}`.
use super::super::PackageError;
use crate::scheme::WeightGrid;
use serde_json::Value;

/// Keys of `quantization_config`.
const CONFIG: &[&str] = &[
    "config_groups",
    "dequantize",
    "format",
    "global_compression_ratio",
    "ignore",
    "kv_cache_scheme",
    "quant_method",
    "quantization_status",
    "run_compressed",
    "sparsity_config",
    "transform_config",
    "use_optimized_inference",
    "version",
];
/// Keys of one of `config_groups`.
const GROUP: &[&str] = &["format", "input_activations", "output_activations", "targets", "weights"];
/// Keys that say how numbers become codes.
const NUMBERS: &[&str] = &[
    "actorder",
    "block_structure",
    "dynamic",
    "group_size",
    "num_bits",
    "observer",
    "observer_kwargs",
    "scale_dtype",
    "strategy",
    "symmetric",
    "type",
    "zp_dtype",
];
/// Formats whose tensors are read, and what packages without a format of their own say.
const FORMATS: &[&str] = &[
    "pack-quantized",
    "int-quantized",
    "naive-quantized",
    "mxfp4-pack-quantized",
    "mixed-precision",
    "dense",
];

/// Older packages with codes say `frozen`; weights without codes have parts that are missing.
const STATUSES: &[&str] = &["initialized", "calibration", "frozen", "compressed"];

/// Checks every key of `quantization_config`, and those values that no tensor tells.
pub(super) fn check(quantization: &Value) -> Result<(), PackageError> {
    known("", quantization, CONFIG)?;
    only("format", &quantization["format"], FORMATS)?;
    only("quantization_status", &quantization["quantization_status"], STATUSES)?;
    let sparsity = &quantization["sparsity_config"];
    only("sparsity_config.format", &sparsity["format"], &["dense"])?;
    let groups = quantization["config_groups"].as_object();
    for (name, group) in groups.into_iter().flatten() {
        let at = format!("config_groups.{name}");
        known(&at, group, GROUP)?;
        only(&format!("{at}.format"), &group["format"], FORMATS)?;
        let output = &group["output_activations"];
        if !output.is_null() {
            return Err(unknown(format!("{at}.output_activations"), output));
        }
        for part in ["weights", "input_activations"] {
            let (at, numbers) = (format!("{at}.{part}"), &group[part]);
            known(&at, numbers, NUMBERS)?;
            let format = [&group["format"], &quantization["format"]];
            let format = format.into_iter().find(|it| !it.is_null());
            let numbers_of = format.and_then(Value::as_str).filter(|_| part == "weights");
            let said = numbers_of.and_then(WeightGrid::in_format);
            only(&format!("{at}.type"), &numbers["type"], &[said.map_or("int", |it| it.kind)])?;
            if let Some(dtype) = said.and_then(|it| it.scale_dtype) {
                only(&format!("{at}.scale_dtype"), &numbers["scale_dtype"], &[dtype])?;
            }
            let structure = &numbers["block_structure"];
            if !structure.is_null() {
                return Err(unknown(format!("{at}.block_structure"), structure));
            }
        }
        // Scales of weights that are found anew for every input would not be in the files.
        let dynamic = &group["weights"]["dynamic"];
        if !dynamic.is_null() && dynamic != false {
            return Err(unknown(format!("{at}.weights.dynamic"), dynamic));
        }
        // What an order of columns means stands in `weight_g_idx`.
        let order = &group["weights"]["actorder"];
        let orders = ["group", "weight", "dynamic", "static"];
        if !order.is_boolean() {
            only(&format!("{at}.weights.actorder"), order, &orders)?;
        }
    }
    Ok(())
}

/// Every key that has a value is one of `keys`.
fn known(at: &str, value: &Value, keys: &[&str]) -> Result<(), PackageError> {
    let entries = value.as_object().into_iter().flatten();
    let mut set = entries.filter(|(_, value)| !value.is_null());
    match set.find(|(key, _)| !keys.contains(&key.as_str())) {
        Some((key, value)) if at.is_empty() => Err(unknown(key.clone(), value)),
        Some((key, value)) => Err(unknown(format!("{at}.{key}"), value)),
        None => Ok(()),
    }
}

/// A value is absent or one of `values`.
fn only(key: &str, value: &Value, values: &[&str]) -> Result<(), PackageError> {
    let fits = value.is_null() || value.as_str().is_some_and(|it| values.contains(&it));
    if fits { Ok(()) } else { Err(unknown(key.to_owned(), value)) }
}

fn unknown(key: String, value: &Value) -> PackageError {
    let found = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    PackageError::UnknownKey { key, found }
}
