//! Cholesky factors of symmetric matrices in float64, through the `faer` crate.
use super::{LinalgError, mirror};
use faer::{
    MatMut, MatRef, Par,
    dyn_stack::{MemBuffer, MemStack},
    linalg::cholesky::llt::{factor, inverse, solve},
};
use ndarray::{Array2, ArrayView2};

/// The largest damping that [`factor_damped`] tries. A matrix that is not positive with its mean
/// diagonal added is no sum of squares.
pub const MAX_DAMPING: f64 = 1.0;
/// What is tried after a damping of zero.
const LEAST_DAMPING: f64 = 1e-8;

/// How faer splits its loops. A constant: the split is then the same at any number of threads.
fn split() -> Par {
    Par::rayon(8)
}

/// `A = L·Lᵀ` of a symmetric positive definite matrix.
#[derive(Clone, Debug)]
pub struct Cholesky {
    /// `Lᵀ`, `[n, n]`, row-major: the upper triangle; what lies below is not read.
    factor: Array2<f64>,
}

impl Cholesky {
    /// Factors `a` `[n, n]` in its own memory. Only the upper triangle is read.
    ///
    /// # Errors
    /// [`LinalgError::NotPositive`], with the first pivot that is not above zero.
    ///
    /// # Panics
    /// When `a` is not square.
    pub fn new(a: Array2<f64>) -> Result<Self, LinalgError> {
        assert!(a.is_square(), "a symmetric matrix is square");
        let n = a.nrows();
        // The lower triangle by columns, which faer reads, is the upper one by rows.
        let mut factor = rows(a);
        let slice = factor.as_slice_mut().expect("standard layout");
        let mut memory = MemBuffer::new(factor::cholesky_in_place_scratch::<f64>(
            n,
            split(),
            faer::Spec::default(),
        ));
        factor::cholesky_in_place(
            MatMut::from_column_major_slice_mut(slice, n, n),
            factor::LltRegularization::default(),
            split(),
            MemStack::new(&mut memory),
            faer::Spec::default(),
        )
        .map_err(|factor::LltError::NonPositivePivot { index }| {
            LinalgError::NotPositive { pivot: index, damping: 0.0 }
        })?;
        Ok(Self { factor })
    }

    /// `X` of `A·X = B`. Right-hand sides and solutions are *rows*: `b` is `[rows, n]`, so that
    /// `W·A⁻¹` of a weight `[out, in]` is `solve_rows(w)`, `A` being symmetric.
    ///
    /// # Panics
    /// When `b` has other than n columns.
    pub fn solve_rows(&self, b: Array2<f64>) -> Array2<f64> {
        let (rows, n) = b.dim();
        assert_eq!(n, self.factor.nrows(), "right-hand sides");
        let mut x = self::rows(b);
        let right = MatMut::from_column_major_slice_mut(
            x.as_slice_mut().expect("standard layout"),
            n,
            rows,
        );
        let mut memory = MemBuffer::new(solve::solve_in_place_scratch::<f64>(n, rows, split()));
        solve::solve_in_place(self.lower(), right, split(), MemStack::new(&mut memory));
        x
    }

    /// `A⁻¹`, `[n, n]`, symmetric to the bit.
    pub fn inverse(&self) -> Array2<f64> {
        let n = self.factor.nrows();
        let mut a = Array2::zeros((n, n));
        let mut memory = MemBuffer::new(inverse::inverse_scratch::<f64>(n, split()));
        inverse::inverse(
            MatMut::from_column_major_slice_mut(a.as_slice_mut().expect("standard layout"), n, n),
            self.lower(),
            split(),
            MemStack::new(&mut memory),
        );
        mirror(&mut a);
        a
    }

    /// `Lᵀ`, `[n, n]`: the upper triangle holds the factor, what lies below has no meaning.
    pub fn upper(&self) -> ArrayView2<'_, f64> {
        self.factor.view()
    }

    fn lower(&self) -> MatRef<'_, f64> {
        let n = self.factor.nrows();
        let slice = self.factor.as_slice().expect("standard layout");
        MatRef::from_column_major_slice(slice, n, n)
    }
}

/// A factor of `H + λ·I`, with `λ = damping · mean diagonal of H`.
#[derive(Clone, Debug)]
pub struct Damped {
    /// The factor of the damped matrix.
    pub cholesky: Cholesky,
    /// Relative to the mean diagonal; what was asked for unless `steps` is above zero.
    pub damping: f64,
    /// `λ` itself.
    pub lambda: f64,
    /// How often damping was raised tenfold before the factorization succeeded.
    pub steps: u32,
}

