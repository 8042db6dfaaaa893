//! Qwen2-MoE: Qwen2 with routed experts and one shared expert behind a gate.
use super::{Defaults, ExpertRule, Family, Switch, WindowRule, qwen2, window::Windowed};

pub(super) const FAMILY: Family = Family {
    name: "qwen2-moe",
    architecture: "Qwen2MoeForCausalLM",
    model_type: "qwen2_moe",
    defaults: Defaults { kv_heads: Some(16), ..qwen2::FAMILY.defaults },
    window: Some(WindowRule {
        if_used: true,
        listed: true,
        unlisted: Windowed::EvenBelow,
        default: Some(4096),
    }),
    qkv_bias: Switch::Key("qkv_bias", true),
    experts: Some(ExpertRule {
        shared: Some(("mlp.shared_expert", "mlp.shared_expert_gate")),
        ..ROUTED
    }),
    ..qwen2::FAMILY
};

/// Qwen's names and rules for routed experts.
pub(super) const ROUTED: ExpertRule = ExpertRule {
    router: "mlp.gate",
    gate: "mlp.experts.{}.gate_proj",
    up: "mlp.experts.{}.up_proj",
    down: "mlp.experts.{}.down_proj",
    count: "num_experts",
    per_token: 4,
    some_dense: true,
    width: "moe_intermediate_size",
    shared: None,
    normalize: Switch::Key("norm_topk_prob", false),
};
