//! Mixtral: Mistral with a mixture of experts in every block.
use super::{Defaults, ExpertRule, Family, Switch, WindowRule, mistral, window::Windowed};

pub(super) const FAMILY: Family = Family {
    name: "mixtral",
    architecture: "MixtralForCausalLM",
    model_type: "mixtral",
    defaults: Defaults { rope_theta: 1e6, norm_eps: 1e-5, ..mistral::FAMILY.defaults },
    window: Some(WindowRule {
        if_used: false,
        listed: false,
        unlisted: Windowed::Every,
        default: None,
    }),
    experts: Some(ExpertRule {
        router: "block_sparse_moe.gate",
        gate: "block_sparse_moe.experts.{}.w1",
        up: "block_sparse_moe.experts.{}.w3",
        down: "block_sparse_moe.experts.{}.w2",
        count: "num_local_experts",
        per_token: 2,
        some_dense: false,
        width: "intermediate_size",
        shared: None,
        normalize: Switch::Always,
    }),
    ..mistral::FAMILY
};
