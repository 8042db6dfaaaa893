//! Llama, and MiLM in Llama's form: pre-norm blocks, grouped-query attention, gated MLP.
use super::{Family, Switch, WindowRule};

pub(super) const FAMILY: Family = Family {
    name: "llama",
    architecture: "LlamaForCausalLM",
    model_type: "llama",
    qkv_bias: Switch::Key("attention_bias", false),
    o_bias: Switch::Key("attention_bias", false),
    mlp_bias: Switch::Key("mlp_bias", false),
    qk_norm: false,
    window: WindowRule::Never,
    experts: None,
};
