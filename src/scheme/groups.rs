//! Whole rows, group by group, with the widest instructions of the processor. Sums and extremes of
//! groups run in 16 lanes, in the same order on every processor.
use super::{Qparams, grid::Rows};
use crate::linalg::lanes_sum;
use pulp::Arch;

const LANES: usize = 16;

/// What a grid does with one group.
pub(super) trait Chooser: Copy {
    /// Its parameters, with the squared error of each place weighted.
    fn choose(self, x: &[f32], weight: impl Fn(usize) -> f32 + Copy) -> Qparams;

    /// The nearest codes.
    fn codes(self, x: &[f32], q: Qparams, codes: &mut [i8]);
}

/// Parameters and codes of rows whose groups have `size` values.
pub(super) fn round(chooser: impl Chooser, values: &[f32], size: usize, rows: Rows<'_>) {
    // The closure consumes `rows`, so that it is an `FnOnce` itself: called through the shim
    // of an `FnMut` it would not be inlined, and compiled for the oldest processor only.
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            let Rows { codes, scales, zero_points } = rows;
            let groups = values.chunks_exact(size).zip(codes.chunks_exact_mut(size));
            for (i, (values, codes)) in groups.enumerate() {
                let q = chooser.choose(values, |_| 1.0);
                scales[i] = q.scale;
                if let Some(zero_point) = zero_points.get_mut(i) {
                    *zero_point = q.zero_point;
                }
                chooser.codes(values, q, codes);
            }
        },
    );
}

/// Parameters alone, with the squared errors of each column weighted: `weights` is `[columns]`.
pub(super) fn choose(
    chooser: impl Chooser,
    values: &[f32],
    (weights, size): (&[f32], usize),
    (scales, zero_points): (&mut [f32], &mut [i8]),
) {
    let columns = weights.len();
    Arch::new().dispatch(
        #[inline(always)]
        move || {
            for (i, values) in values.chunks_exact(size).enumerate() {
                let first = i * size % columns;
                let weights = &weights[first..first + size];
                let q = chooser.choose(values, |j| weights[j]);
                scales[i] = q.scale;
                if let Some(zero_point) = zero_points.get_mut(i) {
                    *zero_point = q.zero_point;
                }
            }
        },
    );
}

/// The sum of `f(x)` over a group, each term times the weight of its place.
#[inline(always)]
pub(super) fn weighted_sum(
    x: &[f32],
    f: impl Fn(f32) -> f32,
    weight: impl Fn(usize) -> f32,
) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (k, chunk) in chunks.iter().enumerate() {
        for i in 0..LANES {
            lanes[i] += f(chunk[i]) * weight(k * LANES + i);
        }
    }
    for (i, x) in tail.iter().enumerate() {
        lanes[i] += f(*x) * weight(chunks.len() * LANES + i);
    }
    lanes_sum(lanes)
}

/// Least and largest value.
#[inline(always)]
pub(super) fn range(x: &[f32]) -> (f32, f32) {
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
