//! Qwen3: queries and keys are normalized per head.
use super::{Defaults, Family, Op, Role, Switch, qwen2};

pub(super) const FAMILY: Family = Family {
    name: "qwen3",
    architecture: "Qwen3ForCausalLM",
    model_type: "qwen3",
    defaults: Defaults { head_dim: Some(128), ..qwen2::FAMILY.defaults },
    qkv_bias: Switch::Key("attention_bias", false),
    o_bias: Switch::Key("attention_bias", false),
    attention: &[
        Op::Norm(Role::AttnNorm),
        Op::Heads,
        Op::HeadNorms,
        Op::Turn,
        Op::Attend { width: None },
        Op::Linear(Role::O),
    ],
    ..qwen2::FAMILY
};
