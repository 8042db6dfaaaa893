//! Weights whose columns lie on two grids: most on one, a few outliers on int8.
//!
//! A weight `[out, in]` with k outliers is a base `[out, in − k]` on the scheme's grid and an
//! outlier part `[out, k]` on [`OUTLIER_GRID`], both with their columns in ascending order. Its
//! product is the sum of two products (`QUIK`, arXiv 2310.09259; `ResQ`, arXiv 2412.14363).
use super::{
    Activations, ColumnsError, DecodeError, Format, Granularity, Grid, IntScheme, Part, PartKind,
    QTensor, Stored, TensorScheme, WeightDecodeError,
};
use safetensors::Dtype;

/// The grid of outlier columns: int8, symmetric, one scale per row.
pub const OUTLIER_GRID: IntScheme =
    IntScheme { bits: 8, symmetric: true, granularity: Granularity::Channel };

/// Suffix of the scale of static activations.
pub const INPUT_SCALE: &str = "input_scale";

/// Which columns of a weight are outliers: at least one and not all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierColumns {
    total: usize,
    /// Ascending.
    places: Vec<u32>,
}

impl OutlierColumns {
    /// Some of `total` columns, in ascending order.
    pub fn new(total: usize, places: Vec<u32>) -> Result<Self, ColumnsError> {
        let ascends = |at: usize| at == 0 || places[at - 1] < places[at];
        let wrong = (0..places.len()).find(|at| places[*at] as usize >= total || !ascends(*at));
        if wrong.is_some() || places.is_empty() || places.len() >= total {
            let at = wrong.unwrap_or(0);
            let found = places.get(at).copied().unwrap_or(0);
            return Err(ColumnsError { total, at, found });
        }
        Ok(Self { total, places })
    }

    /// The `count` columns of the largest scores; the first ones among equals.
    ///
    /// # Panics
    /// When `count` is 0, or not below the number of columns.
    pub fn largest(scores: &[f64], count: usize) -> Self {
        let mut ranked: Vec<u32> = (0..scores.len() as u32).collect();
        ranked.sort_by(|a, b| {
            let (x, y) = (scores[*a as usize], scores[*b as usize]);
            y.total_cmp(&x).then(a.cmp(b))
        });
        ranked.truncate(count);
        ranked.sort_unstable();
        Self::new(scores.len(), ranked).expect("a count between 0 and the number of columns")
    }

    /// The last `count` of `total` columns.
    ///
    /// # Panics
    /// When `count` is 0, or not below the number of columns.
    pub fn last(total: usize, count: usize) -> Self {
        let places = (total.saturating_sub(count)..total).map(|at| at as u32).collect();
        Self::new(total, places).expect("a count between 0 and the number of columns")
    }

    /// Columns of the weight.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Columns of the base.
    pub fn base(&self) -> usize {
        self.total - self.places.len()
    }

    /// Places of the outliers, ascending.
    pub fn places(&self) -> &[u32] {
        &self.places
    }

    /// Whether the outliers are the last columns, so that both parts lie in one piece.
    pub fn are_last(&self) -> bool {
        self.places.first().is_some_and(|first| *first as usize == self.base())
    }

    /// Places of the base's columns and behind them those of the outliers, each ascending.
    pub fn order(&self) -> Vec<usize> {
        let mut places = self.places.iter().map(|at| *at as usize).peekable();
        let mut order: Vec<usize> =
            (0..self.total).filter(|at| places.next_if_eq(at).is_none()).collect();
        order.extend(self.places.iter().map(|at| *at as usize));
        order
    }
}

/// A weight on two grids.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitTensor {
    /// Shape `[out, in]` of the whole.
    pub shape: [usize; 2],
    /// Which columns the outliers are.
    pub columns: OutlierColumns,
    /// `[out, in − k]`.
    pub base: QTensor,
    /// `[out, k]`.
    pub outliers: QTensor,
}

impl SplitTensor {
    /// Puts two parts together.
    ///
    /// # Panics
    /// When their shapes do not fit the columns.
    pub fn new(columns: OutlierColumns, base: QTensor, outliers: QTensor) -> Self {
        let rows = base.shape[0];
        assert_eq!(base.shape, [rows, columns.base()], "shape of the base");
        assert_eq!(outliers.shape, [rows, columns.places.len()], "shape of the outliers");
        Self { shape: [rows, columns.total], columns, base, outliers }
    }

    /// Some rows in some order.
    ///
    /// # Panics
    /// When a row is named that the weight does not have.
    pub fn rows(&self, order: &[usize]) -> Self {
        Self::new(self.columns.clone(), self.base.rows(order), self.outliers.rows(order))
    }

