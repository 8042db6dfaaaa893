//! Hugging Face folders: checkpoints, and packages in compressed-tensors form.
//!
//! Source of names and rules: compressed-tensors 0.19, `quantization/{quant_config, quant_args,
//! quant_scheme}` and `compressors/`.

mod config;
mod engines;
mod form;
mod keys;
mod open;
mod order;
mod read;
mod transform;
mod verify;
mod vllm;

pub(super) use config::{Description, describe};
pub(super) use form::Form;
pub use vllm::{Refusal, vllm};

/// `quant_method` of the packages that are read and written.
pub const METHOD: &str = "compressed-tensors";
