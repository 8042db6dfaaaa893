//! `MiMo`: Qwen2 with layers for multi-token prediction, which are carried along untouched.
use super::{Family, qwen2};

pub(super) const FAMILY: Family =
    Family { name: "mimo", architecture: "MiMoForCausalLM", model_type: "mimo", ..qwen2::FAMILY };
