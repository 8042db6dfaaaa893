//! Sums of outer products over tokens: `XᵀX` and `YᵀX`.
//!
//! A call walks its tokens in chunks of [`CHUNK`] and the channels in tiles of [`TILE`], both
//! fixed: the bits depend on neither threads nor timing. Splitting the tokens into several calls
//! at multiples of [`CHUNK`] does not change them either.
use super::{Team, matmul::matmul_add};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};

/// Tokens that one product sums.
pub const CHUNK: usize = 256;
/// Channels along an edge of a tile: the sums of a tile stay in the cache of a core.
const TILE: usize = 192;

/// `H ← H + XᵀX` for `x` `[tokens, n]` and `h` `[n, n]`, summed in float32.
///
/// Only the tiles on and above the diagonal are computed. The others keep what they held, so
/// that a sum over many calls is completed once, by [`mirror`].
///
/// # Panics
/// When `h` is not `[n, n]`.
pub fn accumulate_gram(x: ArrayView2<'_, f32>, h: &mut Array2<f32>, team: &Team) {
    let n = x.ncols();
    assert_eq!(h.dim(), (n, n), "sums of outer products");
    let upper = tiles(h.view_mut()).into_iter().filter(|tile| tile.column >= tile.row);
    team.each(upper.collect(), |_, tile| add_tile(x, x, tile));
}

/// `C ← C + YᵀX` for `y` `[tokens, m]`, `x` `[tokens, n]` and `c` `[m, n]`, summed in float32.
///
/// # Panics
/// When the shapes do not fit.
pub fn accumulate_cross(
    y: ArrayView2<'_, f32>,
    x: ArrayView2<'_, f32>,
    c: &mut Array2<f32>,
    team: &Team,
) {
    assert!(y.nrows() == x.nrows() && c.dim() == (y.ncols(), x.ncols()), "cross products");
    team.each(tiles(c.view_mut()), |_, tile| add_tile(y, x, tile));
}

/// Copies what stands above the diagonal of `h` `[n, n]` below it.
///
/// # Panics
/// When `h` is not square.
pub fn mirror<T: Copy>(h: &mut Array2<T>) {
    assert!(h.is_square(), "a symmetric matrix is square");
    let n = h.nrows();
    // By tiles: reading down a column of a large matrix would miss the cache at every element.
    for i0 in (0..n).step_by(TILE) {
        for j0 in (0..=i0).step_by(TILE) {
            for i in i0..n.min(i0 + TILE) {
                for j in j0..i.min(j0 + TILE) {
                    h[[i, j]] = h[[j, i]];
                }
            }
        }
    }
}

struct Tile<'a> {
    row: usize,
    column: usize,
    sums: ArrayViewMut2<'a, f32>,
}

fn tiles(mut whole: ArrayViewMut2<'_, f32>) -> Vec<Tile<'_>> {
    let mut all = vec![];
    let mut row = 0;
    while !whole.is_empty() {
        let height = TILE.min(whole.nrows());
        let (mut rest, below) = whole.split_at(Axis(0), height);
        let mut column = 0;
        while !rest.is_empty() {
            let width = TILE.min(rest.ncols());
            let (sums, right) = rest.split_at(Axis(1), width);
            all.push(Tile { row, column, sums });
            (rest, column) = (right, column + width);
        }
        (whole, row) = (below, row + height);
    }
    all
}

fn add_tile(y: ArrayView2<'_, f32>, x: ArrayView2<'_, f32>, mut tile: Tile<'_>) {
    let (rows, columns) = tile.sums.dim();
    for first in (0..x.nrows()).step_by(CHUNK) {
        let tokens = first..x.nrows().min(first + CHUNK);
        let y = y.slice(s![tokens.clone(), tile.row..tile.row + rows]);
        let x = x.slice(s![tokens, tile.column..tile.column + columns]);
        matmul_add(y.t(), x, tile.sums.view_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers: float32 sums are exact in any order.
    fn integers(tokens: usize, n: usize) -> Array2<f32> {
        Array2::from_shape_fn((tokens, n), |(t, i)| ((t * 7 + i * 5 + t * i) % 11) as f32 - 5.0)
    }

    fn waves(tokens: usize, n: usize, phase: f32) -> Array2<f32> {
        Array2::from_shape_fn((tokens, n), |(t, i)| ((t * 31 + i * 17) as f32 * 0.1 + phase).sin())
    }

    #[test]
    fn sums_are_those_of_the_definition() {
        let (x, y) = (integers(300, 203), integers(300, 7));
        let team = Team::new(2);
        let (mut h, mut c) = (Array2::ones((203, 203)), Array2::ones((7, 203)));
        accumulate_gram(x.view(), &mut h, &team);
        mirror(&mut h);
        accumulate_cross(y.view(), x.view(), &mut c, &team);
        for (i, j) in [(0, 0), (3, 200), (200, 3), (202, 201), (150, 150), (201, 202)] {
            let want: f32 = (0..300).map(|t| x[[t, i]] * x[[t, j]]).sum();
            assert!((h[[i, j]] - want - 1.0).abs() <= 0.0, "{i} {j}");
            let want: f32 = (0..300).map(|t| y[[t, i % 7]] * x[[t, j]]).sum();
            assert!((c[[i % 7, j]] - want - 1.0).abs() <= 0.0, "{i} {j}");
        }
        assert_eq!(h, h.t());
    }

    #[test]
    fn threads_and_splits_between_chunks_do_not_change_a_bit_but_other_splits_do() {
        let (x, y) = (waves(700, 230, 0.0), waves(700, 210, 1.0));
        let run = |threads: usize, splits: &[usize]| {
            let (mut h, mut c) = (Array2::zeros((230, 230)), Array2::zeros((210, 230)));
            let team = Team::new(threads);
            for ends in splits.windows(2) {
                let x = x.slice(s![ends[0]..ends[1], ..]);
                accumulate_gram(x, &mut h, &team);
                accumulate_cross(y.slice(s![ends[0]..ends[1], ..]), x, &mut c, &team);
            }
            (h, c)
        };
        let whole = run(1, &[0, 700]);
        assert_eq!(whole, run(2, &[0, 700]));
        assert_eq!(whole, run(5, &[0, CHUNK, 2 * CHUNK, 700]));
        assert_ne!(whole, run(1, &[0, 100, 700]));
    }

    #[test]
    fn mirroring_fills_the_lower_triangle() {
        let mut h =
            Array2::from_shape_fn((401, 401), |(i, j)| if i <= j { i * 401 + j } else { 0 });
        mirror(&mut h);
        assert_eq!(h, h.t());
        assert_eq!(h[[400, 1]], 401 + 400);
    }
}
