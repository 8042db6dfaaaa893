//! Llama, and MiLM in Llama's form: pre-norm blocks, grouped-query attention, gated MLP.
use super::{Activation, Defaults, Family, Op, Role, Switch};

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
        tied: false,
    },
    qkv_bias: Switch::Key("attention_bias", false),
    o_bias: Switch::Key("attention_bias", false),
    mlp_bias: Switch::Key("mlp_bias", false),
    attention: &[
        Op::Norm(Role::AttnNorm),
        Op::Heads,
        Op::Turn,
        Op::Attend { width: None },
        Op::Linear(Role::O),
    ],
    mlp: &[Op::Norm(Role::MlpNorm), Op::Gate(Activation::Silu), Op::Linear(Role::Down)],
    norms: &[(Role::AttnNorm, "input_layernorm"), (Role::MlpNorm, "post_attention_layernorm")],
    activation_key: "hidden_act",
    score_width: None,
    gain_offset: 0.0,
    scales_embedding: false,
    local_rope: None,
    refused: &[],
    window: None,
    experts: None,
    extra_layers: None,
};
