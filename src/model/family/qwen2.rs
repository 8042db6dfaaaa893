//! Qwen2: biases on query, key and value.
use super::{Defaults, Family, Switch, WindowRule, llama, window::Windowed};

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    architecture: "Qwen2ForCausalLM",
    model_type: "qwen2",
    defaults: Defaults { positions: 32_768, kv_heads: Some(32), ..llama::FAMILY.defaults },
    qkv_bias: Switch::Always,
    o_bias: Switch::Never,
    mlp_bias: Switch::Never,
    window: Some(WindowRule {
        if_used: true,
        listed: true,
        unlisted: Windowed::Upper,
        default: Some(4096),
    }),
    ..llama::FAMILY
};
