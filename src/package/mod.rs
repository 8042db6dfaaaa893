//! What devices load: directories in compressed-tensors form, GGUF.

pub mod compressed_tensors;
pub mod gguf;
