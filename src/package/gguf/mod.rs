//! GGUF files (ggml `docs/gguf.md`): [`open`] reads the header, [`Import`] makes a Hugging Face
//! directory of a file.
//!
//! Add an architecture: its name and switches in `config.rs`; a tensor: one line in `names.rs`; a
//! pre-tokenizer: its name in `bpe.rs`.
mod bpe;
mod config;
mod error;
mod file;
mod import;
mod names;
mod parse;
mod spm;
mod tokenizer;
mod value;

pub use error::{ContentError, GgufError, ParseError};
pub use file::{Gguf, open};
pub use import::Import;
pub use names::{gguf_name, place};
pub use parse::TensorInfo;
pub use value::{Array, Value, ValueType};
