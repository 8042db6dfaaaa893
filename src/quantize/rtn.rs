//! Round to nearest: scales from the weights alone, then the nearest code of each weight.
//!
//! Symmetric grids are used in full: the largest magnitude of a group lands on the lowest code
//! (-8 or -128), which exists on one side only, so the scale takes the sign that puts it there:
//! `scale = extreme / lowest code`. A negative scale is a mirrored grid (llama.cpp's `Q4_0` does
//! the same). Asymmetric grids cover `[min(0, x), max(0, x)]`, so that 0 is exact:
//! `scale = (max - min) / 15`, `zero point = round(-8 - min / scale)` (and 255, -128).
//! Scales are rounded to their stored type before codes are chosen. A group of zeros, or one so
//! small that its scale would round to 0, has scale 1.
//!
//! [`Method::Mse`] tries multiples of that scale (of both signs for int4) and keeps the first of
//! least squared error; the min-max scale is among them. Sums are float32 in 16 lanes.
use super::Method;
use crate::{
    linalg::{Team, lanes_sum},
    scheme::{IntScheme, QTensor, Qparams},
    tensor::{FloatType, round_to},
};
use pulp::Arch;

const LANES: usize = 16;
/// 1.5 · 2^23: adding it to a small number leaves the nearest integer, ties to even, in the low
/// bits of the sum.
const ROUND: f32 = 12_582_912.0;

/// How weights are rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rtn {
    /// The grid.
    pub scheme: IntScheme,
    /// Type that scales are stored in.
    pub scale_type: FloatType,
    /// How scales are chosen.
    pub method: Method,
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

impl Rtn {
    /// Quantizes whole rows: `values` are `[rows, columns]`, finite. The group size divides
    /// `columns`.
    pub fn rows(self, values: &[f32], columns: usize, rows: Rows<'_>) {
        let group = self.scheme.group_size(columns).max(1);
        // The closure consumes `rows`, so that it is an `FnOnce` itself: called through the shim
        // of an `FnMut` it would not be inlined, and compiled for the oldest processor only.
        Arch::new().dispatch(
            #[inline(always)]
            move || {
                let Rows { codes, scales, zero_points } = rows;
                let groups = values.chunks_exact(group).zip(codes.chunks_exact_mut(group));
                for (i, (values, codes)) in groups.enumerate() {
                    let q = self.choose(values, |_| 1.0);
                    scales[i] = q.scale;
                    if let Some(zero_point) = zero_points.get_mut(i) {
                        *zero_point = q.zero_point;
                    }
                    self.codes(values, q, codes);
                }
            },
        );
    }

    /// Quantizes a whole weight of `shape` `[out, in]`.
    ///
    /// # Panics
    /// When `values` do not fit `shape`, or the group size does not divide the columns.
    pub fn tensor(self, values: &[f32], shape: [usize; 2]) -> QTensor {
        let groups = self.scheme.groups(shape[1]).expect("the group size divides the columns");
        let count = shape[0] * groups;
        let mut codes = vec![0; shape[0] * shape[1]];
        assert_eq!(codes.len(), values.len(), "values fill the shape");
        let mut scales = vec![0.0; count];
        let mut zero_points = vec![0; if self.scheme.symmetric { 0 } else { count }];
        let rows = Rows { codes: &mut codes, scales: &mut scales, zero_points: &mut zero_points };
        self.rows(values, shape[1], rows);
        QTensor { scheme: self.scheme, shape, codes, scales, zero_points }
    }

