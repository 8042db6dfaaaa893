//! The layers that vLLM makes of projections, and what it takes of each.
use super::Findings;
use crate::{
    model::{Expert, Part, Role, TensorSpec, part_name},
    package::Opened,
    tensor::Dtype,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// How the codes of a layer lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Codes {
    /// Integers in words.
    Words,
    /// int8.
    Bytes,
    /// 4-bit floats, two to a byte.
    Floats,
}

/// What one of `config_groups` says of its weights.
pub(super) struct Group<'a> {
    bits: u64,
    float: bool,
    symmetric: bool,
    strategy: &'a str,
    size: Option<usize>,
    order: bool,
    format: &'a str,
    /// Strategy of input activations and whether they are dynamic, with their bits.
    input: Option<(&'a str, bool, u64)>,
}

/// A layer of vLLM: one projection, or several that it joins.
pub(super) struct Layer<'a> {
    /// As vLLM names it.
    pub(super) name: String,
    /// Its class, in lower case.
    class: &'static str,
    /// Their weights, in the order of the model.
    pub(super) shards: Vec<&'a TensorSpec>,
}

/// Sizes of groups that its kernels for packed weights take.
const GROUP_SIZES: [usize; 3] = [32, 64, 128];

pub(super) fn is_quantized(opened: &Opened, tensor: &TensorSpec) -> bool {
    opened.model.weights.quantized.contains_key(&tensor.name)
}

/// The groups by their targets, in the order of the file.
pub(super) fn groups(quantization: &Value) -> Vec<(&str, Group<'_>)> {
    let all = quantization.get("config_groups").and_then(Value::as_object);
    let top = quantization["format"].as_str().unwrap_or("");
    let mut targets = Vec::new();
    for value in all.into_iter().flat_map(|map| map.values()) {
        let (weights, input) = (&value["weights"], &value["input_activations"]);
        for target in texts(value.get("targets")) {
            let input = input["num_bits"].as_u64().map(|bits| {
                (input["strategy"].as_str().unwrap_or(""), input["dynamic"] == true, bits)
            });
            let group = Group {
                bits: weights["num_bits"].as_u64().unwrap_or(0),
                float: weights["type"] == "float",
                symmetric: weights["symmetric"] != false,
                strategy: weights["strategy"].as_str().unwrap_or("group"),
                size: weights["group_size"].as_u64().and_then(|it| usize::try_from(it).ok()),
                order: weights["actorder"] == "group",
                format: value["format"].as_str().unwrap_or(top),
                input,
            };
            targets.push((target, group));
        }
    }
    targets
}

pub(super) fn texts(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether one of some names or patterns is that of a module.
pub(super) fn named(module: &str, names: &[&str]) -> bool {
    names.iter().any(|name| matches(module, name))
}

fn matches(module: &str, name: &str) -> bool {
    match name.strip_prefix("re:") {
        Some(pattern) => {
            regex::Regex::new(&format!("^(?:{pattern})")).is_ok_and(|it| it.is_match(module))
        }
        None => name == module,
    }
}

pub(super) fn module(tensor: &TensorSpec) -> &str {
    tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name)
}

/// The linear layers of the blocks as vLLM makes them. Experts are joined within an expert, which
/// finds what differs inside one; what differs between experts is told by [`target`]'s groups.
pub(super) fn layers(opened: &Opened) -> Vec<Layer<'_>> {
    let mut joined: BTreeMap<(usize, Option<Expert>, usize), Vec<&TensorSpec>> = BTreeMap::new();
    for tensor in opened.model.spec.tensors.iter().filter(|it| it.part == Part::Weight) {
        let (Some(block), true) = (tensor.block, tensor.role.is_block_linear()) else { continue };
        let kind = match tensor.role {
            Role::Q | Role::K | Role::V => 0,
            Role::O => 1,
            Role::Gate | Role::Up => 2,
            _ => 3,
        };
        joined.entry((block, tensor.expert, kind)).or_default().push(tensor);
    }
    let layer = |((_, _, kind), shards): ((usize, Option<Expert>, usize), Vec<&'_ TensorSpec>)| {
        let first = module(shards[0]);
        let (parent, own) = first.rsplit_once('.').unwrap_or(("", first));
        let (last, class) = match kind {
            0 => ("qkv_proj", "qkvparallellinear"),
            2 => ("gate_up_proj", "mergedcolumnparallellinear"),
            _ => (own, "rowparallellinear"),
        };
        (format!("{parent}.{last}"), class)
    };
    joined
        .into_iter()
        .map(|(key, shards)| {
            let (name, class) = layer((key, shards.clone()));
            Layer { name, class, shards }
        })
        .collect()
}

