//! Qwen2: biases on query, key and value.
use super::{Family, Switch, WindowRule, llama};

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    architecture: "Qwen2ForCausalLM",
    model_type: "qwen2",
    qkv_bias: Switch::Always,
    o_bias: Switch::Never,
    mlp_bias: Switch::Never,
    window: WindowRule::UpperBlocksIfUsed,
    ..llama::FAMILY
};
