//! Mistral: Llama without biases, with a sliding window.
use super::{Family, Switch, WindowRule, llama};

pub(super) const FAMILY: Family = Family {
    name: "mistral",
    architecture: "MistralForCausalLM",
    model_type: "mistral",
    qkv_bias: Switch::Never,
    o_bias: Switch::Never,
    mlp_bias: Switch::Never,
    window: WindowRule::EveryBlock,
    ..llama::FAMILY
};
