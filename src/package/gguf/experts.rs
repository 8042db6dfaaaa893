//! Mixtures of experts: which of them llama.cpp computes, and how a file says them.
//!
//! Routed experts of a block lie in one tensor per projection, `[experts, out, in]`, one expert
//! behind the other. What the router's numbers become stands nowhere in a file: each architecture
//! of llama.cpp does it in its own way.
use super::{
    arch::Arch,
    error::{ContentError, Unsupported},
    file::missing,
    keys::Keys,
    names::{key, tensor_name},
    value::Value,
};
use crate::{
    model::{Block, Expert, Mlp, ModelSpec, Part, Role, TensorSpec},
    scheme::Schemes,
};
use serde_json::json;
use std::collections::BTreeMap;

impl Arch {
    /// Whether the weights of the chosen experts are scaled to sum to 1; `None` if the
    /// architecture has no experts.
    fn normalizes(self) -> Option<bool> {
        match self {
            Self::Llama | Self::Qwen3Moe => Some(true),
            Self::Qwen2Moe => Some(false),
            Self::Deci | Self::Qwen2 | Self::Qwen3 | Self::Gemma3 => None,
        }
    }
}

/// The architecture that computes a mixture whose blocks agree in heads; `factors` if the rotation
/// needs a divisor per frequency, `differing` the first block that is not like block 0.
pub(super) fn accepts(
    spec: &ModelSpec,
    differing: Option<usize>,
    factors: bool,
) -> Result<Arch, Unsupported> {
    let (block, mlp) = first_mixture(spec);
    let Mlp::Experts { shared, normalize, .. } = mlp else { return Err(Unsupported::NoBlocks) };
    let arch = match (shared, block.has_head_norms()) {
        (Some(_), _) => Arch::Qwen2Moe,
        (None, true) => Arch::Qwen3Moe,
        (None, false) => Arch::Llama,
    };
    let refused = |what: String| Err(Unsupported::Form { arch: arch.name(), what });
    if let Some(b) = differing {
        return refused(format!("block {b} is another than block 0, dense or of other sizes"));
    }
    if arch.normalizes() != Some(*normalize) {
        let does = if *normalize { "are scaled to sum to 1" } else { "stay what the router gives" };
        return refused(format!("weights of the chosen experts {does} (`norm_topk_prob`)"));
    }
    if arch == Arch::Qwen2Moe {
        let fills = block.heads * block.head_dim == spec.hidden;
        let wants = [
            (block.has_head_norms(), "queries and keys are normalized"),
            (spec.tied, "the head is the embedding (--tied-head untie)"),
            (!fills, "heads do not fill the hidden width"),
            (factors, "the rotation needs a factor per frequency"),
        ];
        if let Some((_, what)) = wants.iter().find(|(unmet, _)| *unmet) {
            return refused((*what).to_owned());
        }
    }
    Ok(arch)
}

/// The first block with experts, else the first.
fn first_mixture(spec: &ModelSpec) -> (&Block, &Mlp) {
    let mixture = spec.blocks.iter().find(|b| matches!(b.mlp, Mlp::Experts { .. }));
    let block = mixture.unwrap_or(&spec.blocks[0]);
    (block, &block.mlp)
}

/// Refuses stacks whose experts need different types of blocks, as a file has one per tensor.
pub(super) fn accepts_stacks(spec: &ModelSpec, schemes: &Schemes) -> Result<(), Unsupported> {
    let mut stacks = BTreeMap::new();
    for tensor in spec.tensors.iter().filter(|it| matches!(it.expert, Some(Expert::Routed(_)))) {
        let scheme = schemes.get(&tensor.name);
        let format = scheme.and_then(|(it, [_, columns])| it.weights.blocks(*columns));
        let found = format.map_or("float", |it| it.name());
        let first = *stacks.entry((tensor.block, tensor.role)).or_insert(found);
        if first != found {
            let (tensor, stack) = (tensor.name.clone(), tensor_name(tensor).unwrap_or_default());
            return Err(Unsupported::Stack { tensor, stack, first, found });
        }
    }
    Ok(())
}

