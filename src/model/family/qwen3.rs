//! Qwen3: queries and keys are normalized per head.
use super::{Defaults, Family, Switch, qwen2};

pub(super) const FAMILY: Family = Family {
    name: "qwen3",
    architecture: "Qwen3ForCausalLM",
    model_type: "qwen3",
    defaults: Defaults { head_dim: Some(128), ..qwen2::FAMILY.defaults },
    qkv_bias: Switch::Key("attention_bias", false),
    o_bias: Switch::Key("attention_bias", false),
    qk_norm: true,
    ..qwen2::FAMILY
};
