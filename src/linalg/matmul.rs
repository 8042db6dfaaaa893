//! Matrix products in float32 through the `gemm` crate; accumulation in float32, fused
//! multiply-add, in an order that depends on the shapes alone.
#![expect(unsafe_code, reason = "the gemm crate's pointer interface; shapes are checked here")]
use super::Team;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};

/// Output columns that one task computes. Fixed, so that the result does not depend on threads.
const PANEL: usize = 96;

/// `C ← A·B` on the calling thread: `a` is `[m, k]`, `b` is `[k, n]`, `c` is `[m, n]`.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, c: ArrayViewMut2<'_, f32>) {
    product(a, b, c, 0.0, 1.0);
}

/// `C ← C + A·B` on the calling thread, shapes as [`matmul`].
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul_add(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, c: ArrayViewMut2<'_, f32>) {
    product(a, b, c, 1.0, 1.0);
}

/// `C ← C + s·A·B` in float64 on the calling thread, shapes as [`matmul`].
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul_add_f64(
    s: f64,
    a: ArrayView2<'_, f64>,
    b: ArrayView2<'_, f64>,
    c: ArrayViewMut2<'_, f64>,
) {
    product(a, b, c, 1.0, s);
}

/// `C ← keep·C + scale·A·B`; `keep` 0 does not read C.
fn product<T: Copy + PartialEq + Default + 'static>(
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    mut c: ArrayViewMut2<'_, T>,
    keep: T,
    scale: T,
) {
    let ((m, k), n) = (a.dim(), b.ncols());
    assert!(
        b.nrows() == k && c.dim() == (m, n),
        "matmul shapes {:?} {:?} {:?}",
        a.dim(),
        b.dim(),
        c.dim()
    );
    if m == 0 || n == 0 {
        return;
    }
    let strides = |s: &[isize]| (s[1], s[0]);
    let ((c_cs, c_rs), (a_cs, a_rs), (b_cs, b_rs)) =
        (strides(c.strides()), strides(a.strides()), strides(b.strides()));
    // SAFETY: pointers and strides come from views of the asserted shapes; `c` is borrowed
    // mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            c_cs,
            c_rs,
            keep != T::default(),
            a.as_ptr(),
            a_cs,
            a_rs,
            b.as_ptr(),
            b_cs,
            b_rs,
            keep,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `Y ← X·Wᵀ`, the product of a linear layer: `x` is `[tokens, in]`, `w` is `[out, in]`,
/// `y` is `[tokens, out]`. Same bits at any number of threads.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul_transposed(
    x: ArrayView2<'_, f32>,
    w: ArrayView2<'_, f32>,
    mut y: ArrayViewMut2<'_, f32>,
    team: &Team,
) {
    assert_eq!(y.dim(), (x.nrows(), w.nrows()), "output of a linear layer");
    let panels = y.axis_chunks_iter_mut(Axis(1), PANEL).zip(w.axis_chunks_iter(Axis(0), PANEL));
    team.each(panels.collect(), |_, (y, w)| matmul(x, w.t(), y));
}

/// Each row as [`matmul_transposed`] of it alone, bit for bit; `w` is read once.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul_transposed_apart(
    x: ArrayView2<'_, f32>,
    w: ArrayView2<'_, f32>,
    mut y: ArrayViewMut2<'_, f32>,
    team: &Team,
) {
    assert_eq!(y.dim(), (x.nrows(), w.nrows()), "output of a linear layer");
    let panels = y.axis_chunks_iter_mut(Axis(1), PANEL).zip(w.axis_chunks_iter(Axis(0), PANEL));
    team.each(panels.collect(), |_, (mut y, w)| {
        let rows = x.axis_chunks_iter(Axis(0), 1).zip(y.axis_chunks_iter_mut(Axis(0), 1));
        rows.for_each(|(x, y)| matmul(x, w.t(), y));
    });
}

/// Rows and columns of the tiles of [`matmul_tiled`]: large enough to be worth packing, fixed.
const TILE: (usize, usize) = (512, 192);

