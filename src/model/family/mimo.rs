//! `MiMo`: Qwen2 with layers for multi-token prediction beside the main path.
use super::{ExtraLayers, Family, qwen2};

pub(super) const FAMILY: Family = Family {
    name: "mimo",
    architecture: "MiMoForCausalLM",
    model_type: "mimo",
    extra_layers: Some(ExtraLayers {
        prefix: "model.mtp_layers.",
        count: "num_nextn_predict_layers",
        norms: ["hidden_layernorm.weight", "token_layernorm.weight", "final_layernorm.weight"],
        input: "input_proj.weight",
    }),
    ..qwen2::FAMILY
};
