//! Bytes that are no weight.

/// The bytes do not describe a weight of the expected shape.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("part `{part}`: expected {expected} bytes, got {got}")]
pub struct DecodeError {
    /// Offending part.
    pub part: &'static str,
    /// Bytes that the shape needs.
    pub expected: usize,
    /// Bytes found.
    pub got: usize,
}

/// A power of two that is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "row {row}, group {group}: expected an exponent from 0 to 254 (E8M0), found 255, which is no number\nhint: the file is damaged; `milm-compress verify` names what has changed"
)]
pub struct ScaleError {
    /// Row of the weight.
    pub row: usize,
    /// Group in that row.
    pub group: usize,
}

/// Places that are not those of outliers.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "expected some ascending places below {total}, found {found} at position {at}\nhint: the file is damaged; `milm-compress verify` names what has changed"
)]
pub struct ColumnsError {
    /// Columns of the weight.
    pub total: usize,
    /// Position in the list.
    pub at: usize,
    /// What stands there.
    pub found: u32,
}

/// The bytes do not describe a weight of the expected shape.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WeightDecodeError {
    /// A part of the wrong size.
    #[error(transparent)]
    Part(#[from] DecodeError),
    /// A scale that is no number.
    #[error("part `weight_scale`: {0}")]
    Scale(#[from] ScaleError),
    /// Places that are not those of outliers.
    #[error("part `outliers.columns`: {0}")]
    Columns(#[from] ColumnsError),
}
