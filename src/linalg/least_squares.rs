//! Least squares of a linear layer on the inputs that it will really see.
//!
//! A layer `y = W·x` is to give the outputs t of the float model from the inputs x̂ of the
//! compressed one. Three sums over tokens are all it takes: `H = Σ x̂·x̂ᵀ` `[in, in]`,
//! `C = Σ t·x̂ᵀ` `[out, in]` and `Σ ‖t‖²`. Of H only the upper triangle is read. GRAIL,
//! arXiv 2602.23795, with the ridge toward the old weights of arXiv 2505.11695.
use super::{LinalgError, factor_damped, matmul_add_f64};
use ndarray::{Array1, Array2, Axis};
use rayon::prelude::*;

/// A fitted weight and what it took.
#[derive(Clone, Debug)]
pub struct Fit {
    /// `[out, in]`.
    pub weight: Array2<f32>,
    /// `[out]`; of [`ridge_affine`] only.
    pub bias: Option<Array1<f32>>,
    /// The ridge, relative to the mean diagonal of H; what was asked for unless `steps` is above
    /// zero.
    pub damping: f64,
    /// How often it was raised tenfold before the factorization succeeded.
    pub steps: u32,
}

/// First moments that a layer with a bias needs besides H and C.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// Tokens in all sums, at least 1.
    pub tokens: u64,
    /// `Σ x̂`, `[in]`.
    pub inputs: &'a [f64],
    /// `Σ t`, `[out]`; t includes the old bias.
    pub targets: &'a [f64],
}

/// Why a weight was not fitted.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum FitError {
    /// Sums and weights of different shapes.
    #[error("`{name}`: {what}: expected shape `{expected:?}`, found `{found:?}`")]
    Shape {
        /// The tensor.
        name: String,
        /// Which part.
        what: &'static str,
        /// What fits.
        expected: (usize, usize),
        /// What is there.
        found: (usize, usize),
    },
    /// Sums that have no solution at any damping.
    #[error("`{name}`: {source}")]
    Matrix {
        /// The tensor.
        name: String,
        /// What is wrong with H.
        source: LinalgError,
    },
    /// A solution that float32 cannot hold.
    #[error(
        "`{name}`: the fitted weight is not finite\nhint: use more calibration tokens or more damping"
    )]
    NotFinite {
        /// The tensor.
        name: String,
    },
}

/// `W = (C + λ·W₀)·(H + λ·I)⁻¹` in float64, the minimum of `Σ ‖t − W·x̂‖² + λ·‖W − W₀‖²`, with
/// `λ = damping ·` mean diagonal of H. `h` is `[in, in]`, `c` and the old weights `w0`
/// are `[out, in]`; `name` is the tensor's, for errors. Damping is raised step by step where the
/// factorization fails, and reported. If the layer has a bias, t is without it here.
///
/// # Errors
/// [`FitError`]; among others when no token was seen (H = 0).
pub fn ridge(
    h: &Array2<f32>,
    c: &Array2<f32>,
    w0: &Array2<f32>,
    damping: f64,
    name: &str,
) -> Result<Fit, FitError> {
    check(h, c, w0, name)?;
    solve(h.mapv(f64::from), c.mapv(f64::from), w0, damping, name)
}

/// As [`ridge`], for a layer with a bias: the minimum of
/// `Σ ‖t − W·x̂ − b‖² + λ·‖W − W₀‖²` over W and b. The bias is free, without a ridge; that is
/// the ridge on the centered sums `H − n·x̄·x̄ᵀ`, `C − n·t̄·x̄ᵀ` (λ relative to these), and then
/// `b = t̄ − W·x̄`. It holds what FLAP (arXiv 2312.11983) puts into a bias.
///
/// # Errors
/// As [`ridge`].
pub fn ridge_affine(
    h: &Array2<f32>,
    c: &Array2<f32>,
    w0: &Array2<f32>,
    means: Means<'_>,
    damping: f64,
    name: &str,
) -> Result<Fit, FitError> {
    check(h, c, w0, name)?;
    let found = (means.targets.len(), means.inputs.len());
    fits("means of outputs and inputs", c.dim(), found, name)?;
    let tokens = means.tokens.max(1) as f64;
    let mean = |sums: &[f64]| sums.iter().map(|sum| sum / tokens).collect::<Array1<f64>>();
    let (x, t) = (mean(means.inputs), mean(means.targets));
    let centered = |sums: &Array2<f32>, left: &Array1<f64>| {
        let mut sums = sums.mapv(f64::from);
        for (mut row, left) in sums.axis_iter_mut(Axis(0)).zip(left) {
            row.scaled_add(-left * tokens, &x);
        }
        sums
    };
    let mut fit = solve(centered(h, &x), centered(c, &t), w0, damping, name)?;
    let bias = t - fit.weight.mapv(f64::from).dot(&x);
    fit.bias = Some(bias.mapv(|b| b as f32));
    Ok(fit)
}

