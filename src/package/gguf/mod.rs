//! GGUF files (ggml `docs/gguf.md`): [`open`] reads the header, [`Import`] makes a Hugging Face
//! directory of a file, [`Export`] writes one of a model that [`accepts`] takes.
//!
//! Add an architecture: its name and rotation in `arch.rs`, a case in `accepts.rs`, its switches in
//! `config.rs`, those of its experts in `experts.rs`; a tensor or key: one line in `names.rs`; a
//! pre-tokenizer: its name in `bpe.rs`.
mod accepts;
mod arch;
mod bpe;
mod config;
mod data;
mod ends;
mod error;
mod experts;
mod export;
mod file;
mod form;
mod gemma3;
mod import;
mod inspect;
mod keys;
mod metadata;
mod model;
mod names;
mod parse;
mod rope;
mod schemes;
mod seal;
mod split;
mod spm;
mod stages;
mod tokenizer;
mod tokens;
mod value;
mod verify;
mod vocab;
mod write;

pub use accepts::accepts;
pub use arch::Arch;
pub use ends::{Ends, RoundedTensor};
pub use error::{ContentError, ExportError, GgufError, ParseError, SplitError, Unsupported};
pub use export::{Export, ExportOptions};
pub use file::Gguf;
pub(super) use form::Form;
pub use import::Import;
pub use names::{Place, gguf_name, place};
pub use parse::TensorInfo;
pub use schemes::accepts_schemes;
pub use seal::{Sealed, header_sha256};
pub use split::open;
pub use value::{Array, Value, ValueType};
