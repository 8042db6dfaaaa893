//! Round to nearest: scales from the weights alone, then the nearest code of each weight. How a
//! scale is chosen is the grid's, see [`Grid`](crate::scheme::Grid).
use super::Method;
use crate::{
    linalg::Team,
    scheme::{QTensor, Rows, ScaleRule, WeightGrid},
    tensor::FloatType,
};

/// How weights are rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rtn {
    /// The grid.
    pub grid: WeightGrid,
    /// Type that scales are stored in.
    pub scale_type: FloatType,
    /// How scales are chosen.
    pub method: Method,
}

impl Rtn {
    /// Quantizes whole rows: `values` are `[rows, columns]`, finite. The group size divides
    /// `columns`.
    pub fn rows(self, values: &[f32], columns: usize, rows: Rows<'_>) {
        self.grid.round(values, columns, self.rule(), rows);
    }

    fn rule(self) -> ScaleRule {
        ScaleRule { method: self.method, scale_type: self.scale_type }
    }

    /// Quantizes a whole weight of `shape` `[out, in]`.
    ///
    /// # Panics
    /// When `values` do not fit `shape`, or the group size does not divide the columns.
    pub fn tensor(self, values: &[f32], shape: [usize; 2]) -> QTensor {
        let groups = self.grid.groups(shape[1]).expect("the group size divides the columns");
        let count = shape[0] * groups;
        let mut codes = vec![0; shape[0] * shape[1]];
        assert_eq!(codes.len(), values.len(), "values fill the shape");
        let mut scales = vec![0.0; count];
        let mut zero_points = vec![0; if self.grid.symmetric() { 0 } else { count }];
        let rows = Rows { codes: &mut codes, scales: &mut scales, zero_points: &mut zero_points };
        self.rows(values, shape[1], rows);
        QTensor { scheme: self.grid.integers(), shape, codes, scales, zero_points }
    }

    /// Chooses the parameters of whole rows, `values` `[rows, columns]`, with each squared error
    /// weighted by its column: `weights` is `[columns]`, above 0.
    pub fn search(self, values: &[f32], weights: &[f32], parameters: (&mut [f32], &mut [i8])) {
        self.grid.choose(values, weights, self.rule(), parameters);
    }

    /// As [`tensor`](Self::tensor), on all threads.
    ///
    /// # Panics
    /// As there.
    pub fn tensor_on(self, values: &[f32], shape: [usize; 2], team: &Team) -> QTensor {
        /// Weights in a task.
        const PIECE: usize = 1 << 18;
        let [out, columns] = shape;
        let rows = (PIECE / columns.max(1)).max(1);
        let pieces: Vec<(usize, &[f32])> =
            values.chunks(rows * columns.max(1)).enumerate().collect();
        let done = std::sync::Mutex::new(std::collections::BTreeMap::new());
        team.each(pieces, |_, (i, values)| {
            let part = self.tensor(values, [values.len() / columns.max(1), columns]);
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(i, part);
        });
        let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut whole = QTensor {
            scheme: self.grid.integers(),
            shape,
            codes: Vec::with_capacity(out * columns),
            scales: Vec::new(),
            zero_points: Vec::new(),
        };
        for part in done.into_values() {
            whole.codes.extend(part.codes);
            whole.scales.extend(part.scales);
            whole.zero_points.extend(part.zero_points);
        }
        whole
    }
}

