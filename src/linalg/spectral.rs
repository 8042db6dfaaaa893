//! Eigenvalues and singular values in float64, through the `faer` crate.
//!
//! Everything here runs on the calling thread: the last bits of these factorizations depend on
//! how they are split.
use super::LinalgError;
use faer::{
    MatMut, MatRef, Par,
    diag::DiagMut,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{
        evd::{self, ComputeEigenvectors},
        svd::{self, ComputeSvdVectors},
    },
};
use ndarray::{Array2, ArrayView2, Axis, ShapeBuilder};

/// `A = Q·diag(values)·Qᵀ` of a symmetric matrix.
#[derive(Clone, Debug)]
pub struct Eigen {
    /// Ascending, `[n]`.
    pub values: Vec<f64>,
    /// Column i belongs to value i, `[n, n]`, orthonormal.
    pub vectors: Array2<f64>,
}

/// `A = U·diag(values)·Vᵀ`, with k the smaller side of A `[m, n]`.
#[derive(Clone, Debug)]
pub struct Svd {
    /// `[m, k]`, orthonormal columns.
    pub u: Array2<f64>,
    /// Descending, `[k]`.
    pub values: Vec<f64>,
    /// `[n, k]`, orthonormal columns.
    pub v: Array2<f64>,
}

/// The eigenvalues of `a` `[n, n]`. Only the upper triangle is used.
///
/// # Errors
/// [`LinalgError::NotFinite`]; [`LinalgError::NoConvergence`], which no finite matrix is known
/// to cause.
///
/// # Panics
/// When `a` is not square.
pub fn eigh(a: ArrayView2<'_, f64>) -> Result<Eigen, LinalgError> {
    assert!(a.is_square(), "a symmetric matrix is square");
    finite(a)?;
    let n = a.nrows();
    let rows = a.as_standard_layout();
    // The lower triangle by columns, which faer reads, is the upper one by rows.
    let matrix = MatRef::from_column_major_slice(rows.as_slice().expect("standard layout"), n, n);
    let (mut values, mut vectors) = (vec![0.0; n], vec![0.0; n * n]);
    if n > 0 {
        let mut memory = MemBuffer::new(evd::self_adjoint_evd_scratch::<f64>(
            n,
            ComputeEigenvectors::Yes,
            Par::Seq,
            faer::Spec::default(),
        ));
        evd::self_adjoint_evd(
            matrix,
            DiagMut::from_slice_mut(&mut values),
            Some(MatMut::from_column_major_slice_mut(&mut vectors, n, n)),
            Par::Seq,
            MemStack::new(&mut memory),
            faer::Spec::default(),
        )
        .map_err(|_| LinalgError::NoConvergence { rows: n, columns: n })?;
    }
    Ok(Eigen { values, vectors: by_columns(n, n, vectors) })
}

/// The thin singular value decomposition of `a` `[m, n]`.
///
/// # Errors
/// As [`eigh`].
pub fn svd(a: ArrayView2<'_, f64>) -> Result<Svd, LinalgError> {
    finite(a)?;
    let (m, n) = a.dim();
    let k = m.min(n);
    let rows = a.as_standard_layout();
    let matrix = MatRef::from_row_major_slice(rows.as_slice().expect("standard layout"), m, n);
    let (mut u, mut values, mut v) = (vec![0.0; m * k], vec![0.0; k], vec![0.0; n * k]);
    if k > 0 {
        let thin = ComputeSvdVectors::Thin;
        let mut memory = MemBuffer::new(svd::svd_scratch::<f64>(
            m,
            n,
            thin,
            thin,
            Par::Seq,
            faer::Spec::default(),
        ));
        svd::svd(
            matrix,
            DiagMut::from_slice_mut(&mut values),
            Some(MatMut::from_column_major_slice_mut(&mut u, m, k)),
            Some(MatMut::from_column_major_slice_mut(&mut v, n, k)),
            Par::Seq,
            MemStack::new(&mut memory),
            faer::Spec::default(),
        )
        .map_err(|_| LinalgError::NoConvergence { rows: m, columns: n })?;
    }
    Ok(Svd { u: by_columns(m, k, u), values, v: by_columns(n, k, v) })
}

/// What becomes of eigenvalues that are tiny against the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiny {
    /// They count as zero in the root and in its inverse: a projection onto the others.
    Truncate,
    /// They are raised to the threshold: root and inverse stay inverse to each other.
    Raise,
}

/// `A^½` and `A^-½` of a positive semidefinite matrix, both symmetric, `[n, n]`.
#[derive(Clone, Debug)]
pub struct Roots {
    /// `A^½`.
    pub root: Array2<f64>,
    /// `A^-½`; with [`Tiny::Truncate`] the pseudoinverse of the root.
    pub inverse: Array2<f64>,
    /// Eigenvalues above the threshold.
    pub rank: usize,
}

/// The square roots of `a` `[n, n]`. Eigenvalues at or below `threshold` times the largest are
/// tiny (`threshold` in (0, 1); 1e-8 keeps the inverse accurate to about 1e-12), negative ones
/// among them: they are rounding of zeros.
///
/// # Errors
/// [`LinalgError::NotPositive`] when no eigenvalue is above zero, else as [`eigh`].
///
/// # Panics
/// When `a` is not square.
pub fn sqrt_psd(a: ArrayView2<'_, f64>, threshold: f64, tiny: Tiny) -> Result<Roots, LinalgError> {
    let Eigen { values, vectors } = eigh(a)?;
    let largest = values.last().copied().unwrap_or(0.0);
    if largest <= 0.0 {
        return Err(LinalgError::NotPositive { pivot: 0, damping: 0.0 });
    }
    let floor = threshold * largest;
    let rank = values.iter().filter(|value| **value > floor).count();
    let power = |exponent: f64| {
        let mut scaled = vectors.clone();
        for (mut column, value) in scaled.axis_iter_mut(Axis(1)).zip(&values) {
            let scale = match tiny {
                Tiny::Truncate if *value <= floor => 0.0,
                _ => value.max(floor).powf(exponent),
            };
            column *= scale;
        }
        scaled.dot(&vectors.t())
    };
    Ok(Roots { root: power(0.5), inverse: power(-0.5), rank })
}

