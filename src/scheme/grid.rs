//! What a grid of numbers for weights is: which values there are, how floats become codes, how
//! codes become bytes.
//!
//! Every grid lies on an integer grid: a code is a signed integer, a value `(code − zero_point) ·
//! scale`, both exact. That is what [`QTensor`] holds, what algorithms choose and what kernels
//! multiply; a grid decides which integers and scales there are, and how they are stored.
use super::{
    Activations, Granularity, IntScheme, QTensor, Qparams, ScaleError, WeightDecodeError,
    ggml::BlockFormat,
    pack::{Format, Part, PartKind},
};
use crate::tensor::FloatType;

/// How scales are chosen.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The largest magnitude of a group lands on the end of the grid
    Minmax,
    /// As minmax, but on the highest code of symmetric grids: the lowest one is not used
    Absmax,
    /// The scale with the least squared error of those tried
    #[default]
    Mse,
    /// As mse, of positive scales only: for engines that know no mirrored grids
    MsePositive,
}

/// How the scales of a weight are chosen and stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleRule {
    /// How they are chosen.
    pub method: Method,
    /// Type that they are stored in, where the grid has no type of its own.
    pub scale_type: FloatType,
}

/// Where the codes of some rows go.
#[derive(Debug)]
pub struct Rows<'a> {
    /// `[rows, columns]`.
    pub codes: &'a mut [i8],
    /// `[rows, groups]`.
    pub scales: &'a mut [f32],
    /// `[rows, groups]`, or empty for symmetric grids.
    pub zero_points: &'a mut [i8],
}

/// What decides about the bytes of a weight beside its grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// How codes lie.
    pub format: Format,
    /// Type of scales, where the grid has no type of its own.
    pub scale_type: FloatType,
}

/// A grid as the `weights` of a group of compressed-tensors says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// `type`: `int` or `float`.
    pub kind: &'static str,
    /// `scale_dtype`, where it is not that of the model.
    pub scale_dtype: Option<&'static str>,
    /// `zp_dtype`, where there are zero points.
    pub zero_point_dtype: Option<&'static str>,
}

/// A grid of numbers for weights. Add one: a file that implements this, and a line in
/// `grids.rs`.
pub trait Grid: Sync {
    /// `int4`, `mxfp4`.
    fn name(&self) -> &'static str;

    /// As people read it, e.g. `int4 sym g64`.
    fn shown(&self) -> String;

    /// Bits of a stored code.
    fn bits(&self) -> u32;

    /// Whether no zero points are stored.
    fn symmetric(&self) -> bool;

    /// Which weights share a scale.
    fn granularity(&self) -> Granularity;

    /// The same numbers with scales for other groups, and with or without zero points; `None`
    /// where there is no such grid.
    fn with(&self, granularity: Granularity, symmetric: bool) -> Option<Self>
    where
        Self: Sized;

    /// The integer grid that holds every value exactly.
    fn integers(&self) -> IntScheme;

    /// The nearest code of a value. Ties go to even codes.
    fn encode(&self, x: f32, q: Qparams) -> i8;

    /// The scale nearest to `x` that can be stored; 0 where none is near.
    fn round_scale(&self, x: f32, stored: FloatType) -> f32;

    /// Chooses scales and the nearest codes for whole rows: `values` are `[rows, columns]`, finite.
    /// The groups divide `columns`.
    fn round(&self, values: &[f32], columns: usize, rule: ScaleRule, rows: Rows<'_>);

    /// Chooses scales alone, with each squared error weighted by its column: `weights` is
    /// `[columns]`, above 0.
    fn choose(
        &self,
        values: &[f32],
        weights: &[f32],
        rule: ScaleRule,
        parameters: (&mut [f32], &mut [i8]),
    );

    /// How codes lie in a file of a weight whose product sees such activations.
    fn format(&self, activations: Activations) -> Format;

    /// How compressed-tensors describes the grid.
    fn described(&self) -> Described;

    /// The tensors that a weight of `shape` (`[out, in]`) becomes, codes first. `None` when the
    /// groups do not divide the columns.
    fn parts(&self, stored: Stored, shape: [usize; 2]) -> Option<Vec<Part>>;

    /// Appends the bytes of whole rows of codes, `columns` to a row.
    fn encode_codes(&self, stored: Stored, codes: &[i8], columns: usize, out: &mut Vec<u8>);

    /// The bytes of all scales, `[out, groups]`.
    fn encode_scales(&self, stored: Stored, scales: &[f32]) -> Vec<u8>;

    /// The bytes of all zero points, `[out, groups]`.
    fn encode_zero_points(&self, stored: Stored, zero_points: &[i8], groups: usize) -> Vec<u8>;

    /// Refuses bytes of scales, `[out, groups]`, that can be no numbers. Those of floats are looked at
    /// when they are used.
    fn check_scales(&self, _bytes: &[u8], _groups: usize) -> Result<(), ScaleError> {
        Ok(())
    }

    /// The weight that its parts describe; `part` gives the bytes of a part by kind.
    fn decode<'a>(
        &self,
        stored: Stored,
        shape: [usize; 2],
        part: &dyn Fn(PartKind) -> &'a [u8],
    ) -> Result<QTensor, WeightDecodeError>;

    /// Whether all codes and scales of a weight on the integer grid are those of this one.
    fn holds(&self, tensor: &QTensor) -> bool;

    /// The ggml blocks that hold the same numbers in rows of `columns`; `None` where no format has
    /// them, or where blocks do not divide the groups.
    fn blocks(&self, columns: usize) -> Option<&'static dyn BlockFormat>;

    /// Appends the [`blocks`](Self::blocks) of one row.
    fn encode_blocks(&self, tensor: &QTensor, row: usize, out: &mut Vec<u8>);

    /// A weight `[rows, columns]` from whole blocks, where `row` gives the bytes of each row. `None`
    /// where the blocks hold numbers that the grid does not have.
    fn decode_blocks<'a>(
        &self,
        shape: [usize; 2],
        row: &dyn Fn(usize) -> &'a [u8],
    ) -> Option<QTensor>;
}
