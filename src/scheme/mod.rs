//! What a quantized weight is, and its bytes.
//!
//! [`Grid`] says what a grid of numbers is; `grids.rs` lists those that weights may lie on, [`ggml`]
//! the blocks of GGUF files. Add a grid: one file here and one line in its registry.

pub mod ggml;
mod activations;
mod e2m1;
mod error;
mod grid;
mod grids;
mod groups;
mod int;
mod int_grid;
pub mod kv;
mod mxfp4;
mod pack;
mod preset;
mod split;

pub use activations::{ActivationGrid, Activations};
pub use error::{ColumnsError, DecodeError, ScaleError, WeightDecodeError};
pub use grid::{Described, Grid, Method, Rows, ScaleRule, Stored};
pub use grids::WeightGrid;
pub use int::{GROUP_SIZES, Granularity, IntScheme, QTensor, Qparams};
pub use kv::KvPrecision;
pub use mxfp4::Mxfp4;
pub use pack::{Format, Part, PartKind};
pub use preset::{PRESETS, Preset, TensorScheme, find_preset};
pub use split::{INPUT_SCALE, OUTLIER_GRID, OutlierColumns, Rounded, SplitTensor};

/// Quantized weights by the name of the weight that each stands for, with its shape `[out, in]`.
pub type Schemes = std::collections::BTreeMap<String, (TensorScheme, [usize; 2])>;
