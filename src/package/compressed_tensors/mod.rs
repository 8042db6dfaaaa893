//! Hugging Face directories in compressed-tensors form.
//!
//! Source of names and rules: compressed-tensors 0.19, `quantization/{quant_config, quant_args,
//! quant_scheme}` and `compressors/`.

mod config;
mod keys;
mod order;
mod read;
mod transform;
mod vllm;

pub(super) use config::{Description, describe};
pub(super) use order::settle;
pub(super) use read::{read_schemes, stored_format};
pub use vllm::{Refusal, vllm};

/// `quant_method` of the packages that are read and written.
pub const METHOD: &str = "compressed-tensors";
