//! Choices about models that several verbs share.
use crate::{
    forward::{Backend, Reference},
    model::Model,
    runtime::{Kernels, kernel::Isa},
    scheme::KvPrecision,
    tensor::FloatType,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How weights are held and multiplied.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(super) enum BackendName {
    /// Every weight in float32, activations as they are
    Reference,
    /// Packed weights and integer products, as `run` does it
    #[default]
    Kernels,
}

impl BackendName {
    pub(super) fn backend(self) -> Box<dyn Backend> {
        match self {
            Self::Reference => Box::new(Reference),
            Self::Kernels => Box::new(Kernels::new()),
        }
    }

    /// The instruction set that it multiplies with.
    pub(super) fn isa(self) -> &'static str {
        match self {
            Self::Reference => "float32 reference",
            Self::Kernels => {
                let all = Isa::available();
                all.iter().find(|(_, isa)| *isa == Isa::active()).map_or("scalar", |(name, _)| name)
            }
        }
    }
}

/// A model whose keys and values are held as wanted, or as it says itself.
pub(super) fn with_kv_cache(model: &Model, wanted: Option<KvPrecision>) -> Cow<'_, Model> {
    let Some(wanted) = wanted.filter(|it| *it != model.spec.kv_cache) else {
        return Cow::Borrowed(model);
    };
    let mut model = model.clone();
    model.spec.kv_cache = wanted;
    Cow::Owned(model)
}

/// A float format of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FloatName {
    #[default]
    F32,
    Bf16,
    F16,
}

impl FloatName {
    pub(super) fn float(self) -> FloatType {
        match self {
            Self::F32 => FloatType::F32,
            Self::Bf16 => FloatType::Bf16,
            Self::F16 => FloatType::F16,
        }
    }
}