    /// Chooses the parameters of whole rows, `values` `[rows, columns]`, with each squared error
    /// weighted by its column: `weights` is `[columns]`, above 0.
    pub fn search(
        self,
        values: &[f32],
        weights: &[f32],
        (scales, zero_points): (&mut [f32], &mut [i8]),
    ) {
        let columns = weights.len();
        let size = self.scheme.group_size(columns).max(1);
        Arch::new().dispatch(
            #[inline(always)]
            move || {
                for (i, values) in values.chunks_exact(size).enumerate() {
                    let first = i * size % columns;
                    let weights = &weights[first..first + size];
                    let q = self.choose(values, |j| weights[j]);
                    scales[i] = q.scale;
                    if let Some(zero_point) = zero_points.get_mut(i) {
                        *zero_point = q.zero_point;
                    }
                }
            },
        );
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
            scheme: self.scheme,
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

    /// The parameters of one group.
    #[inline(always)]
    fn choose(self, x: &[f32], weight: impl Fn(usize) -> f32 + Copy) -> Qparams {
        let (min, max) = range(x);
        if self.method == Method::Absmax && self.scheme.symmetric {
            let scale = max.max(-min) / self.scheme.max_code() as f32;
            let scale = round_to(self.scale_type, scale);
            return Qparams { scale: if scale > 0.0 { scale } else { 1.0 }, zero_point: 0 };
        }
        let start = self.params(min, max, 1.0);
        if self.method != Method::Mse || min >= max && min.abs() <= 0.0 {
            return start;
        }
        let (mut best, mut least) = (start, self.error(x, start, weight));
        let mut last = start;
        let (first, step, count): (f32, f32, u32) = match (self.scheme.symmetric, self.scheme.bits)
        {
            (true, 4) => (1.16, 0.02, 31),
            (true, _) => (1.01, 0.015, 16),
            (false, _) => (1.0, 0.02, 21),
        };
        let signs: &[f32] =
            if self.scheme.symmetric && self.scheme.bits == 4 { &[1.0, -1.0] } else { &[1.0] };
        for sign in signs {
            for k in 0..count {
                let q = self.params(min, max, sign * (first - step * k as f32));
                if q == last {
                    continue;
                }
                last = q;
                let error = self.error(x, q, weight);
                if error < least {
                    (best, least) = (q, error);
                }
            }
        }
        best
    }

    /// Parameters for a range scaled by `factor`. Negative factors mirror symmetric grids.
    #[inline(always)]
    fn params(self, min: f32, max: f32, factor: f32) -> Qparams {
        let (low, high) = (self.scheme.min_code() as f32, self.scheme.max_code() as f32);
        let stored = |scale: f32| match round_to(self.scale_type, scale) {
            scale if scale.abs() > 0.0 => scale,
            _ => 1.0,
        };
        if self.scheme.symmetric {
            let extreme = if max >= -min { max } else { min };
            return Qparams { scale: stored(extreme / low * factor), zero_point: 0 };
        }
        let (min, max) = (min.min(0.0) * factor, max.max(0.0) * factor);
        // Halves first: the difference of two large numbers may overflow.
        let scale = stored((max / (high - low)) - (min / (high - low)));
        let zero_point = (low - min / scale).clamp(low, high).round_ties_even() as i8;
        Qparams { scale, zero_point }
    }

    /// Squared error of a group on a grid, each square times the weight of its place.
    #[inline(always)]
    fn error(self, x: &[f32], q: Qparams, weight: impl Fn(usize) -> f32) -> f32 {
        let (low, high) = (self.scheme.min_code() as f32, self.scheme.max_code() as f32);
        let (inverse, zero) = (1.0 / q.scale, f32::from(q.zero_point));
        let squared = |x: f32| {
            let code = ((x * inverse + zero).clamp(low, high) + ROUND) - ROUND;
            let error = x - (code - zero) * q.scale;
            error * error
        };
        let (chunks, tail) = x.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for (k, chunk) in chunks.iter().enumerate() {
            for i in 0..LANES {
                lanes[i] += squared(chunk[i]) * weight(k * LANES + i);
            }
        }
        for (i, x) in tail.iter().enumerate() {
            lanes[i] += squared(*x) * weight(chunks.len() * LANES + i);
        }
        lanes_sum(lanes)
    }

    /// The nearest codes, as [`IntScheme::quantize`] gives them.
    #[inline(always)]
    fn codes(self, x: &[f32], q: Qparams, codes: &mut [i8]) {
        let (low, high) = (self.scheme.min_code() as f32, self.scheme.max_code() as f32);
        let zero = f32::from(q.zero_point);
        for (code, x) in codes.iter_mut().zip(x) {
            let nearest = (x / q.scale + zero).clamp(low, high) + ROUND;
            *code = nearest.to_bits().wrapping_sub(ROUND.to_bits()) as i8;
        }
    }
}

/// Least and largest value.
#[inline(always)]
fn range(x: &[f32]) -> (f32, f32) {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let (mut mins, mut maxs) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    for chunk in chunks {
        for i in 0..LANES {
            mins[i] = if chunk[i] < mins[i] { chunk[i] } else { mins[i] };
            maxs[i] = if chunk[i] > maxs[i] { chunk[i] } else { maxs[i] };
        }
    }
    for (i, x) in tail.iter().enumerate() {
        mins[i] = mins[i].min(*x);
        maxs[i] = maxs[i].max(*x);
    }
    (
        mins.into_iter().fold(f32::INFINITY, f32::min),
        maxs.into_iter().fold(f32::NEG_INFINITY, f32::max),
    )
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
    use crate::scheme::Granularity;
    use proptest::prelude::*;

    fn rtn(bits: u32, symmetric: bool, method: Method, scale_type: FloatType) -> Rtn {
        let scheme = IntScheme { bits, symmetric, granularity: Granularity::Group(32) };
        Rtn { scheme, scale_type, method }
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
            let (low, high) = (rtn.scheme.min_code(), rtn.scheme.max_code());
            prop_assert!(tensor.codes.iter().all(|c| (low..=high).contains(&i32::from(*c))));
            prop_assert!(tensor.zero_points.iter().all(|z| (low..=high).contains(&i32::from(*z))));
            prop_assert_eq!(tensor.zero_points.is_empty(), symmetric);
            for (i, (x, y)) in x.iter().zip(tensor.dequantize()).enumerate() {
                let q = tensor.qparams(0, i / 32);
                prop_assert_eq!(tensor.codes[i], rtn.scheme.quantize(*x, q), "as the definition");
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

    #[test]
    fn the_search_finds_better_scales_for_long_tails() {
        let x: Vec<f32> = (0..64).map(|i| ((i as f32) * 0.7).sin().powi(5)).collect();
        let error =
            |method| squared_error(&rtn(4, true, method, FloatType::F32).tensor(&x, [1, 64]), &x);
        assert!(error(Method::Mse) < 0.9 * error(Method::Minmax));
    }
}
