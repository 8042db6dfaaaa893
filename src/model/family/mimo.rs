//! `MiMo`: Qwen2 with layers for multi-token prediction beside the main path.
use super::{ExtraLayers, Family, qwen2};

pub(super) const FAMILY: Family = Family {
    name: "mimo",
    architecture: "MiMoForCausalLM",
    model_type: "mimo",
    extra_layers: Some(ExtraLayers {
        prefix: "model.mtp_layers.",
        count: "num_nextn_predict_layers",
    }),
    ..qwen2::FAMILY
};
