//! What a transform did, for reports and manifests.
use serde::{Deserialize, Serialize};

/// What a transform did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Kind of the rotation of the residual stream.
    pub rotation: String,
    /// What random signs were drawn from.
    pub seed: u64,
    /// The rotation of the residual stream.
    pub residual: Option<MatrixReport>,
    /// The rotations of the values, one per key/value head.
    pub values: Option<MatrixReport>,
    /// Hadamard matrices before down projections, multiplied at run time.
    pub down_input: Vec<String>,
    /// Hadamard matrices of queries and keys, multiplied at run time.
    pub keys: Vec<String>,
    /// Matrices that stand in for Hadamard matrices that are not known here.
    pub fallbacks: Vec<String>,
    /// What became of the head.
    pub head: HeadForm,
    /// Numbers that the head needs in addition: of a correction in float16, or of a matrix.
    pub head_values: u64,
    /// How a learned rotation was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned: Option<Learned>,
}

/// Matrices of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixReport {
    /// Width.
    pub width: usize,
    /// How many.
    pub count: usize,
    /// How they are made.
    pub form: String,
    /// SHA-256 of all of them in order: float64 little-endian, row-major.
    pub sha256: String,
}

/// What became of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadForm {
    /// As it was: nothing is rotated, or the head has a matrix of its own.
    Kept,
    /// Tied still, with a matrix before it.
    Corrected,
    /// No longer tied.
    Untied,
}

/// How a learned rotation was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// Steps taken.
    pub steps: usize,
    /// Mean square error of int4 tokens over their mean square, before the first step.
    pub before: f64,
    /// The same at the end.
    pub after: f64,
}
