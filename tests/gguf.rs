//! GGUF in: block formats, the reader, hostile files, whole models.
mod blocks;
mod build;
mod hostile;
mod models;
mod smollm2;
mod tokenizers;
