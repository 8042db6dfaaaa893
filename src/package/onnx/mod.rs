//! ONNX folders: [`Export`] writes a decoder as a graph with its weights in a file beside it;
//! [`super::open`] reads such folders back.
//!
//! Add an operation of the forward pass: `decoder.rs`; a stored tensor: `stored.rs`.
mod data;
mod decoder;
mod encodings;
mod error;
mod experts;
mod export;
mod form;
mod genai;
mod graph;
pub(in crate::package) mod hexagon;
mod layers;
mod names;
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
