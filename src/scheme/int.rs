//! Integer grids: `value = (code - zero_point) · scale`.
use std::fmt;

/// Which weights share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// One scale per output row: scales `[out, 1]`.
    Channel,
    /// One scale per this many consecutive inputs: scales `[out, in / n]`.
    Group(usize),
}

/// Consecutive inputs that packages may group.
pub const GROUP_SIZES: [usize; 3] = [32, 64, 128];

/// An integer weight grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct IntScheme {
    /// Bits of a code: 4 or 8.
    pub bits: u32,
    /// Symmetric grids have zero point 0; asymmetric ones store it per scale.
    pub symmetric: bool,
    /// Which weights share a scale.
    pub granularity: Granularity,
}

/// Quantization parameters of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Qparams {
    /// Step between codes; never 0, may be negative (see `quantize::rtn`).
    pub scale: f32,
    /// The code of value 0; 0 for symmetric grids.
    pub zero_point: i8,
}

impl Qparams {
    /// Value of a code.
    #[inline]
    pub fn value(self, code: i8) -> f32 {
        (f32::from(code) - f32::from(self.zero_point)) * self.scale
    }
}

/// A weight on an integer grid.
#[derive(Clone, Debug, PartialEq)]
pub struct QTensor {
    /// The grid.
    pub scheme: IntScheme,
    /// Shape `[out, in]`.
    pub shape: [usize; 2],
    /// Signed codes, row-major `[out, in]`.
    pub codes: Vec<i8>,
    /// Scales, row-major `[out, groups]`.
    pub scales: Vec<f32>,
    /// Zero points, row-major `[out, groups]`; empty for symmetric grids.
    pub zero_points: Vec<i8>,
}

impl IntScheme {
    /// Lowest code, e.g. -8.
    pub fn min_code(self) -> i32 {
        -(1 << (self.bits - 1))
    }

    /// Highest code, e.g. 7.
    pub fn max_code(self) -> i32 {
        (1 << (self.bits - 1)) - 1
    }

    /// Weights that share a scale in a row of `columns`.
    pub fn group_size(self, columns: usize) -> usize {
        match self.granularity {
            Granularity::Channel => columns,
            Granularity::Group(size) => size,
        }
    }

    /// Scales per row; `None` when the group size does not divide `columns`.
    pub fn groups(self, columns: usize) -> Option<usize> {
        match self.group_size(columns) {
            0 => None,
            size => columns.is_multiple_of(size).then(|| columns / size),
        }
    }

    /// Nearest code for `x`: divided, shifted, clamped, rounded half to even (the order of
    /// compressed-tensors' `quantize`).
    #[inline]
    pub fn quantize(self, x: f32, q: Qparams) -> i8 {
        let (low, high) = (self.min_code() as f32, self.max_code() as f32);
        (x / q.scale + f32::from(q.zero_point)).clamp(low, high).round_ties_even() as i8
    }

    /// Values of the codes of one row with their scales and zero points (none if symmetric).
    pub fn dequantize_row(self, row: (&[i8], &[f32], &[i8]), out: &mut [f32]) {
        let (codes, scales, zero_points) = row;
        let size = self.group_size(codes.len()).max(1);
        for (group, (codes, out)) in codes.chunks(size).zip(out.chunks_mut(size)).enumerate() {
            let zero_point = zero_points.get(group).copied().unwrap_or(0);
            let q = Qparams { scale: scales[group], zero_point };
            for (out, code) in out.iter_mut().zip(codes) {
                *out = q.value(*code);
            }
        }
    }
}

impl fmt::Display for IntScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = if self.symmetric { "sym" } else { "asym" };
        match self.granularity {
            Granularity::Channel => write!(f, "int{} {form} channel", self.bits),
            Granularity::Group(size) => write!(f, "int{} {form} g{size}", self.bits),
        }
    }
}

impl QTensor {
    /// Parameters of group `group` of row `row`.
    pub fn qparams(&self, row: usize, group: usize) -> Qparams {
        let groups = self.scales.len() / self.shape[0].max(1);
        let at = row * groups + group;
        Qparams {
            scale: self.scales[at],
            zero_point: self.zero_points.get(at).copied().unwrap_or(0),
        }
    }

    /// Writes the values of one row, `[in]`.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        let (columns, groups) = (self.shape[1], self.scales.len() / self.shape[0].max(1));
        let here = row * groups..(row + 1) * groups;
        let codes = &self.codes[row * columns..(row + 1) * columns];
        let zero_points = self.zero_points.get(here.clone()).unwrap_or_default();
        self.scheme.dequantize_row((codes, &self.scales[here], zero_points), out);
    }

    /// The product of a row with `x`, `[in]`, as it is defined: sums of codes times inputs in each
    /// group, times its scale, in float64.
    pub fn dot(&self, row: usize, x: &[f32]) -> f64 {
        let columns = self.shape[1];
        let size = self.scheme.group_size(columns).max(1);
        let codes = self.codes[row * columns..(row + 1) * columns].chunks(size);
        let groups = codes.zip(x.chunks(size)).enumerate();
        let sums = groups.map(|(group, (codes, x))| {
            let q = self.qparams(row, group);
            let centered = codes.iter().map(|code| f64::from(*code) - f64::from(q.zero_point));
            f64::from(q.scale) * centered.zip(x).map(|(code, x)| code * f64::from(*x)).sum::<f64>()
        });
        sums.sum()
    }

    /// Some rows in some order.
    ///
    /// # Panics
    /// When a row is named that the weight does not have.
    pub fn rows(&self, order: &[usize]) -> Self {
        fn picked<T: Copy>(values: &[T], width: usize, order: &[usize]) -> Vec<T> {
            order.iter().flat_map(|row| &values[row * width..(row + 1) * width]).copied().collect()
        }
        let [rows, columns] = self.shape;
        let groups = self.scales.len() / rows.max(1);
        Self {
            scheme: self.scheme,
            shape: [order.len(), columns],
            codes: picked(&self.codes, columns, order),
            scales: picked(&self.scales, groups, order),
            zero_points: picked(&self.zero_points, self.zero_points.len() / rows.max(1), order),
        }
    }

    /// All values, row-major `[out, in]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.codes.len()];
        for (row, out) in out.chunks_mut(self.shape[1].max(1)).enumerate() {
            self.dequantize_row(row, out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_a_hand_computed_row() {
        let scheme = IntScheme { bits: 4, symmetric: true, granularity: Granularity::Channel };
        let q = Qparams { scale: 0.5, zero_point: 0 };
        let code = |x| scheme.quantize(x, q);
        // 0.75 / 0.5 = 1.5 rounds to even 2; 1.25 / 0.5 = 2.5 rounds to even 2; ends clamp.
        assert_eq!([code(0.75), code(1.25), code(-9.0), code(9.0), code(0.0)], [2, 2, -8, 7, 0]);
        let asym = IntScheme { symmetric: false, ..scheme };
        let q = Qparams { scale: 0.5, zero_point: -8 };
        assert_eq!([asym.quantize(0.0, q), asym.quantize(7.5, q)], [-8, 7]);
        assert!((q.value(7) - 7.5).abs() < f32::EPSILON);
    }

    #[test]
    fn groups_must_divide_the_columns() {
        let scheme = IntScheme { bits: 4, symmetric: true, granularity: Granularity::Group(64) };
        assert_eq!(scheme.groups(576), Some(9));
        assert_eq!(scheme.groups(100), None);
        let none = IntScheme { granularity: Granularity::Group(0), ..scheme };
        assert_eq!(none.groups(64), None);
    }
}