    /// Writes the values of one row, `[in]`.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        let mut parts = vec![0.0; self.columns.total];
        let (base, outliers) = parts.split_at_mut(self.columns.base());
        self.base.dequantize_row(row, base);
        self.outliers.dequantize_row(row, outliers);
        for (at, value) in self.columns.order().into_iter().zip(parts) {
            out[at] = value;
        }
    }

    /// All values, row-major `[out, in]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let [rows, columns] = self.shape;
        let mut all = vec![0.0; rows * columns];
        for (row, out) in all.chunks_mut(columns.max(1)).enumerate() {
            self.dequantize_row(row, out);
        }
        all
    }
}

/// A weight that was put on its grids.
#[derive(Clone, Debug, PartialEq)]
pub enum Rounded {
    /// On one grid.
    Whole(QTensor),
    /// On two.
    Split(SplitTensor),
}

impl Rounded {
    /// Shape `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Whole(tensor) => tensor.shape,
            Self::Split(tensor) => tensor.shape,
        }
    }

    /// All values, row-major `[out, in]`.
    pub fn dequantize(&self) -> Vec<f32> {
        match self {
            Self::Whole(tensor) => tensor.dequantize(),
            Self::Split(tensor) => tensor.dequantize(),
        }
    }
}

impl From<QTensor> for Rounded {
    fn from(tensor: QTensor) -> Self {
        Self::Whole(tensor)
    }
}

impl From<SplitTensor> for Rounded {
    fn from(tensor: SplitTensor) -> Self {
        Self::Split(tensor)
    }
}

impl TensorScheme {
    /// How the weight, or its base, is stored on its grid.
    pub fn stored(self) -> Stored {
        Stored { format: self.format, scale_type: self.scale_type }
    }

    /// How outliers are stored on theirs.
    fn outlier_stored(self) -> Stored {
        Stored { format: Format::IntQuantized, scale_type: self.scale_type }
    }

    /// Columns of the base of a weight with so many columns; `None` when nothing is left.
    fn base_columns(self, columns: usize) -> Option<usize> {
        columns.checked_sub(self.outliers).filter(|base| *base > 0 || self.outliers == 0)
    }

    /// The tensors that a weight of `shape` (`[out, in]`) becomes; `None` when the group size does
    /// not divide the columns of its base, or the outliers leave none.
    pub fn parts(self, shape: [usize; 2]) -> Option<Vec<Part>> {
        let [out, columns] = shape;
        let base = [out, self.base_columns(columns)?];
        let mut parts = self.weights.parts(self.stored(), base)?;
        if self.outliers > 0 {
            parts.extend(self.outlier_parts(out)?);
        }
        if self.activations == Activations::Int8Static {
            let dtype = self.scale_type.dtype();
            let bytes = self.scale_type.size();
            let (kind, suffix) = (PartKind::InputScale, INPUT_SCALE);
            parts.push(Part { kind, suffix, dtype, shape: vec![1], bytes });
        }
        Some(parts)
    }

    /// The tensors that the outliers of `out` rows become.
    fn outlier_parts(self, out: usize) -> Option<Vec<Part>> {
        let mut parts = Vec::new();
        for part in OUTLIER_GRID.parts(self.outlier_stored(), [out, self.outliers])? {
            let (kind, suffix) = match part.kind {
                PartKind::Scale => (PartKind::OutlierScale, "outliers.weight_scale"),
                _ => (PartKind::OutlierCodes, "outliers.weight"),
            };
            parts.push(Part { kind, suffix, ..part });
        }
        parts.push(Part {
            kind: PartKind::OutlierColumns,
            suffix: "outliers.columns",
            dtype: Dtype::U32,
            shape: vec![self.outliers],
            bytes: self.outliers.checked_mul(4)?,
        });
        Some(parts)
    }

    /// The bytes of each part of a weight, in the order of [`parts`](Self::parts); but for the scale
    /// of static activations, which is none of the weight's.
    ///
    /// # Panics
    /// When the weight has other outliers than the scheme.
    pub fn encode(self, weight: &Rounded) -> Vec<(Part, Vec<u8>)> {
        let tensor = match weight {
            Rounded::Whole(tensor) => {
                assert_eq!(self.outliers, 0, "outliers of the scheme");
                return encode(&*self.weights, self.stored(), tensor);
            }
            Rounded::Split(tensor) => tensor,
        };
        assert_eq!(self.outliers, tensor.columns.places.len(), "outliers of the scheme");
        let bytes = encode(&*self.weights, self.stored(), &tensor.base)
            .into_iter()
            .chain(encode(&OUTLIER_GRID, self.outlier_stored(), &tensor.outliers))
            .map(|(_, bytes)| bytes)
            .chain([tensor.columns.places.iter().flat_map(|at| at.to_le_bytes()).collect()]);
        self.parts(tensor.shape).unwrap_or_default().into_iter().zip(bytes).collect()
    }

