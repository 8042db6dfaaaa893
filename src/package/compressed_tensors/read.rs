//! Which weights of a package are quantized and how, from its `config.json` alone.
use super::{super::PackageError, keys};
use crate::{
    model::{ModelSpec, Part, Role, TRANSFORM_KEY, part_name},
    scheme::{Activations, Format, Granularity, Schemes, TensorScheme, WeightGrid},
    tensor::{Dtype, FloatType, RawTensor},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// One of `config_groups`.
struct Group {
    targets: Vec<String>,
    weights: WeightGrid,
    activations: Activations,
}

/// The quantized weights that `quantization_config` declares; none without one.
pub(crate) fn read_schemes(
    config: &Value,
    spec: &ModelSpec,
    raw: &BTreeMap<String, RawTensor>,
) -> Result<Schemes, PackageError> {
    let Some(quantization) = config.get("quantization_config").filter(|it| !it.is_null()) else {
        return Ok(Schemes::new());
    };
    keys::check(quantization)?;
    if config.get(TRANSFORM_KEY).is_none() {
        refuse_online(quantization)?;
    }
    let groups = quantization.get("config_groups").and_then(Value::as_object);
    let groups: Vec<Group> =
        groups.into_iter().flat_map(|map| map.values()).map(group).collect::<Result<_, _>>()?;
    let scaled: Vec<String> =
        raw.keys().filter_map(|name| Some(name.strip_suffix("_scale")?.to_owned())).collect();
    let mut schemes = Schemes::new();
    for name in scaled.iter().filter(|name| name.ends_with(".weight")) {
        if name.ends_with(".outliers.weight") {
            return Err(unsupported("outliers without milm.json", &Value::String(name.clone())));
        }
        let module = name.trim_end_matches(".weight");
        let no_group = || PackageError::NoGroup { tensor: name.clone() };
        let embed = spec.find(None, Role::Embed, None, Part::Weight);
        let class = if embed.is_some_and(|it| it.name == *name) { "Embedding" } else { "Linear" };
        let group = choose(&groups, module, class)?.ok_or_else(no_group)?;
        let missing = |suffix| PackageError::MissingPart { tensor: part_name(name, suffix) };
        let shape = stored_shape(name, raw).ok_or_else(|| missing("weight_shape"))?;
        let scale = raw.get(&part_name(name, "weight_scale"));
        let scale = scale.ok_or_else(|| missing("weight_scale"))?;
        let own = group.weights.described().scale_dtype.is_some();
        let Some(scale_type) = scale.float_type().or(own.then_some(FloatType::F32)) else {
            return Err(unsupported("scale type", &Value::String(scale.dtype.to_string())));
        };
        let scheme = TensorScheme {
            weights: group.weights,
            scale_type,
            activations: group.activations,
            format: stored_format(name, raw),
            outliers: 0,
        };
        schemes.insert(name.clone(), (scheme, shape));
    }
    Ok(schemes)
}

/// Rotations of activations that the forward pass would have to do are not known here; those that
/// were put into the weights (`weight_input`, `weight_output`) leave nothing to do. Packages of this
/// program say them twice, and the key of its own is read.
fn refuse_online(quantization: &Value) -> Result<(), PackageError> {
    let groups = quantization.get("transform_config").and_then(|it| it.get("config_groups"));
    let groups = groups.and_then(Value::as_object).into_iter().flat_map(|map| map.values());
    let applied = groups.filter_map(|group| group.get("apply")?.as_array()).flatten();
    let mut locations = applied.map(|apply| apply.get("location").unwrap_or(&Value::Null));
    let fused = |it: &Value| it.as_str().is_some_and(|it| it.starts_with("weight_"));
    match locations.find(|it| !fused(it)) {
        Some(location) => Err(unsupported("transform_config", location)),
        None => Ok(()),
    }
}

fn unsupported(key: &'static str, found: &Value) -> PackageError {
    let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
    PackageError::Unsupported { key, found }
}

fn group(value: &Value) -> Result<Group, PackageError> {
    let absent = Value::Null;
    let weights = value.get("weights").unwrap_or(&absent);
    let at = |key| weights.get(key).unwrap_or(&absent);
    let bits = match at("num_bits") {
        Value::Null => 8,
        bits if bits == 4 || bits == 8 => bits.as_u64().unwrap_or(8) as u32,
        other => return Err(unsupported("num_bits", other)),
    };
    let size = at("group_size").as_u64().filter(|size| (1..=1 << 24).contains(size));
    let granularity = match (at("strategy").as_str(), size) {
        (Some("channel"), _) => Granularity::Channel,
        (None, None) if *at("group_size") == -1 => Granularity::Channel,
        (Some("group") | None, Some(size)) => Granularity::Group(size as usize),
        _ => return Err(unsupported("strategy", at("strategy"))),
    };
    let input = value.get("input_activations").unwrap_or(&absent);
    let activations = activations(input)?;
    let targets = value.get("targets").and_then(Value::as_array);
    let targets = targets.into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned));
    let symmetric = at("symmetric").as_bool().unwrap_or(true);
    let kind = at("type").as_str().unwrap_or("int");
    let grid = WeightGrid::named(kind, bits, (granularity, symmetric));
    let weights = grid.ok_or_else(|| unsupported("weights", weights))?;
    Ok(Group { targets: targets.collect(), weights, activations })
}