/// Keys of the architecture; none of a dense model.
pub(super) fn pairs(spec: &ModelSpec) -> Vec<(&'static str, Value)> {
    let Some(Mlp::Experts { count, per_token, width, shared, .. }) =
        spec.blocks.first().map(|b| &b.mlp)
    else {
        return Vec::new();
    };
    let size = |size: &usize| Value::Unsigned(*size as u64);
    let mut all = vec![(key::EXPERTS, size(count)), (key::EXPERTS_USED, size(per_token))];
    all.push((key::EXPERT_WIDTH, size(width)));
    all.extend(shared.as_ref().map(|shared| (key::SHARED_WIDTH, size(shared))));
    all
}

/// What stands under `feed_forward_length`: `llama` takes it as the width of an expert, the others
/// have a key of their own and the width that a token sees here.
pub(super) fn mlp_width(arch: Arch, block: &Block) -> usize {
    match block.mlp {
        Mlp::Experts { per_token, width, .. } if arch != Arch::Llama => per_token * width,
        Mlp::Dense { width } | Mlp::Experts { width, .. } => width,
    }
}

/// Shape in a file: what is one row there is a vector.
pub(super) fn file_shape(spec: &ModelSpec, tensor: &TensorSpec) -> Vec<usize> {
    let mut shape = spec.shape(tensor);
    if tensor.role == Role::SharedGate {
        shape.remove(0);
    }
    shape
}

/// The switches of a mixture in `config.json`; `None` of a dense model.
pub(super) fn config(
    keys: &Keys<'_>,
    window: Option<u64>,
) -> Result<Option<serde_json::Value>, ContentError> {
    let Some(count) = keys.size(key::EXPERTS)?.filter(|count| *count > 0) else {
        let needs = matches!(keys.arch, Arch::Qwen2Moe | Arch::Qwen3Moe);
        return if needs { Err(missing(&keys.key(key::EXPERTS))) } else { Ok(None) };
    };
    let Some(normalize) = keys.arch.normalizes() else {
        let why = format!("{count} experts; not read of this architecture");
        return Err(keys.unsupported(key::EXPERTS, why));
    };
    for leaf in ["expert_weights_scale", "expert_group_count", "expert_gating_func"] {
        // 1 is a softmax, one group and no change.
        let plain = |it: &f64| [0.0, 1.0].contains(it);
        if let Some(found) = keys.number(leaf)?.filter(|it| !plain(it)) {
            return Err(keys.unsupported(leaf, format!("{found}, no config says it")));
        }
    }
    let used = keys.needed(key::EXPERTS_USED)?;
    if keys.arch == Arch::Llama {
        return Ok(Some(json!({
            "architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
            "num_local_experts": count, "num_experts_per_tok": used, "sliding_window": window,
        })));
    }
    let width = keys.size(key::EXPERT_WIDTH)?;
    let width = width.or(keys.size(key::MLP_WIDTH)?.map(|all| all / used.max(1)));
    let width = width.ok_or_else(|| missing(&keys.key(key::EXPERT_WIDTH)))?;
    let mut config = json!({
        "num_experts": count, "num_experts_per_tok": used, "moe_intermediate_size": width,
        "norm_topk_prob": normalize, "decoder_sparse_step": 1, "mlp_only_layers": [],
    });
    let own = if keys.arch == Arch::Qwen2Moe {
        let shared = keys.size(key::SHARED_WIDTH)?;
        json!({
            "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe",
            "shared_expert_intermediate_size": shared.or(keys.size(key::MLP_WIDTH)?),
            "qkv_bias": keys.has(Role::Q, Part::Bias),
        })
    } else {
        json!({
            "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
            "attention_bias": keys.has(Role::Q, Part::Bias),
        })
    };
    if let (Some(config), serde_json::Value::Object(own)) = (config.as_object_mut(), own) {
        config.extend(own);
    }
    Ok(Some(config))
}
