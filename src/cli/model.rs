//! Choices about models that several verbs share.
use crate::forward::{Backend, Reference};

/// How weights are held and multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
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
            Self::Reference | Self::Kernels => Box::new(Reference),
        }
    }

    /// The instruction set that it multiplies with.
    pub(super) fn isa(self) -> &'static str {
        match self {
            Self::Reference | Self::Kernels => "float32",
        }
    }
}