/// Factors `h` `[n, n]` with `damping` times its mean diagonal added to the diagonal; when that
/// is not positive definite, with ten times as much (1e-8 after 0), up to [`MAX_DAMPING`]. Only
/// the upper triangle is read.
///
/// # Errors
/// [`LinalgError::NotPositive`] when the mean diagonal is not a number above zero, or when the
/// largest damping does not help.
///
/// # Panics
/// When `h` is not square.
pub fn factor_damped(h: ArrayView2<'_, f64>, damping: f64) -> Result<Damped, LinalgError> {
    let mean = h.diag().sum() / h.nrows().max(1) as f64;
    if !(mean > 0.0 && mean.is_finite() && damping >= 0.0) {
        let pivot = h.diag().iter().position(|d| !(*d > 0.0 && d.is_finite())).unwrap_or(0);
        return Err(LinalgError::NotPositive { pivot, damping });
    }
    let (mut damping, mut steps) = (damping, 0);
    loop {
        let lambda = damping * mean;
        let mut damped = h.to_owned();
        damped.diag_mut().mapv_inplace(|d| d + lambda);
        match Cholesky::new(damped) {
            Ok(cholesky) => return Ok(Damped { cholesky, damping, lambda, steps }),
            Err(LinalgError::NotPositive { pivot, .. }) if damping * 10.0 > MAX_DAMPING => {
                return Err(LinalgError::NotPositive { pivot, damping });
            }
            Err(LinalgError::NotPositive { .. }) => {
                (damping, steps) = ((damping * 10.0).max(LEAST_DAMPING), steps + 1);
            }
            Err(other) => return Err(other),
        }
    }
}

/// The same matrix with its rows one after the other; copied only where they are not.
fn rows(a: Array2<f64>) -> Array2<f64> {
    if a.is_standard_layout() { a } else { a.as_standard_layout().into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    /// A symmetric matrix with eigenvalues of at least 1 and at most about n.
    fn positive(n: usize) -> Array2<f64> {
        let x = Array2::from_shape_fn((n, n), |(i, j)| ((i * 37 + j * 11 + i * j) as f64).sin());
        x.t().dot(&x) / n as f64 + Array2::<f64>::eye(n)
    }

    fn largest(a: &Array2<f64>) -> f64 {
        a.iter().fold(0.0, |max, x| max.max(x.abs()))
    }

    #[test]
    fn a_factor_gives_back_the_matrix_its_inverse_and_solutions() {
        for n in [1, 5, 70, 300] {
            let a = positive(n);
            let cholesky = Cholesky::new(a.clone()).unwrap();
            let mut upper = cholesky.upper().to_owned();
            upper.indexed_iter_mut().filter(|((i, j), _)| i > j).for_each(|(_, u)| *u = 0.0);
            // Higham, Accuracy and Stability, theorem 10.3: |A - LLᵀ| ≤ (n + 1)·u·|L||Lᵀ|, and
            // the diagonal of |L||Lᵀ|, its largest part, is that of A.
            let unit = (n + 1) as f64 * f64::EPSILON * largest(&a);
            assert!(largest(&(upper.t().dot(&upper) - &a)) <= unit, "{n}");
            // The condition is at most the largest eigenvalue, which is at most the trace.
            let bound = 4.0 * unit * a.diag().sum() * n as f64;
            let inverse = cholesky.inverse();
            assert_eq!(inverse, inverse.t());
            assert!(largest(&(inverse.dot(&a) - Array2::<f64>::eye(n))) <= bound, "{n}");
            let w = Array2::from_shape_fn((3, n), |(i, j)| (i * 3 + j) as f64 - 4.0);
            let x = cholesky.solve_rows(w.clone());
            assert!(largest(&(x.dot(&a) - &w)) <= bound * largest(&w), "{n}");
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let a = positive(530);
        let b = Array2::from_shape_fn((77, 530), |(i, j)| ((i * 7 + j) as f64).cos());
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let cholesky = Cholesky::new(a.clone()).unwrap();
                (cholesky.solve_rows(b.clone()), cholesky.inverse())
            })
        };
        let one = run(1);
        assert_eq!(one, run(2));
        assert_eq!(one, run(5));
    }

    #[test]
    fn damping_rises_until_it_suffices_and_says_so() {
        let damped = factor_damped(positive(20).view(), 0.01).unwrap();
        assert_eq!(damped.steps, 0);
        assert!((damped.damping - 0.01).abs() <= 0.0);

        // Eigenvalues 2.02 and -0.02 around a mean diagonal of 1: 0.001 and 0.01 are too little.
        let h = array![[1.0, 1.02], [1.02, 1.0]];
        let damped = factor_damped(h.view(), 0.001).unwrap();
        assert_eq!(damped.steps, 2);
        assert!((damped.damping - 0.1).abs() < 1e-15 && (damped.lambda - 0.1).abs() < 1e-15);
        let inverse = damped.cholesky.inverse();
        let det = 1.1 * 1.1 - 1.02 * 1.02;
        assert!((inverse[[0, 0]] - 1.1 / det).abs() < 1e-13 * 1.1 / det);

        // Two equal channels: singular without damping.
        let damped = factor_damped(Array2::ones((2, 2)).view(), 0.0).unwrap();
        assert_eq!((damped.steps, damped.damping), (1, LEAST_DAMPING));
    }

    #[test]
    fn what_is_no_sum_of_squares_is_refused() {
        let indefinite = array![[1.0, 9.0], [9.0, 1.0]];
        assert_eq!(
            Cholesky::new(indefinite.clone()).unwrap_err(),
            LinalgError::NotPositive { pivot: 1, damping: 0.0 }
        );
        for h in [indefinite, Array2::zeros((3, 3)), array![[f64::NAN]]] {
            let refused = factor_damped(h.view(), 0.01);
            assert!(matches!(refused, Err(LinalgError::NotPositive { .. })), "{h}");
        }
    }
}
