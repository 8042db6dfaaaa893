//! Hugging Face directories: safetensors shards and JSON files, in and out.
//!
//! In: a [`Folder`] gives files and memory-mapped tensors. Out: an [`OutputDir`] appears under its
//! name only when it is complete, and a [`ShardWriter`] streams tensors into it.
//! Add a carried demonstration model: a folder under `builtin/` and one line in `builtin.rs`.

mod builtin;
mod error;
mod file;
mod finite;
mod folder;
mod hashed;
mod header;
mod hint;
mod lines;
mod mark;
mod output;
mod place;
mod shards;
pub mod synth;
mod temporary;
mod unfinished;
mod work;
mod writer;

pub use builtin::{BUILTIN_PREFIX, BUILTINS, Builtin};
pub use error::{CheckpointError, HeaderError};
pub use file::{OutputFile, check_file, write_file};
pub use finite::{NonFinite, find_nonfinite};
pub use folder::Folder;
pub use hashed::{FileRecord, HashedFile};
pub use header::{metadata as safetensors_metadata, parse as parse_safetensors};
pub use lines::{LineFile, LineFileError};
pub use output::{OutputDir, remove_output};
pub use shards::{INDEX_FILE, Tensors, WEIGHTS_FILE};
pub use unfinished::remove_unfinished;
pub use work::{WorkDir, difference};
pub use writer::{
    DEFAULT_SHARD_BYTES, ShardWriter, TensorPlan, TensorRecord, Written, hex, safetensors_header,
    sha256,
};