/// How inputs are quantized: symmetric int8, per token while the model runs, or with one static
/// scale.
fn activations(input: &Value) -> Result<Activations, PackageError> {
    if input.is_null() {
        return Ok(Activations::Float);
    }
    let at = |key| input.get(key).unwrap_or(&Value::Null);
    let int8 = (at("num_bits").is_null() || *at("num_bits") == 8)
        && at("symmetric").as_bool() != Some(false);
    match (at("strategy").as_str(), at("dynamic").as_bool().unwrap_or(false)) {
        (Some("token"), true) if int8 => Ok(Activations::Int8PerToken),
        (Some("tensor"), false) if int8 => Ok(Activations::Int8Static),
        _ => Err(unsupported("input_activations", input)),
    }
}

/// The group of a module: one that names it, else one that matches it, else one for its class.
fn choose<'a>(
    groups: &'a [Group],
    module: &str,
    class: &str,
) -> Result<Option<&'a Group>, PackageError> {
    let called = |name: &str| groups.iter().find(|it| it.targets.iter().any(|it| it == name));
    if let Some(group) = called(module) {
        return Ok(Some(group));
    }
    for group in groups {
        for target in &group.targets {
            let Some(pattern) = target.strip_prefix("re:") else { continue };
            let pattern = regex::Regex::new(&format!("^(?:{pattern})"))
                .map_err(|_| unsupported("target", &Value::String(target.clone())))?;
            if pattern.is_match(module) {
                return Ok(Some(group));
            }
        }
    }
    Ok(called(class))
}

/// `[out, in]` of a quantized weight, from `weight_shape` or from the codes.
fn stored_shape(name: &str, raw: &BTreeMap<String, RawTensor>) -> Option<[usize; 2]> {
    if let Some(shape) = raw.get(&part_name(name, "weight_shape")) {
        let (numbers, _) = shape.bytes.as_chunks::<8>();
        let [out, columns] = numbers else { return None };
        let size = |bytes: &[u8; 8]| usize::try_from(i64::from_le_bytes(*bytes)).ok();
        return Some([size(out)?, size(columns)?]);
    }
    if let Some(raw) = floats(name, raw) {
        let [out, bytes] = *raw.shape.as_slice() else { return None };
        return Some([out, bytes.checked_mul(2)?]);
    }
    let [out, columns] = *raw.get(name)?.shape.as_slice() else { return None };
    Some([out, columns])
}

/// How the codes of a weight lie: the names of its tensors tell, whatever `format` says.
pub(crate) fn stored_format(name: &str, raw: &BTreeMap<String, RawTensor>) -> Format {
    let bytes = raw.get(name).is_some_and(|it| it.dtype == Dtype::I8);
    match floats(name, raw) {
        Some(_) => Format::Mxfp4,
        None if bytes => Format::IntQuantized,
        None => Format::PackQuantized,
    }
}

/// The codes of a weight in 4-bit floats, if it is one: integers lie in words.
fn floats<'a>(name: &str, raw: &'a BTreeMap<String, RawTensor>) -> Option<&'a RawTensor> {
    raw.get(&part_name(name, "weight_packed")).filter(|it| it.dtype == Dtype::U8)
}
