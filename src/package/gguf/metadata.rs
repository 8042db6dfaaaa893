//! Metadata of a file from the architecture of a model: what llama.cpp needs to know.
use super::{arch::Arch, experts, gemma3, names::key, rope::Rotation, value::Value, write::Pairs};
use crate::model::{Block, ModelSpec};

/// `general.file_type` of files most of whose weights have this format; 1024 says that it is a
/// guess, as for formats that ggml has no such type for.
fn file_type(format: &str) -> u64 {
    match format {
        "F32" => 0,
        "F16" => 1,
        "Q4_0" => 2,
        "Q4_1" => 3,
        "Q8_0" => 7,
        "Q4_K" => 15,
        "Q6_K" => 18,
        "BF16" => 32,
        _ => 1024,
    }
}

/// Version of the quantized block types.
const QUANTIZATION_VERSION: u64 = 2;

/// Keys of the architecture.
pub(super) fn architecture(
    spec: &ModelSpec,
    arch: Arch,
    rotation: &Rotation,
    format: &str,
) -> Pairs {
    let mut pairs: Pairs = vec![
        (key::ARCHITECTURE.into(), Value::String(arch.name().into())),
        (key::FILE_TYPE.into(), Value::Unsigned(file_type(format))),
        (key::QUANTIZATION_VERSION.into(), Value::Unsigned(QUANTIZATION_VERSION)),
    ];
    let mut put = |leaf: &str, value| pairs.push((format!("{}.{leaf}", arch.name()), value));
    let size = |size: usize| Value::Unsigned(size as u64);
    let each = |of: &dyn Fn(&Block) -> usize| match (arch, spec.blocks.first()) {
        (Arch::Deci, _) | (_, None) => Value::sizes(spec.blocks.iter().map(of)),
        (_, Some(first)) => size(of(first)),
    };
    put(key::BLOCKS, size(spec.blocks.len()));
    put(key::CONTEXT, size(spec.max_positions));
    put(key::HIDDEN, size(spec.hidden));
    put(key::VOCAB, size(spec.vocab));
    put(key::MLP_WIDTH, each(&|b| experts::mlp_width(arch, b)));
    put(key::HEADS, each(&|b| b.heads));
    put(key::KV_HEADS, each(&|b| b.kv_heads));
    let head_dim = spec.blocks.first().map_or(0, |b| b.head_dim);
    for leaf in [key::KEY_WIDTH, key::VALUE_WIDTH, key::ROTARY_WIDTH] {
        put(leaf, size(head_dim));
    }
    put(key::NORM_EPS, Value::F32(spec.norm_eps));
    put(key::THETA, Value::F32(spec.rope.theta as f32));
    if let Some(window) = spec.blocks.iter().find_map(|b| b.window) {
        put(key::WINDOW, size(window));
    }
    let more = experts::pairs(spec).into_iter().chain(scaling(rotation));
    for (leaf, value) in more.chain(gemma3::pairs(spec)) {
        put(leaf, value);
    }
    pairs
}

fn scaling(rotation: &Rotation) -> Vec<(&'static str, Value)> {
    let float = |x: f64| Value::F32(x as f32);
    let kind = |name: &str| Value::String(name.to_owned());
    match rotation {
        Rotation::Plain | Rotation::Factors(_) => Vec::new(),
        Rotation::Linear { factor } => {
            vec![(key::SCALING, kind("linear")), (key::SCALING_FACTOR, float(*factor))]
        }
        Rotation::Yarn { factor, original, betas, attention } => {
            let mut all = vec![
                (key::SCALING, kind("yarn")),
                (key::SCALING_FACTOR, float(*factor)),
                (key::SCALING_ORIGINAL, Value::Unsigned(*original)),
            ];
            if let Some((fast, slow)) = betas {
                all.extend([(key::YARN_FAST, float(*fast)), (key::YARN_SLOW, float(*slow))]);
            }
            all.extend(attention.map(|times| (key::SCALING_ATTENTION, float(times))));
            all
        }
    }
}
