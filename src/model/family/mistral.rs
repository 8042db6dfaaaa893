//! Mistral: Llama without biases, with a sliding window.
use super::{Defaults, Family, Switch, WindowRule, llama, window::Windowed};

pub(super) const FAMILY: Family = Family {
    name: "mistral",
    architecture: "MistralForCausalLM",
    model_type: "mistral",
    defaults: Defaults { positions: 131_072, kv_heads: Some(8), ..llama::FAMILY.defaults },
    qkv_bias: Switch::Never,
    o_bias: Switch::Never,
    mlp_bias: Switch::Never,
    window: Some(WindowRule {
        if_used: false,
        listed: true,
        unlisted: Windowed::Every,
        default: Some(4096),
    }),
    ..llama::FAMILY
};
