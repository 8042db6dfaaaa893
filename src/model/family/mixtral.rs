//! Mixtral: Mistral with a mixture of experts in every block.
use super::{ExpertRule, Family, Switch, mistral};

pub(super) const FAMILY: Family = Family {
    name: "mixtral",
    architecture: "MixtralForCausalLM",
    model_type: "mixtral",
    experts: Some(ExpertRule {
        router: "block_sparse_moe.gate",
        gate: "block_sparse_moe.experts.{}.w1",
        up: "block_sparse_moe.experts.{}.w3",
        down: "block_sparse_moe.experts.{}.w2",
        width: "intermediate_size",
        shared: None,
        normalize: Switch::Always,
    }),
    ..mistral::FAMILY
};
