//! Choices about models that several verbs share.
use crate::{
    forward::{Backend, Reference},
    runtime::{Kernels, kernel::Isa},
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
