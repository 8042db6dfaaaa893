//! Choices about models that several verbs share.
use crate::{
    forward::{Backend, Reference},
    runtime::{Kernels, kernel::Isa},
    tensor::FloatType,
};

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
    #[default]
    Reference,
    /// Packed weights and integer products, as `run` does it
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

/// A float format of weights.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
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