/// Makes rows of `columns` finite: NaN becomes 0, ±∞ the row's largest finite magnitude with its
/// sign.
pub fn replace_nonfinite(values: &mut [f32], columns: usize) {
    for row in values.chunks_mut(columns.max(1)) {
        let finite = row.iter().filter(|x| x.is_finite());
        let largest = finite.fold(0.0_f32, |largest, x| largest.max(x.abs()));
        for x in row.iter_mut().filter(|x| !x.is_finite()) {
            *x = if x.is_nan() { 0.0 } else { largest.copysign(*x) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        scheme::{Granularity, IntScheme},
        tensor::round_to,
    };
    use proptest::prelude::*;

    fn rtn(bits: u32, symmetric: bool, method: Method, scale_type: FloatType) -> Rtn {
        let scheme = IntScheme { bits, symmetric, granularity: Granularity::Group(32) };
        Rtn { grid: scheme.into(), scale_type, method }
    }

    fn squared_error(tensor: &QTensor, values: &[f32]) -> f64 {
        let pairs = tensor.dequantize().into_iter().zip(values);
        pairs.map(|(a, b)| (f64::from(a) - f64::from(*b)).powi(2)).sum()
    }

    #[test]
    fn the_largest_magnitude_lands_on_the_lowest_code() {
        let mut x = vec![0.25_f32; 32];
        x[5] = 4.0;
        let tensor = rtn(4, true, Method::Minmax, FloatType::F32).tensor(&x, [1, 32]);
        assert_eq!((tensor.scales[0], tensor.codes[5], tensor.codes[0]), (-0.5, -8, 0));
        x[5] = -4.0;
        let tensor = rtn(4, true, Method::Minmax, FloatType::F32).tensor(&x, [1, 32]);
        assert_eq!((tensor.scales[0], tensor.codes[5]), (0.5, -8));
        let tensor = rtn(4, true, Method::Absmax, FloatType::F32).tensor(&[-3.5; 32], [1, 32]);
        assert_eq!((tensor.scales[0], tensor.codes[0]), (0.5, -7), "the vendors' form");
        // 0 is in the range although all weights lie above it: (4 - 0) / 15, zero point -8.
        let x: Vec<f32> = (0..32).map(|i| 3.0 + i as f32 / 31.0).collect();
        let tensor = rtn(4, false, Method::Minmax, FloatType::F32).tensor(&x, [1, 32]);
        assert_eq!((tensor.zero_points[0], tensor.codes[31]), (-8, 7));
        assert!((tensor.scales[0] - 4.0 / 15.0).abs() < 1e-6);
    }

    #[test]
    fn zeros_and_tiny_numbers_divide_nothing_by_zero() {
        for symmetric in [true, false] {
            for method in [Method::Minmax, Method::Mse] {
                for tiny in [0.0, 1e-44] {
                    let rtn = rtn(4, symmetric, method, FloatType::F16);
                    let tensor = rtn.tensor(&[tiny; 32], [1, 32]);
                    assert_eq!((tensor.scales[0], tensor.dequantize()), (1.0, vec![0.0; 32]));
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_replaced() {
        let mut x = [1.0, f32::NAN, -3.0, f32::INFINITY, f32::NEG_INFINITY, 0.0];
        replace_nonfinite(&mut x, 3);
        assert_eq!(x.map(|x| x as i32), [1, 0, -3, 0, 0, 0]);
        let mut x = [1.0, f32::NEG_INFINITY, -3.0];
        replace_nonfinite(&mut x, 3);
        assert_eq!(x.map(|x| x as i32), [1, -3, -3]);
    }

    proptest! {
        #[test]
        fn codes_are_nearest_and_in_range(
            x in prop::collection::vec(-1e3_f32..1e3, 64), eight in any::<bool>(),
            symmetric in any::<bool>(), mse in any::<bool>(), half in any::<bool>(),
        ) {
            let method = if mse { Method::Mse } else { Method::Minmax };
            let scale_type = if half { FloatType::Bf16 } else { FloatType::F32 };
            let rtn = rtn(if eight { 8 } else { 4 }, symmetric, method, scale_type);
            let tensor = rtn.tensor(&x, [1, 64]);
            let scheme = rtn.grid.integers();
            let (low, high) = (scheme.min_code(), scheme.max_code());
            prop_assert!(tensor.codes.iter().all(|c| (low..=high).contains(&i32::from(*c))));
            prop_assert!(tensor.zero_points.iter().all(|z| (low..=high).contains(&i32::from(*z))));
            prop_assert_eq!(tensor.zero_points.is_empty(), symmetric);
            for (i, (x, y)) in x.iter().zip(tensor.dequantize()).enumerate() {
                let q = tensor.qparams(0, i / 32);
                prop_assert_eq!(tensor.codes[i], scheme.quantize(*x, q), "as the definition");
                prop_assert!((round_to(scale_type, q.scale) - q.scale).abs() <= 0.0);
                let place = x / q.scale + f32::from(q.zero_point);
                if (low as f32 - 0.5..=high as f32 + 0.5).contains(&place) {
                    // half a step, and rounding of the quotient and the product
                    let step = q.scale.abs();
                    prop_assert!((x - y).abs() <= 0.5 * step + 1e-4 * step, "{x} {y} {q:?}");
                }
            }
        }

        #[test]
        fn requantizing_changes_nothing(
            x in prop::collection::vec(-1e3_f32..1e3, 64), eight in any::<bool>(),
        ) {
            for scale_type in [FloatType::F32, FloatType::F16, FloatType::Bf16] {
                let rtn = rtn(if eight { 8 } else { 4 }, true, Method::Minmax, scale_type);
                let once = rtn.tensor(&x, [2, 32]);
                prop_assert_eq!(rtn.tensor(&once.dequantize(), [2, 32]), once);
            }
        }

        #[test]
        fn the_search_is_never_worse_than_min_max(
            x in prop::collection::vec(-1.0_f32..1.0, 64), eight in any::<bool>(),
            symmetric in any::<bool>(),
        ) {
            // Cubes have the long tails that clipping is good for.
            let x: Vec<f32> = x.iter().map(|x| x * x * x).collect();
            let error = |method| {
                let rtn = rtn(if eight { 8 } else { 4 }, symmetric, method, FloatType::F16);
                squared_error(&rtn.tensor(&x, [1, 64]), &x)
            };
            let (found, start) = (error(Method::Mse), error(Method::Minmax));
            // The search sums float32 squares: 64 terms, each rounded some times by 2^-24, and
            // errors themselves are differences of numbers up to 1.
            prop_assert!(found <= start * (1.0 + 1e-4) + 1e-9, "{found} {start}");
        }
    }

    /// Of positive scales the search is as good as the vendors' form at least, where it would take mirrored grids.
    #[test]
    fn the_search_finds_positive_scales() {
        let x: Vec<f32> = (0..512).map(|i| ((i as f32) * 0.7).sin().powi(5)).collect();
        for bits in [4, 8] {
            let of = |method| rtn(bits, true, method, FloatType::F16).tensor(&x, [4, 128]);
            let [vendor, positive, any] =
                [Method::Absmax, Method::MsePositive, Method::Mse].map(of);
            assert!(positive.scales.iter().all(|scale| *scale > 0.0), "{:?}", positive.scales);
            assert!(any.scales.iter().any(|scale| *scale < 0.0), "the twin: {:?}", any.scales);
            assert!(squared_error(&positive, &x) <= squared_error(&vendor, &x));
        }
    }

    #[test]
    fn the_search_finds_better_scales_for_long_tails() {
        let x: Vec<f32> = (0..64).map(|i| ((i as f32) * 0.7).sin().powi(5)).collect();
        let error =
            |method| squared_error(&rtn(4, true, method, FloatType::F32).tensor(&x, [1, 64]), &x);
        assert!(error(Method::Mse) < 0.9 * error(Method::Minmax));
    }
}
