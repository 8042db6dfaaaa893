//! What a quantized weight is, and its bytes.
//!
//! [`IntScheme`] is the integer grid of compressed-tensors packages, [`ggml`] the blocks of GGUF
//! files. Add a scheme: one file here and one line in its registry.

pub mod ggml;
mod activations;
mod int;
pub mod kv;
mod pack;
mod preset;
mod split;

pub use activations::{ActivationGrid, Activations};
pub use int::{GROUP_SIZES, Granularity, IntScheme, QTensor, Qparams};
pub use kv::KvPrecision;
pub use pack::{DecodeError, Format, Layout, Part, PartKind};
pub use preset::{PRESETS, Preset, TensorScheme, find_preset};
pub use split::{
    ColumnsError, INPUT_SCALE, OUTLIER_GRID, OutlierColumns, Rounded, SplitTensor,
    WeightDecodeError,
};

/// Quantized weights by the name of the weight that each stands for, with its shape `[out, in]`.
pub type Schemes = std::collections::BTreeMap<String, (TensorScheme, [usize; 2])>;