/// The group that vLLM takes for a layer: a class counts before the names of joined projections.
pub(super) fn target<'a, 'b>(
    layer: &Layer<'_>,
    groups: &'b [(&str, Group<'a>)],
) -> Option<&'b Group<'a>> {
    let by = |fits: &dyn Fn(&str) -> bool| {
        groups.iter().find(|(target, _)| fits(target)).map(|(_, group)| group)
    };
    let class =
        |target: &str| !target.starts_with("re:") && layer.class.contains(&target.to_lowercase());
    by(&|target| matches(&layer.name, target)).or_else(|| by(&class)).or_else(|| {
        let first = |shard: &&TensorSpec| by(&|target| matches(module(shard), target));
        let all: Option<Vec<_>> = layer.shards.iter().map(first).collect();
        all?.into_iter().next()
    })
}

/// One layer under the scheme that vLLM takes for it.
pub(super) fn check_layer(
    opened: &Opened,
    layer: &Layer<'_>,
    group: &Group<'_>,
    found: &mut Findings,
) {
    let weights = &opened.model.weights;
    let schemes: Vec<_> =
        layer.shards.iter().map(|it| weights.quantized.get(&it.name).map(|it| it.0)).collect();
    if schemes.iter().any(|it| *it != schemes[0]) {
        let reason = "the joined projections have different schemes";
        found.add(true, &layer.name, reason, "give them one scheme by --rule");
        return;
    }
    if schemes[0].is_none() {
        let reason = "it is stored in float, and a group of `config_groups` has it as a target";
        found.add(true, &layer.name, reason, "name it in `ignore`");
        return;
    }
    match scheme(group) {
        Err((reason, change)) => found.add(true, &layer.name, reason, change),
        Ok(codes) => {
            let before = found.0.len();
            stored(opened, layer, group, codes, found);
            if found.0.len() == before {
                shapes(opened, layer, group, codes, found);
            }
        }
    }
}

/// The scheme that vLLM has for a group: packed weights or MXFP4 with float activations, or int8 with
/// int8.
fn scheme(group: &Group<'_>) -> Result<Codes, (String, &'static str)> {
    let Group { bits, strategy, format, .. } = *group;
    let Some((input, dynamic, input_bits)) = group.input else {
        if (group.float, bits, group.size) == (true, 4, Some(32)) {
            return Ok(Codes::Floats);
        }
        if format != "pack-quantized" {
            let reason = format!(
                "weights of {bits} bits with float activations in the format `{format}`; taken is \
                 `pack-quantized`"
            );
            return Err((reason, "w4a16 or w8a8, or pack the words again"));
        }
        return match (bits, strategy) {
            (4 | 8, "channel" | "group") if bits == 4 || group.symmetric => Ok(Codes::Words),
            (8, _) => {
                let reason = "int8 weights with zero points and float activations";
                Err((reason.into(), "without --asymmetric"))
            }
            _ => Err((format!("weights of {bits} bits by `{strategy}`"), "4 or 8 bits by group")),
        };
    };
    if (bits, input_bits) != (8, 8) {
        let reason = format!("{bits}-bit weights with {input_bits}-bit activations");
        return Err((reason, "w8a8 or w4a16"));
    }
    if format != "int-quantized" {
        let reason = format!("int8 activations in the format `{format}`; taken is `int-quantized`");
        return Err((reason, "store codes as bytes"));
    }
    if strategy != "channel" && strategy != "tensor" || !group.symmetric {
        let form = if group.symmetric { "" } else { ", with zero points" };
        let reason = format!(
            "int8 weights by `{strategy}`{form} with int8 activations; taken are symmetric rows"
        );
        return Err((reason, "--group-size channel, without --asymmetric"));
    }
    match (input, dynamic) {
        ("token", true) | ("tensor", false) => Ok(Codes::Bytes),
        _ => {
            let dynamic = if dynamic { "dynamic" } else { "static" };
            let reason = format!("{dynamic} activations by `{input}`; taken are dynamic by token");
            Err((reason, "--activations dynamic"))
        }
    }
}

