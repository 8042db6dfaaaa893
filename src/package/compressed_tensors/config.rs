//! `quantization_config` of a package: only keys that the standard knows.
use super::{METHOD, transform::transform_config};
use crate::{
    model::{Model, ModelSpec, Part, Role},
    quantize::Method,
    scheme::{Activations, Format, Granularity, Schemes, WeightGrid},
};
use serde_json::{Value, json};

/// Version of the standard that is followed.
const VERSION: &str = "0.19.0";
/// The module that transformers makes of a tied head.
const TIED_HEAD: &str = "lm_head";

/// A package in the words of the standard.
#[derive(Debug)]
pub(crate) struct Description {
    /// `config.json`.
    pub(crate) config: Value,
    /// What the standard does not say.
    pub(crate) beyond: Vec<String>,
}

/// Weights with one scheme.
#[derive(Default)]
struct Group<'a> {
    /// Matrices of linear layers.
    linear: Vec<&'a str>,
    /// Embeddings.
    embeddings: Vec<&'a str>,
    /// How many of the linear layers are inside blocks.
    in_blocks: usize,
}

/// Grid, and activations where the standard can say them beside it.
type Key = (WeightGrid, Format, Activations);

/// The `config.json` of a package. One scheme in all blocks has the target `Linear`. Several stand in
/// groups of their own, all by name: vLLM joins projections and then finds a class before their names.
pub(crate) fn describe(model: &Model, schemes: &Schemes, method: Method) -> Description {
    let mut config = model.config.clone();
    let mut groups: Vec<(Key, Group<'_>)> = Vec::new();
    let mut ignore: Vec<&str> = matrices_beside(model).collect();
    let mut beyond = Vec::new();
    let (mut integer_inputs, mut split) = (0_usize, 0_usize);
    let matrices =
        model.spec.tensors.iter().filter(|it| it.part == Part::Weight && it.input.is_some());
    for tensor in matrices {
        let module = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
        let embed = tensor.role == Role::Embed;
        let Some(scheme) = schemes.get(&tensor.name).map(|(scheme, _)| *scheme) else {
            if !embed {
                ignore.push(module);
            }
            continue;
        };
        split += usize::from(scheme.outliers > 0);
        let activations = match scheme.format {
            Format::IntQuantized => scheme.activations,
            Format::PackQuantized | Format::Mxfp4 => Activations::Float,
        };
        integer_inputs += usize::from(scheme.activations != activations);
        let key = (scheme.weights, scheme.format, activations);
        if !groups.iter().any(|(it, _)| *it == key) {
            groups.push((key, Group::default()));
        }
        for (_, group) in groups.iter_mut().filter(|(it, _)| *it == key) {
            if embed { &mut group.embeddings } else { &mut group.linear }.push(module);
            group.in_blocks += usize::from(tensor.role.is_block_linear());
        }
        if embed {
            beyond.push(format!(
                "`{module}` is stored as {}: engines that read only linear layers quantized cannot load it (--embeddings float can be loaded)",
                scheme.weights
            ));
        }
    }
    beyond.extend(packed_zero_points(&groups).into_iter().chain(run_time_steps(model)));
    if integer_inputs > 0 {
        beyond.push(format!(
            "the products of {integer_inputs} weights take int8 activations; the standard describes them as float"
        ));
    }
    if split > 0 {
        beyond.push(format!(
            "{split} weights keep columns at int8 in tensors of their own (`outliers`): other engines cannot load them"
        ));
    }
    let kv_cache = kv_cache_scheme(&model.spec);
    if !kv_cache.is_null() {
        beyond.push(format!(
            "keys and values are held as {}, scaled anew for each token: other engines refuse that or leave it out",
            model.spec.kv_cache.name()
        ));
    }
    if !groups.is_empty() || !kv_cache.is_null() {
        let whole = [kv_cache, transform_config(model)];
        config["quantization_config"] = quantization(groups, &ignore, method, whole);
    }
    Description { config, beyond }
}

/// What the standard says, but transformers no longer reads (findings/transformers-packed-zero-points.sh).
fn packed_zero_points(groups: &[(Key, Group<'_>)]) -> Option<String> {
    let packed = |(weights, format, _): &Key| {
        !weights.symmetric() && matches!(format, Format::PackQuantized)
    };
    groups.iter().any(|(key, _)| packed(key)).then(|| {
        "zero points lie in packed words: transformers 5.23 and 5.24 cannot load them, 5.22 can (without \
         --asymmetric all can)"
            .into()
    })
}

/// Modules that other programs see and that have no codes of their own: a tied head, and matrices
/// beside the architecture. A class as target must not take them.
fn matrices_beside(model: &Model) -> impl Iterator<Item = &str> {
    let shape = |name: &str| model.weights.raw.get(name).map(|it| it.shape.len());
    let extras = model.extras().into_iter().filter(move |name| shape(name) == Some(2));
    let tied_head = model.spec.tied.then_some(TIED_HEAD).into_iter();
    tied_head.chain(extras.filter_map(|name| name.strip_suffix(".weight")))
}

/// Steps of the forward pass that the standard does not know.
fn run_time_steps(model: &Model) -> Vec<String> {
    let mut steps = Vec::new();
    if let Some(transformed) = &model.spec.transformed {
        let online = [
            (
                transformed.head_correction,
                "the input of the head (--tied-head untie can be loaded)",
            ),
            (transformed.down_input, "the inputs of down projections (--rotate-down false)"),
            (transformed.keys, "queries and keys (--rotate-keys false)"),
        ];
        for (_, what) in online.iter().filter(|(is, _)| *is) {
            steps.push(format!("a matrix is multiplied at run time to {what}"));
        }
        if transform_config(model) != json!({}) {
            steps.push(
                "`transform_config` says which: engines that do not read it compute something else"
                    .into(),
            );
        }
    }
    let grids = model.weights.activations.len();
    if grids > 0 {
        steps.push(format!(
            "{grids} activations are rounded to static grids, which stand in milm.json only"
        ));
    }
    steps
}

fn quantization(
    mut groups: Vec<(Key, Group<'_>)>,
    ignore: &[&str],
    method: Method,
    [kv_cache, transforms]: [Value; 2],
) -> Value {
    // The group of most linear layers first: it is the one that `Linear` may stand for.
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.in_blocks));
    let formats: Vec<&str> = groups.iter().map(|((_, format, _), _)| format.name()).collect();
    let first = formats.first().copied().unwrap_or("dense");
    let uniform = formats.iter().all(|it| *it == first);
    let by_class = groups.iter().filter(|(_, group)| group.in_blocks > 0).count() == 1;
    let entries: serde_json::Map<String, Value> = groups
        .iter()
        .enumerate()
        .map(|(i, (key, group))| {
            let first = i == 0 && group.in_blocks > 0;
            let linear = if first && by_class { vec!["Linear"] } else { group.linear.clone() };
            let targets = [linear, group.embeddings.clone()].concat();
            (format!("group_{i}"), entry(*key, json!(targets), method))
        })
        .collect();
    json!({
        "config_groups": entries,
        "format": if uniform { first } else { "mixed-precision" },
        "global_compression_ratio": null,
        "ignore": ignore,
        "kv_cache_scheme": kv_cache,
        "quant_method": METHOD,
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": transforms,
        "version": VERSION,
    })
}

/// How keys and values are held: groups of consecutive channels of a head with a scale of their
/// own, which depends on the token.
fn kv_cache_scheme(spec: &ModelSpec) -> Value {
    let Some(bits) = spec.kv_cache.bits() else { return Value::Null };
    let head_dim = spec.blocks.iter().map(|block| block.head_dim).max().unwrap_or(0);
    json!({
        "num_bits": bits, "type": "int", "symmetric": bits == 8, "strategy": "group",
        "group_size": spec.kv_cache.group_size(head_dim), "dynamic": true,
        "block_structure": null, "actorder": null, "scale_dtype": null, "zp_dtype": null,
        "observer": null, "observer_kwargs": {},
    })
}

fn entry((weights, format, activations): Key, targets: Value, method: Method) -> Value {
    let described = weights.described();
    let (strategy, group_size) = match weights.granularity() {
        Granularity::Channel => ("channel", Value::Null),
        Granularity::Group(size) => ("group", json!(size)),
    };
    let observer = match method {
        Method::Minmax | Method::Absmax => "memoryless_minmax",
        Method::Mse | Method::MsePositive => "memoryless_mse",
    };
    let fixed = activations == Activations::Int8Static;
    let input = json!({
        "num_bits": 8, "type": "int", "symmetric": true,
        "strategy": if fixed { "tensor" } else { "token" }, "dynamic": !fixed,
        "group_size": null, "block_structure": null, "actorder": null, "scale_dtype": null,
        "zp_dtype": null, "observer": null, "observer_kwargs": {},
    });
    json!({
        "targets": targets,
        "format": format.name(),
        "input_activations": if activations == Activations::Float { Value::Null } else { input },
        "output_activations": null,
        "weights": {
            "num_bits": weights.bits(), "type": described.kind, "symmetric": weights.symmetric(),
            "strategy": strategy, "group_size": group_size, "dynamic": false,
            "block_structure": null, "actorder": null, "scale_dtype": described.scale_dtype,
            "zp_dtype": described.zero_point_dtype,
            "observer": observer, "observer_kwargs": {},
        },
    })
}