/// `Σ ‖t − W·x̂‖² / Σ ‖t‖²` from the sums alone:
/// `(t2 − 2·tr(W·Cᵀ) + tr(W·H·Wᵀ)) / t2`, with `t2 = Σ ‖t‖²`; 0 when t2 is.
///
/// The sums are float32: a quotient below about 1e-6 is rounding.
///
/// # Panics
/// When the shapes do not fit.
pub fn error(w: &Array2<f32>, h: &Array2<f32>, c: &Array2<f32>, t2: f64) -> f64 {
    relative(t2 - 2.0 * inner(w, c) + quadratic(w, h), t2)
}

/// As [`error()`], of `Σ ‖t − W·x̂ − b‖²` with `b` `[out]`.
///
/// # Panics
/// When the shapes do not fit.
pub fn error_affine(
    (w, b): (&Array2<f32>, &Array1<f32>),
    h: &Array2<f32>,
    c: &Array2<f32>,
    means: Means<'_>,
    t2: f64,
) -> f64 {
    let outputs = w.mapv(f64::from).dot(&Array1::from(means.inputs.to_vec()));
    let each = b.iter().zip(&outputs).zip(means.targets);
    let of_bias: f64 = each
        .map(|((b, wx), t)| {
            let b = f64::from(*b);
            b * (2.0 * (wx - t) + b * means.tokens as f64)
        })
        .sum();
    relative(t2 - 2.0 * inner(w, c) + quadratic(w, h) + of_bias, t2)
}

fn relative(squares: f64, t2: f64) -> f64 {
    if t2 > 0.0 { squares.max(0.0) / t2 } else { 0.0 }
}

