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
