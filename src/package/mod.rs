//! What devices load: directories in compressed-tensors form, GGUF.
//!
//! A package is a Hugging Face directory with a [`Manifest`] `milm.json`: what was done, the
//! scheme of each weight, the hash of every tensor and file.

mod checkpoint;
pub mod compressed_tensors;
pub mod format;
pub mod gguf;
mod engines;
mod error;
mod inspect;
mod kept;
mod medusa;
pub mod onnx;
mod opened;
mod session;
mod stored;
mod stream;
mod tokenizer;
mod trust;
mod write;

pub use checkpoint::Rewritten;
pub use engines::{Declared, EngineFit};
pub use error::PackageError;
pub use format::{engines, holds_weights, inspect, open, verify, verify_deep};
pub use inspect::{
    INSPECTION_SCHEMA, Inspected, Inspection, RoleFigures, TensorFigures, inspect_model,
};
pub use kept::Kept;
pub use medusa::{MedusaError, MedusaHead, MedusaHeads};
pub use opened::{Kind, Opened};
pub use stored::StoredError;
pub(crate) use stream::{BAND_BYTES, PIECE as PIECE_WEIGHTS};
pub use tokenizer::StoredText;
pub use trust::{
    Exported, MANIFEST_FILE, Manifest, Problem, QuantizedTensor, SCHEMA, SIGNATURE_FILE, Source,
    Tool, Verification, check_signature, new_keys, sbom, sign,
};
pub use write::{Estimate, Job, Summary, refuse_over_input, set_evaluation};
