//! Qwen3-MoE: Qwen3 with routed experts.
use super::{Family, WindowRule, qwen2_moe, qwen3};

pub(super) const FAMILY: Family = Family {
    name: "qwen3-moe",
    architecture: "Qwen3MoeForCausalLM",
    model_type: "qwen3_moe",
    window: WindowRule::EveryBlockIfUsed,
    experts: Some(qwen2_moe::ROUTED),
    ..qwen3::FAMILY
};