/// `tr(A·Bᵀ)`
fn inner(a: &Array2<f32>, b: &Array2<f32>) -> f64 {
    assert_eq!(a.dim(), b.dim(), "weights and sums of one shape");
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// `tr(W·H·Wᵀ)` of a symmetric H, from its upper triangle.
fn quadratic(w: &Array2<f32>, h: &Array2<f32>) -> f64 {
    /// Rows of W in a task; their sums are added in order.
    const ROWS: usize = 64;
    // Each product above the diagonal stands for its mirror too.
    let upper = Array2::from_shape_fn(h.dim(), |(i, j)| match i.cmp(&j) {
        std::cmp::Ordering::Less => 2.0 * f64::from(h[[i, j]]),
        std::cmp::Ordering::Equal => f64::from(h[[i, j]]),
        std::cmp::Ordering::Greater => 0.0,
    });
    let panels = w.axis_chunks_iter(Axis(0), ROWS).into_par_iter();
    let sums: Vec<f64> = panels
        .map(|w| {
            let w = w.mapv(f64::from);
            let mut product = Array2::zeros(w.dim());
            matmul_add_f64(1.0, w.view(), upper.view(), product.view_mut());
            (product * w).sum()
        })
        .collect();
    sums.iter().sum()
}

fn solve(
    h: Array2<f64>,
    mut c: Array2<f64>,
    w0: &Array2<f32>,
    damping: f64,
    name: &str,
) -> Result<Fit, FitError> {
    let damped = factor_damped(h.view(), damping)
        .map_err(|source| FitError::Matrix { name: name.to_owned(), source })?;
    drop(h);
    c.zip_mut_with(w0, |c, w| *c += damped.lambda * f64::from(*w));
    let weight = damped.cholesky.solve_rows(c).mapv(|w| w as f32);
    if !weight.iter().all(|w| w.is_finite()) {
        return Err(FitError::NotFinite { name: name.to_owned() });
    }
    Ok(Fit { weight, bias: None, damping: damped.damping, steps: damped.steps })
}

fn check(h: &Array2<f32>, c: &Array2<f32>, w0: &Array2<f32>, name: &str) -> Result<(), FitError> {
    let (out, kept) = w0.dim();
    fits("sums of inputs", (kept, kept), h.dim(), name)?;
    fits("sums of outputs and inputs", (out, kept), c.dim(), name)
}

fn fits(
    what: &'static str,
    expected: (usize, usize),
    found: (usize, usize),
    name: &str,
) -> Result<(), FitError> {
    if expected == found {
        return Ok(());
    }
    Err(FitError::Shape { name: name.to_owned(), what, expected, found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{array, s};

    /// Tokens of nine correlated inputs with means, of which six stay, and what a weight makes of
    /// all nine.
    struct Case {
        x: Array2<f32>,
        t: Array2<f32>,
        w0: Array2<f32>,
        h: Array2<f32>,
        c: Array2<f32>,
        t2: f64,
    }

    impl Case {
        fn new(bias: f32) -> Self {
            let full = Array2::from_shape_fn((200, 9), |(t, j)| {
                ((t * 37 + j * 11 + t * j) as f32).sin() + (t as f32).cos() + 0.3
            });
            let w = Array2::from_shape_fn((4, 9), |(i, j)| ((i * 7 + j * 3) as f32).cos());
            let t = full.dot(&w.t()) + bias;
            let x = full.slice(s![.., ..6]).to_owned();
            let (h, c) = (x.t().dot(&x), t.t().dot(&x));
            let t2 = squares(&t);
            Self { x, t, w0: w.slice(s![.., ..6]).to_owned(), h, c, t2 }
        }

        /// Relative error over the tokens themselves.
        fn brute(&self, w: &Array2<f32>, b: Option<&Array1<f32>>) -> f64 {
            let mut y = self.x.dot(&w.t());
            if let Some(b) = b {
                y += b;
            }
            squares(&(&self.t - y)) / self.t2
        }

        fn sums(&self) -> (Vec<f64>, Vec<f64>) {
            let sum = |a: &Array2<f32>| a.mapv(f64::from).sum_axis(Axis(0)).to_vec();
            (sum(&self.x), sum(&self.t))
        }
    }

    fn squares(a: &Array2<f32>) -> f64 {
        a.iter().map(|a| f64::from(*a).powi(2)).sum()
    }

    fn largest(a: &Array2<f32>) -> f32 {
        a.iter().fold(0.0, |max, x| max.max(x.abs()))
    }

    #[test]
    fn one_input_by_hand() {
        // Σx² = 4, Σtx = 6, w0 = 1, λ = 0.5 · 4: (6 + 2) / (4 + 2)
        let (h, c, w0) = (array![[4.0]], array![[6.0]], array![[1.0]]);
        let fit = ridge(&h, &c, &w0, 0.5, "w").unwrap();
        assert!((fit.weight[[0, 0]] - 8.0 / 6.0).abs() < 1e-7);
        assert_eq!((fit.steps, fit.bias), (0, None));
        // t2 = 10, w = 1: (10 - 12 + 4) / 10
        assert!((error(&w0, &h, &c, 10.0) - 0.2).abs() < 1e-15);
        assert!(error(&w0, &h, &c, 0.0).abs() <= 0.0);
    }

    #[test]
    fn what_is_right_already_stays_and_what_is_not_does_not() {
        let case = Case::new(0.0);
        // Outputs of the kept inputs alone: the old weights are the solution at any damping.
        let c = case.w0.dot(&case.h);
        let h = case.h.mapv(f64::from);
        let spread = h.diag().sum(); // above the largest eigenvalue
        for damping in [1e-4, 1.0] {
            let same = ridge(&case.h, &c, &case.w0, damping, "w").unwrap().weight;
            // float32 rounding of C against the least eigenvalue, λ
            let lambda = damping * spread / 6.0;
            let bound = 6.0 * f64::from(f32::EPSILON) * spread / lambda;
            assert!(f64::from(largest(&(same - &case.w0))) < bound.max(1e-6), "{damping}");
        }
        let fit = ridge(&case.h, &case.c, &case.w0, 1e-4, "w").unwrap().weight;
        assert!(largest(&(fit - &case.w0)) > 0.01);
    }

    #[test]
    fn damping_goes_from_least_squares_to_the_old_weights() {
        let case = Case::new(0.0);
        let at = |damping| ridge(&case.h, &case.c, &case.w0, damping, "w").unwrap().weight;
        let error = |w: &Array2<f32>| error(w, &case.h, &case.c, case.t2);
        let (free, bound, old) = (error(&at(1e-6)), error(&at(0.1)), error(&case.w0));
        assert!(free < bound && bound < old, "{free} {bound} {old}");
        assert!(largest(&(at(1e9) - &case.w0)) < 1e-6);
        // At the minimum no step in any direction helps.
        for i in 0..4 {
            let mut other = at(1e-9);
            other[[i, i]] += 0.01;
            assert!(error(&other) > error(&at(1e-9)));
        }
    }

    #[test]
    fn errors_from_sums_are_those_over_tokens() {
        let case = Case::new(1.5);
        let (inputs, targets) = case.sums();
        let means = Means { tokens: 200, inputs: &inputs, targets: &targets };
        let bias = array![1.0, 0.5, 2.0, -1.0];
        let mut upper = case.h.clone();
        upper.indexed_iter_mut().filter(|((i, j), _)| i > j).for_each(|(_, h)| *h = f32::NAN);
        // 200 float32 additions in each sum
        let close = |a: f64, b: f64| (a - b).abs() < 200.0 * f64::from(f32::EPSILON);
        assert!(close(error(&case.w0, &upper, &case.c, case.t2), case.brute(&case.w0, None)));
        let affine = error_affine((&case.w0, &bias), &upper, &case.c, means, case.t2);
        assert!(close(affine, case.brute(&case.w0, Some(&bias))));
        assert!(!close(affine, case.brute(&case.w0, None)));
    }

    #[test]
    fn a_bias_takes_what_is_constant() {
        let case = Case::new(1.5);
        let (inputs, targets) = case.sums();
        let means = Means { tokens: 200, inputs: &inputs, targets: &targets };
        let affine = ridge_affine(&case.h, &case.c, &case.w0, means, 1e-6, "w").unwrap();
        let bias = affine.bias.unwrap();
        // Residuals of least squares with a bias have the mean 0.
        let residual = &case.t - &(case.x.dot(&affine.weight.t()) + &bias);
        let mean = residual.mapv(f64::from).sum_axis(Axis(0)) / 200.0;
        assert!(mean.iter().all(|m| m.abs() < 200.0 * f64::from(f32::EPSILON)), "{mean}");
        let plain = ridge(&case.h, &case.c, &case.w0, 1e-6, "w").unwrap();
        let with = case.brute(&affine.weight, Some(&bias));
        let without = case.brute(&plain.weight, None);
        assert!(with < without, "{with} {without}");

        // One input by hand: x = 1, 3 and t = 5, 9 is t = 2x + 3.
        let (h, c, w0) = (array![[10.0]], array![[32.0]], array![[0.0]]);
        let means = Means { tokens: 2, inputs: &[4.0], targets: &[14.0] };
        let exact = ridge_affine(&h, &c, &w0, means, 0.0, "w").unwrap();
        assert!((exact.weight[[0, 0]] - 2.0).abs() < 1e-6);
        assert!((exact.bias.unwrap()[0] - 3.0).abs() < 1e-6);
    }

    #[test]
    fn failures_name_the_tensor_and_damping_is_reported() {
        let (zero, w0) = (Array2::zeros((2, 2)), Array2::ones((3, 2)));
        let failed = ridge(&zero, &w0, &w0, 0.01, "blocks.3.down").unwrap_err();
        assert!(failed.to_string().starts_with("`blocks.3.down`: the matrix is not positive"));
        let failed = ridge(&zero, &zero, &w0, 0.01, "w").unwrap_err();
        assert!(matches!(failed, FitError::Shape { expected: (3, 2), found: (2, 2), .. }));
        let failed = ridge(&Array2::eye(2), &(&w0 * f32::NAN), &w0, 0.01, "w").unwrap_err();
        assert_eq!(failed, FitError::NotFinite { name: "w".to_owned() });

        // Two inputs that are always equal share the weight, after damping was raised.
        let twins = Array2::from_elem((2, 2), 4.0);
        let fit = ridge(&twins, &(&w0 * 4.0), &Array2::zeros((3, 2)), 0.0, "w").unwrap();
        assert!(fit.steps > 0 && fit.damping > 0.0);
        assert!(largest(&(fit.weight - 0.5)) < 1e-6);
    }
}
