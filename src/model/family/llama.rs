//! Llama, and MiLM in Llama's form: pre-norm blocks, grouped-query attention, gated MLP.
use super::{Defaults, Family, Switch};

pub(super) const FAMILY: Family = Family {
    name: "llama",
    architecture: "LlamaForCausalLM",
    model_type: "llama",
    defaults: Defaults {
        rope_theta: 10_000.0,
        norm_eps: 1e-6,
        positions: 2048,
        kv_heads: None,
        head_dim: None,
    },
    qkv_bias: Switch::Key("attention_bias", false),
    o_bias: Switch::Key("attention_bias", false),
    mlp_bias: Switch::Key("mlp_bias", false),
    qk_norm: false,
    window: None,
    experts: None,
    extra_layers: None,
};