/// `C ← A·B`, or `C ← C + A·B` with `add`, in tiles on all threads: `a` is `[m, k]`, `b` is `[k, n]`,
/// `c` is `[m, n]`. Same bits at any number of threads.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul_tiled(
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    mut c: ArrayViewMut2<'_, f32>,
    add: bool,
    team: &Team,
) {
    assert_eq!(c.dim(), (a.nrows(), b.ncols()), "output of a product");
    let mut tiles = Vec::new();
    let bands = c.axis_chunks_iter_mut(Axis(0), TILE.0).zip(a.axis_chunks_iter(Axis(0), TILE.0));
    for (mut band, a) in bands {
        for b in b.axis_chunks_iter(Axis(1), TILE.1) {
            let (tile, rest) = band.split_at(Axis(1), b.ncols());
            tiles.push((a, b, tile));
            band = rest;
        }
    }
    let keep = if add { 1.0 } else { 0.0 };
    team.each(tiles, |_, (a, b, c)| product(a, b, c, keep, 1.0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn agrees_with_the_definition_in_any_layout() {
        let a = Array2::from_shape_fn((5, 7), |(i, j)| (i * 7 + j) as f32 * 0.25 - 3.0);
        let w = Array2::from_shape_fn((211, 7), |(i, j)| ((i * 13 + j * 5) % 17) as f32 - 8.0);
        let mut y = Array2::zeros((5, 211));
        matmul_transposed(a.view(), w.view(), y.view_mut(), &Team::new(2));
        for ((i, j), got) in y.indexed_iter() {
            let want: f32 = (0..7).map(|k| a[[i, k]] * w[[j, k]]).sum();
            assert!((got - want).abs() <= 0.0, "all values are small multiples of 1/4: exact");
        }
    }

    #[test]
    fn tiles_give_the_whole_product_at_any_number_of_threads() {
        // Small integers: sums are exact in any order.
        let a = Array2::from_shape_fn((700, 11), |(i, j)| ((i * 7 + j * 5) % 9) as f32 - 4.0);
        let b = Array2::from_shape_fn((11, 400), |(i, j)| ((i * 3 + j * 11) % 7) as f32 - 3.0);
        for threads in [1, 2, 5] {
            let mut c = Array2::ones((700, 400));
            matmul_tiled(a.view(), b.view(), c.view_mut(), true, &Team::new(threads));
            assert_eq!(c, a.dot(&b) + 1.0);
            matmul_tiled(a.view(), b.view(), c.view_mut(), false, &Team::new(threads));
            assert_eq!(c, a.dot(&b));
        }
    }

    #[test]
    fn rows_apart_are_as_alone() {
        let x = Array2::from_shape_fn((9, 130), |(i, j)| ((i * 31 + j * 7) as f32).sin());
        let w = Array2::from_shape_fn((300, 130), |(i, j)| ((i * 3 + j * 11) as f32).cos());
        let mut apart = Array2::zeros((9, 300));
        matmul_transposed_apart(x.view(), w.view(), apart.view_mut(), &Team::new(2));
        for (x, apart) in x.axis_chunks_iter(Axis(0), 1).zip(apart.axis_chunks_iter(Axis(0), 1)) {
            let mut alone = Array2::zeros((1, 300));
            matmul_transposed(x, w.view(), alone.view_mut(), &Team::new(1));
            assert_eq!(alone, apart);
        }
        assert_ne!(apart.row(0), apart.row(1), "the twin: another row has other sums");
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let x = Array2::from_shape_fn((33, 130), |(i, j)| ((i * 31 + j * 7) as f32).sin());
        let w = Array2::from_shape_fn((300, 130), |(i, j)| ((i * 3 + j * 11) as f32).cos());
        let run = |threads| {
            let mut y = Array2::zeros((33, 300));
            matmul_transposed(x.view(), w.view(), y.view_mut(), &Team::new(threads));
            y
        };
        assert_eq!(run(1), run(2));
        assert_eq!(run(1), run(5));
    }
}