    /// The weight that its parts describe; `part` gives the bytes of a part by kind.
    pub fn decode<'a>(
        self,
        shape: [usize; 2],
        part: impl Fn(PartKind) -> &'a [u8],
    ) -> Result<Rounded, WeightDecodeError> {
        let [out, total] = shape;
        let uneven = DecodeError { part: "outliers.columns", expected: 0, got: self.outliers };
        let base = self.base_columns(total).ok_or(uneven)?;
        let base = self.weights.decode(self.stored(), [out, base], &part)?;
        if self.outliers == 0 {
            return Ok(base.into());
        }
        let (places, tail) = part(PartKind::OutlierColumns).as_chunks::<4>();
        if places.len() != self.outliers || !tail.is_empty() {
            let (expected, got) = (self.outliers.saturating_mul(4), places.len() * 4 + tail.len());
            return Err(DecodeError { part: "outliers.columns", expected, got }.into());
        }
        let places = places.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let columns = OutlierColumns::new(total, places)?;
        let decoded = OUTLIER_GRID.decode(self.outlier_stored(), [out, self.outliers], &|kind| {
            part(match kind {
                PartKind::Scale => PartKind::OutlierScale,
                _ => PartKind::OutlierCodes,
            })
        });
        let outliers = decoded.map_err(|error| match error {
            WeightDecodeError::Part(DecodeError { part, expected, got }) => {
                let codes = part == "weight";
                let part = if codes { "outliers.weight" } else { "outliers.weight_scale" };
                DecodeError { part, expected, got }.into()
            }
            other => other,
        })?;
        Ok(SplitTensor::new(columns, base, outliers).into())
    }
}

