//! Qwen3-MoE: Qwen3 with routed experts.
use super::{Defaults, ExpertRule, Family, WindowRule, qwen2, qwen2_moe, qwen3, window::Windowed};

pub(super) const FAMILY: Family = Family {
    name: "qwen3-moe",
    architecture: "Qwen3MoeForCausalLM",
    model_type: "qwen3_moe",
    defaults: Defaults { kv_heads: Some(4), ..qwen2::FAMILY.defaults },
    window: Some(WindowRule {
        if_used: true,
        listed: false,
        unlisted: Windowed::Every,
        default: Some(4096),
    }),
    experts: Some(ExpertRule { per_token: 8, ..qwen2_moe::ROUTED }),
    ..qwen3::FAMILY
};
