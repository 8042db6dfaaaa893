//! Names that the writer and the reader of a folder share.
use crate::model::{Role, TensorSpec};

/// The graph.
pub const GRAPH_FILE: &str = "model.onnx";
/// The weights.
pub const DATA_FILE: &str = "model.onnx.data";
/// The program's name in a graph.
pub(super) const PRODUCER: &str = "milm-compress";
/// Keys of what a reader of our own needs.
pub(super) const FORM_KEY: &str = "milm.form";
pub(super) const CONFIG_KEY: &str = "milm.config";
pub(super) const SCHEMES_KEY: &str = "milm.schemes";
pub(super) const GRIDS_KEY: &str = "milm.activations";
pub(super) const INPUT_SCALES_KEY: &str = "milm.input_scales";
/// SHA-256 of each tensor, in the order of the graph.
pub(super) const HASHES_KEY: &str = "milm.tensor_sha256";
pub(super) const PACKAGE_KEY: &str = "milm.package_sha256";
pub(super) const SOURCE_KEY: &str = "milm.source_sha256";
/// What `FORM_KEY` says.
pub(super) const FORM: &str = "1";

/// The head that is tied to a table, where it is a tensor of its own.
pub(super) fn head_of(table: &str) -> String {
    format!("{table}{HEAD}")
}

/// The table that a tensor is the head of.
pub(super) fn table_of(head: &str) -> Option<&str> {
    head.strip_suffix(HEAD)
}

const HEAD: &str = ".head";

/// Whether a matrix is stored as `[in, out]`.
pub(super) fn is_turned(tensor: &TensorSpec) -> bool {
    tensor.input.is_some() && tensor.role != Role::Embed
}