/// The stored tensors are those that the layer has parameters for.
fn stored(
    opened: &Opened,
    layer: &Layer<'_>,
    group: &Group<'_>,
    codes: Codes,
    found: &mut Findings,
) {
    let spec = &opened.model.spec;
    for tensor in &layer.shards {
        let [out, columns] = <[usize; 2]>::try_from(spec.shape(tensor)).unwrap_or_default();
        let groups = match group.size.filter(|it| *it > 0 && group.strategy == "group") {
            Some(size) => columns / size,
            None => 1,
        };
        let per_word = (32 / group.bits.max(1)) as usize;
        let scale_type = (codes == Codes::Floats).then_some(Dtype::U8);
        let mut parts = vec![("weight_scale", scale_type, vec![out, groups])];
        match codes {
            Codes::Words => {
                parts.push(("weight_packed", Some(Dtype::I32), vec![out, columns / per_word]));
                parts.push(("weight_shape", Some(Dtype::I64), vec![2]));
                if !group.symmetric {
                    let shape = vec![out / per_word, groups];
                    parts.push(("weight_zero_point", Some(Dtype::I32), shape));
                }
            }
            Codes::Floats => {
                parts.push(("weight_packed", Some(Dtype::U8), vec![out, columns / 2]));
            }
            Codes::Bytes => {
                parts.push(("weight", Some(Dtype::I8), vec![out, columns]));
                if group.input.is_some_and(|(_, dynamic, _)| !dynamic) {
                    parts.push(("input_scale", None, vec![1]));
                }
            }
        }
        for (suffix, dtype, shape) in parts {
            let name = part_name(&tensor.name, suffix);
            let raw = opened.model.weights.raw.get(&name);
            let fits = raw.is_some_and(|raw| {
                raw.shape == shape && dtype.map_or(raw.float_type().is_some(), |it| it == raw.dtype)
            });
            if !fits {
                let has = raw.map_or("none".into(), |raw| format!("{} {:?}", raw.dtype, raw.shape));
                let kind = dtype.map_or("floats".into(), |it| it.to_string());
                let reason = format!(
                    "the scheme that is found for the layer has `{suffix}` {kind} {shape:?}, stored is {has}"
                );
                let change = "name layers by patterns in every group, without the target `Linear`";
                found.add(true, &layer.name, reason, change);
            }
        }
        if group.symmetric && codes == Codes::Words {
            let name = part_name(&tensor.name, "weight_zero_point");
            if opened.model.weights.raw.contains_key(&name) {
                let reason = "zero points of a symmetric weight: there is no parameter for them";
                found.add(true, &name, reason, "leave them out");
            }
        }
    }
}

/// Sizes that its kernels take.
fn shapes(
    opened: &Opened,
    layer: &Layer<'_>,
    group: &Group<'_>,
    codes: Codes,
    found: &mut Findings,
) {
    let spec = &opened.model.spec;
    let shapes: Vec<Vec<usize>> = layer.shards.iter().map(|it| spec.shape(it)).collect();
    let (out, columns) = (shapes.iter().map(|it| it[0]).sum::<usize>(), shapes[0][1]);
    let place = &layer.name;
    if codes == Codes::Bytes {
        let odd = !columns.is_multiple_of(16) || !out.is_multiple_of(16);
        if odd {
            let reason = format!("{out} × {columns}: int8 kernels take multiples of 16");
            found.add(false, place, reason, "prune to multiples of 16");
        }
        let scales: Vec<_> = layer
            .shards
            .iter()
            .filter_map(|it| opened.model.weights.raw.get(&part_name(&it.name, "input_scale")))
            .collect();
        if scales.iter().any(|it| *it.bytes != *scales[0].bytes) {
            let reason = "the joined projections have different input scales; the largest is taken";
            found.add(false, place, reason, "expect other activations than here");
        }
        return;
    }
    if group.order {
        found.add(
            false,
            place,
            "columns in another order (`actorder`)",
            "--rounding adaptive here",
        );
    }
    let size = group.size.filter(|_| group.strategy == "group");
    if let Some(size) = size.filter(|size| !GROUP_SIZES.contains(size)) {
        let reason = format!("groups of {size}; kernels take {GROUP_SIZES:?} and whole rows");
        found.add(false, place, reason, "--group-size 32, 64, 128 or channel");
    }
    if !out.is_multiple_of(64) || !columns.is_multiple_of(128) {
        let reason = format!(
            "{out} × {columns}: Marlin takes multiples of 64 rows and 128 columns, other kernels need another GPU or float16"
        );
        found.add(false, place, reason, "prune to multiples of 128");
    }
    let uneven = shapes.iter().find(|it| !group.symmetric && !it[0].is_multiple_of(8));
    if let Some(shape) = uneven {
        let reason = format!("{} rows: zero points lie 8 to a word", shape[0]);
        found.add(true, place, reason, "without --asymmetric");
    }
}
