//! What can be wrong with weights that are stored in another form.
use crate::tensor::Dtype;

/// Tensors of a form that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// A quantization that is not read at all.
    #[error(
        "config.json: `quantization_config`: quant_method `{method}` is not supported\nhint: {hint}"
    )]
    Method {
        /// Its name.
        method: String,
        /// What to do.
        hint: &'static str,
    },
    /// A key of an fp8 checkpoint that is not understood.
    #[error(
        "config.json: `quantization_config`: {key} `{found}` is not supported in an fp8 checkpoint\nhint: read are E4M3 weights with scales for blocks (`weight_block_size`) or for whole tensors; give the float checkpoint that it was made from"
    )]
    Key {
        /// The key.
        key: String,
        /// What stands there.
        found: String,
    },
    /// Codes without scales.
    #[error(
        "tensor `{tensor}` is {dtype}, and {reason}\nhint: fetch config.json and every shard of the same version again; only checkpoints with `quant_method` `fp8` hold such tensors"
    )]
    NoScales {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: Dtype,
        /// What is missing.
        reason: String,
    },
    /// Scales that do not fit their weight.
    #[error(
        "tensor `{tensor}`: expected F32, F16 or BF16 {expected:?}, a scale for each block of {block:?} of a weight of {weight:?}; found {dtype} {found:?}\nhint: weights and `weight_block_size` come from different versions; fetch the folder again"
    )]
    Scales {
        /// The tensor of scales.
        tensor: String,
        /// By the weight's shape.
        expected: Vec<usize>,
        /// `weight_block_size`.
        block: [usize; 2],
        /// Shape of the weight.
        weight: Vec<usize>,
        /// In the file.
        dtype: Dtype,
        /// In the file.
        found: Vec<usize>,
    },
    /// A code or scale that is not a number.
    #[error(
        "tensor `{tensor}` holds NaN at element {at}\nhint: the checkpoint is damaged; fetch it again"
    )]
    NotANumber {
        /// The tensor.
        tensor: String,
        /// Index of the element, row-major.
        at: usize,
    },
    /// Joined experts of another shape.
    #[error(
        "tensor `{tensor}`: config.json gives the shape {expected:?} for all experts in one tensor, the file {found:?}\nhint: experts are read as transformers 5 saves them, outputs before inputs; save the checkpoint again with transformers"
    )]
    Joined {
        /// The tensor.
        tensor: String,
        /// By the architecture.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A weight that stands in the files twice, joined and alone.
    #[error(
        "tensor `{tensor}` is in the files, and again as a part of `{joined}`\nhint: remove the file that does not belong to the checkpoint"
    )]
    Twice {
        /// The weight.
        tensor: String,
        /// The tensor that holds it too.
        joined: String,
    },
}
