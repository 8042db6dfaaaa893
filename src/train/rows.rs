//! Loops over rows whose sums over tokens have one order at any number of threads.
use crate::linalg::Team;
use ndarray::{ArrayViewMut2, Axis};

/// Tokens whose terms are summed before they join those of others.
const CHUNK: usize = 64;

/// Calls `f(token, row, sum)` for each row; what the calls add to `sum`, `[width]`, is given back.
pub(super) fn summed(
    mut x: ArrayViewMut2<'_, f32>,
    width: usize,
    team: &Team,
    f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let chunks: Vec<_> = x.axis_chunks_iter_mut(Axis(0), CHUNK).collect();
    let mut sums = vec![vec![0.0; width]; chunks.len()];
    let parts = chunks.into_iter().zip(&mut sums).collect();
    team.each(parts, |chunk, (mut rows, sum)| {
        for (i, mut row) in rows.outer_iter_mut().enumerate() {
            f(chunk * CHUNK + i, row.as_slice_mut().expect("rows are contiguous"), sum);
        }
    });
    let mut whole = vec![0.0; width];
    for sum in sums {
        whole.iter_mut().zip(sum).for_each(|(whole, sum)| *whole += sum);
    }
    whole
}
