//! ONNX folders: [`Export`] writes a decoder as a graph with its weights in a file beside it;
//! [`super::open`] reads such folders back.
//!
//! Add an op of blocks: its nodes in `decoder.rs`, those of MLPs in `mlp.rs`; a stored tensor: `stored.rs`.
mod data;
mod decoder;
mod encodings;
mod error;
mod export;
mod form;
mod genai;
mod graph;
pub(in crate::package) mod hexagon;
mod layers;
mod mlp;
mod names;
pub(in crate::package) mod openvino;
mod positions;
mod proto;
mod read;
mod stored;
mod weights;

pub use super::format::{EncodingsVersion, GraphForm};
pub use encodings::{Coverage, ENCODINGS_FILE, UNCOVERED_FILE};
pub use error::OnnxError;
pub use export::{Export, ExportOptions, accepts};
pub(super) use form::Form;
pub use names::{DATA_FILE, GRAPH_FILE};
