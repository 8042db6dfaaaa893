//! Gemma 3, text: norms behind both halves, too, gains about 1, two ropes, a window in five of six blocks.
use super::{Activation, Defaults, Family, Op, Role, Switch, WindowRule, llama, window::Windowed};

pub(super) const FAMILY: Family = Family {
    name: "gemma3",
    architecture: "Gemma3ForCausalLM",
    model_type: "gemma3_text",
    defaults: Defaults {
        rope_theta: 1e6,
        norm_eps: 1e-6,
        positions: 131_072,
        kv_heads: Some(4),
        head_dim: Some(256),
        tied: true,
    },
    mlp_bias: Switch::Never,
    attention: &[
        Op::Norm(Role::AttnNorm),
        Op::Heads,
        Op::HeadNorms,
        Op::Turn,
        Op::Attend { width: None },
        Op::Linear(Role::O),
        Op::Norm(Role::PostAttnNorm),
    ],
    mlp: &[
        Op::Norm(Role::MlpNorm),
        Op::Gate(Activation::GeluTanh),
        Op::Linear(Role::Down),
        Op::Norm(Role::PostMlpNorm),
    ],
    norms: &[
        (Role::AttnNorm, "input_layernorm"),
        (Role::PostAttnNorm, "post_attention_layernorm"),
        (Role::MlpNorm, "pre_feedforward_layernorm"),
        (Role::PostMlpNorm, "post_feedforward_layernorm"),
    ],
    activation_key: "hidden_activation",
    score_width: Some(("query_pre_attn_scalar", 256)),
    gain_offset: 1.0,
    scales_embedding: true,
    local_rope: Some(("rope_local_base_freq", 10_000.0)),
    refused: &["attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"],
    window: Some(WindowRule {
        if_used: false,
        listed: true,
        unlisted: Windowed::AllButEvery("sliding_window_pattern", 6),
        default: Some(4096),
    }),
    ..llama::FAMILY
};
