//! GGUF in and out: block formats, the reader, hostile files, whole models, other engines.
mod blocks;
mod build;
mod ends;
mod experts;
pub(crate) mod export;
mod hostile;
mod models;
mod quantized;
mod sealed;
mod smollm2;
mod split;
mod tokenizers;