/// The bytes of each part of a weight on a grid, in the order of [`Grid::parts`]; none when the groups
/// do not divide the columns.
fn encode(grid: &dyn Grid, stored: Stored, tensor: &QTensor) -> Vec<(Part, Vec<u8>)> {
    let [_, columns] = tensor.shape;
    let groups = tensor.scheme.groups(columns).unwrap_or(1);
    let parts = grid.parts(stored, tensor.shape).unwrap_or_default();
    let bytes = |part: &Part| match part.kind {
        PartKind::Codes => {
            let mut bytes = Vec::with_capacity(part.bytes);
            grid.encode_codes(stored, &tensor.codes, columns, &mut bytes);
            bytes
        }
        PartKind::Scale => grid.encode_scales(stored, &tensor.scales),
        PartKind::ZeroPoint => grid.encode_zero_points(stored, &tensor.zero_points, groups),
        PartKind::Shape => tensor.shape.iter().flat_map(|n| (*n as i64).to_le_bytes()).collect(),
        PartKind::InputScale
        | PartKind::OutlierCodes
        | PartKind::OutlierScale
        | PartKind::OutlierColumns => Vec::new(),
    };
    parts.into_iter().map(|part| (part.clone(), bytes(&part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::FloatType;
    use proptest::prelude::*;

    fn tensor(scheme: IntScheme, shape: [usize; 2], seed: usize) -> QTensor {
        let groups = scheme.groups(shape[1]).unwrap();
        let code = |i: usize| (i * 31 + seed * 17) as i32 % (scheme.max_code() + 1);
        let sign = |i: usize| if i.is_multiple_of(3) { -1 } else { 1 };
        QTensor {
            scheme,
            shape,
            codes: (0..shape[0] * shape[1]).map(|i| (sign(i) * code(i)) as i8).collect(),
            scales: (0..shape[0] * groups).map(|i| 0.25 + i as f32).collect(),
            zero_points: if scheme.symmetric {
                vec![]
            } else {
                (0..shape[0] * groups).map(|i| code(i) as i8).collect()
            },
        }
    }

    fn scheme(symmetric: bool, group: usize, outliers: usize) -> TensorScheme {
        let granularity = Granularity::Group(group);
        TensorScheme {
            weights: IntScheme { bits: 4, symmetric, granularity }.into(),
            scale_type: FloatType::F32,
            activations: Activations::Float,
            format: Format::PackQuantized,
            outliers,
        }
    }

    #[test]
    fn columns_part_and_come_together() {
        let columns = OutlierColumns::new(6, vec![1, 4]).unwrap();
        assert_eq!((columns.order(), columns.are_last()), (vec![0, 2, 3, 5, 1, 4], false));
        let last = OutlierColumns::last(6, 2);
        assert_eq!((last.order(), last.are_last()), ((0..6).collect(), true));
        assert_eq!(OutlierColumns::new(6, vec![4, 5]).unwrap(), last);
        for wrong in [vec![], vec![4, 1], vec![1, 1], vec![6], (0..6).collect()] {
            assert!(OutlierColumns::new(6, wrong.clone()).is_err(), "{wrong:?}");
        }
        let largest = OutlierColumns::largest(&[3.0, 9.0, 1.0, 3.0, 5.0], 3);
        assert_eq!(largest.places(), [0, 1, 4], "the first of two equal scores");
    }

    #[test]
    fn values_stand_where_their_columns_are() {
        let channel = IntScheme { bits: 4, symmetric: true, granularity: Granularity::Channel };
        let part = |scheme, codes: &[i8], scale| QTensor {
            scheme,
            shape: [1, codes.len()],
            codes: codes.to_vec(),
            scales: vec![scale],
            zero_points: vec![],
        };
        let (base, outliers) =
            (part(channel, &[1, 2, 3], 1.0), part(OUTLIER_GRID, &[100, -50], 0.5));
        let columns = OutlierColumns::new(5, vec![0, 3]).unwrap();
        let split = SplitTensor::new(columns, base, outliers);
        assert_eq!(split.dequantize(), [50.0, 1.0, 2.0, -25.0, 3.0]);
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(
            rows in 1_usize..12, groups in 1_usize..4, symmetric in any::<bool>(),
            places in prop::collection::btree_set(0_u32..8, 0..8), seed in any::<u8>(),
        ) {
            let (outliers, total) = (places.len(), groups * 8 + places.len());
            let scheme = scheme(symmetric, 8, outliers);
            let base = tensor(scheme.weights.integers(), [rows, groups * 8], seed.into());
            let weight: Rounded = if outliers == 0 {
                base.into()
            } else {
                let columns = OutlierColumns::new(total, places.into_iter().collect()).unwrap();
                let outliers = tensor(OUTLIER_GRID, [rows, outliers], seed.into());
                SplitTensor::new(columns, base, outliers).into()
            };
            let encoded = scheme.encode(&weight);
            let parts = scheme.parts([rows, total]).unwrap();
            prop_assert_eq!(encoded.len(), parts.len());
            for ((part, bytes), declared) in encoded.iter().zip(&parts) {
                prop_assert_eq!((part, bytes.len()), (declared, declared.bytes));
            }
            let part = |kind| {
                encoded.iter().find(|(it, _)| it.kind == kind).map_or(&[][..], |(_, bytes)| bytes)
            };
            prop_assert_eq!(scheme.decode([rows, total], part).unwrap(), weight);
        }
    }

    #[test]
    fn damaged_parts_are_errors_that_say_what() {
        let scheme = scheme(true, 8, 2);
        let split = SplitTensor::new(
            OutlierColumns::new(10, vec![3, 7]).unwrap(),
            tensor(scheme.weights.integers(), [4, 8], 1),
            tensor(OUTLIER_GRID, [4, 2], 2),
        );
        let encoded = scheme.encode(&split.into());
        let with = |kind: PartKind, bytes: &'static [u8]| {
            let part = |it| match encoded.iter().find(|(part, _)| part.kind == it) {
                _ if it == kind => bytes,
                Some((_, bytes)) => bytes,
                None => &[],
            };
            scheme.decode([4, 10], part).unwrap_err()
        };
        for (kind, name) in [
            (PartKind::Codes, "weight_packed"),
            (PartKind::OutlierCodes, "outliers.weight"),
            (PartKind::OutlierScale, "outliers.weight_scale"),
            (PartKind::OutlierColumns, "outliers.columns"),
        ] {
            match with(kind, &[0]) {
                WeightDecodeError::Part(error) => assert_eq!((error.part, error.got), (name, 1)),
                other => panic!("{other:?}"),
            }
        }
        let columns = |bytes| with(PartKind::OutlierColumns, bytes);
        let wrong = |at, found| ColumnsError { total: 10, at, found }.into();
        assert_eq!(columns(&[3, 0, 0, 0, 10, 0, 0, 0]), wrong(1, 10), "out of range");
        assert_eq!(columns(&[7, 0, 0, 0, 3, 0, 0, 0]), wrong(1, 3), "descending");
        // Counts from a file: all columns, more than all.
        for outliers in [10, 11, usize::MAX] {
            let wrong = TensorScheme { outliers, ..scheme };
            assert_eq!(wrong.parts([4, 10]), None);
            assert!(wrong.decode([4, 10], |_| &[]).is_err());
        }
    }
}
