//! Named schemes: what `--scheme` takes.
use super::{Activations, Format, WeightGrid};
use crate::tensor::FloatType;

/// How one weight is stored and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TensorScheme {
    /// The weight's grid.
    pub weights: WeightGrid,
    /// Type of the stored scales.
    pub scale_type: FloatType,
    /// The input of its product.
    pub activations: Activations,
    /// How its codes lie in a file; the names of the stored tensors tell.
    #[serde(skip)]
    pub format: Format,
    /// Columns that are kept at int8 on their own grid; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub outliers: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl std::fmt::Display for TensorScheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.outliers {
            0 => self.weights.fmt(f),
            count => write!(f, "{} + {count} columns int8", self.weights),
        }
    }
}

/// A name for a grid of weights and for activations.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// `w4a16` and its like.
    pub name: &'static str,
    /// The grid of weights, with the groups that it has unless others are wanted.
    pub weights: WeightGrid,
    /// The input of each product.
    pub activations: Activations,
    /// One line for `--help`.
    pub about: &'static str,
}

/// Every preset, in the order of `--help`.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "w8a16",
        weights: WeightGrid::INT8,
        activations: Activations::Float,
        about: "int8 weights, float activations",
    },
    Preset {
        name: "w8a8",
        weights: WeightGrid::INT8,
        activations: Activations::Int8PerToken,
        about: "int8 weights, int8 activations (dynamic, per token)",
    },
    Preset {
        name: "w4a16",
        weights: WeightGrid::INT4,
        activations: Activations::Float,
        about: "int4 weights, float activations",
    },
    Preset {
        name: "w4a8",
        weights: WeightGrid::INT4,
        activations: Activations::Int8PerToken,
        about: "int4 weights, int8 activations (dynamic, per token)",
    },
    Preset {
        name: "mxfp4",
        weights: WeightGrid::MXFP4,
        activations: Activations::Float,
        about: "4-bit floats with a power of two per 32 inputs (OCP MX), float activations",
    },
];

/// The preset with this name, in any case (`W4A16`, `w4a16`).
pub fn find_preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|p| p.name.eq_ignore_ascii_case(name))
}