fn by_columns(rows: usize, columns: usize, data: Vec<f64>) -> Array2<f64> {
    Array2::from_shape_vec((rows, columns).f(), data).expect("as many values as the shape says")
}

fn finite(a: ArrayView2<'_, f64>) -> Result<(), LinalgError> {
    match a.indexed_iter().find(|(_, x)| !x.is_finite()) {
        Some(((row, column), x)) => Err(LinalgError::NotFinite { row, column, found: *x }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn waves(m: usize, n: usize) -> Array2<f64> {
        Array2::from_shape_fn((m, n), |(i, j)| ((i * 37 + j * 11 + i * j) as f64).sin())
    }

    fn largest(a: &Array2<f64>) -> f64 {
        a.iter().fold(0.0, |max, x| max.max(x.abs()))
    }

    /// Backward stable factorizations: an error of p(n)·u·‖A‖, with p of low degree; n² here.
    fn bound(a: &Array2<f64>) -> f64 {
        let n = a.nrows().max(a.ncols()) as f64;
        n * n * f64::EPSILON * a.iter().map(|x| x * x).sum::<f64>().sqrt().max(1.0)
    }

    fn orthonormal(q: &Array2<f64>) {
        let gram = q.t().dot(q) - Array2::<f64>::eye(q.ncols());
        assert!(largest(&gram) <= bound(q), "{}", largest(&gram));
    }

    fn scaled(q: &Array2<f64>, values: &[f64]) -> Array2<f64> {
        q * &ndarray::ArrayView1::from(values)
    }

    #[test]
    fn eigenvectors_give_back_the_matrix() {
        for n in [1, 2, 33, 150] {
            let x = waves(n, n);
            let a = &x + &x.t();
            let Eigen { values, vectors } = eigh(a.view()).unwrap();
            assert!(values.is_sorted());
            orthonormal(&vectors);
            let back = scaled(&vectors, &values).dot(&vectors.t());
            assert!(largest(&(back - &a)) <= bound(&a), "{n}");
        }
        let hand = eigh(array![[2.0, 1.0], [1.0, 2.0]].view()).unwrap();
        assert!((hand.values[0] - 1.0).abs() < 1e-15 && (hand.values[1] - 3.0).abs() < 1e-14);
    }

    #[test]
    fn singular_vectors_give_back_the_matrix() {
        for (m, n) in [(1, 1), (40, 7), (7, 40), (90, 90)] {
            let a = waves(m, n);
            let Svd { u, values, v } = svd(a.view()).unwrap();
            assert!(values.is_sorted_by(|a, b| a >= b) && values.iter().all(|s| *s >= 0.0));
            orthonormal(&u);
            orthonormal(&v);
            let back = scaled(&u, &values).dot(&v.t());
            assert!(largest(&(back - &a)) <= bound(&a), "{m} {n}");
        }
    }

    #[test]
    fn roots_of_a_singular_matrix() {
        let x = waves(5, 9);
        let a = x.t().dot(&x);
        let cut = sqrt_psd(a.view(), 1e-8, Tiny::Truncate).unwrap();
        assert_eq!(cut.rank, 5);
        assert!(largest(&(cut.root.dot(&cut.root) - &a)) <= bound(&a));
        // Root times inverse is the projection onto the five directions.
        let projection = cut.root.dot(&cut.inverse);
        let condition = 1e4; // of the root, by the threshold
        assert!((projection.diag().sum() - 5.0).abs() <= 9.0 * condition * bound(&a));
        assert!(largest(&(projection.dot(&a) - &a)) <= condition * bound(&a));

        let raised = sqrt_psd(a.view(), 1e-8, Tiny::Raise).unwrap();
        let identity = raised.root.dot(&raised.inverse) - Array2::<f64>::eye(9);
        assert!(largest(&identity) <= condition * bound(&a));
        assert!((projection.diag().sum() - 9.0).abs() > 1.0, "truncation is no identity");
    }

    #[test]
    fn threads_around_a_call_do_not_change_a_bit() {
        let a = waves(140, 140);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| (eigh(a.view()).unwrap().vectors, svd(a.view()).unwrap().u))
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn bad_matrices_are_named() {
        let mut a = waves(4, 4);
        a[[1, 2]] = f64::INFINITY;
        let found = LinalgError::NotFinite { row: 1, column: 2, found: f64::INFINITY };
        assert_eq!(eigh(a.view()).unwrap_err(), found);
        assert_eq!(svd(a.view()).unwrap_err(), found);
        let zero = sqrt_psd(Array2::zeros((3, 3)).view(), 1e-8, Tiny::Raise);
        assert!(matches!(zero, Err(LinalgError::NotPositive { .. })));
        assert!(eigh(Array2::zeros((0, 0)).view()).unwrap().values.is_empty());
        assert!(svd(Array2::zeros((0, 3)).view()).unwrap().values.is_empty());
    }
}
