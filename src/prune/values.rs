//! Fewer value channels per KV head: a change of basis of the head's value space, then truncation.
//!
//! Attention mixes tokens, not channels: any matrix may be put between the values of a head and
//! the columns of the output projection that read them. The basis chosen here loses least.
use crate::linalg::{Eigen, LinalgError, Tiny, eigh, sqrt_psd};
use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate, s};

/// Eigenvalues of the second moment below this times the largest are raised to it, so that a
/// direction which calibration never showed can still be kept, and keeping all changes nothing.
const THRESHOLD: f64 = 1e-8;

/// What replaces the value space of one KV head: k channels for `head_dim`.
#[derive(Clone, Debug)]
pub struct ValueMaps {
    /// Applied to the values: `[k, head_dim]`.
    pub down: Array2<f64>,
    /// Applied to the columns that read them: `[head_dim, k]`; `up·down` is a projection.
    pub up: Array2<f64>,
    /// What is lost: `E‖Δy‖²` over tokens, summed over the query heads, with one second moment
    /// for all of them.
    pub dropped: f64,
    /// The same of all channels, `E‖y‖²`.
    pub total: f64,
}

/// Why a value space cannot be cut.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum ValuesError {
    /// More channels than there are, or none.
    #[error("value channels of a head: expected `1` to `{head_dim}`, found `{keep}`")]
    Keep {
        /// Channels of a head.
        head_dim: usize,
        /// Channels wanted.
        keep: usize,
    },
    /// Output columns that are no multiple of the head.
    #[error("output columns of a KV head: expected a multiple of `{head_dim}`, found `{found}`")]
    Columns {
        /// Channels of a head.
        head_dim: usize,
        /// Columns.
        found: usize,
    },
    /// A second moment without roots.
    #[error("second moment of the attention output: {0}")]
    Matrix(#[from] LinalgError),
}

/// The best k channels for one KV head. `outputs` `[out, kv_repeat · head_dim]` are the columns of
/// the output projection that read the query heads of this KV head, side by side; `moment`
/// `[head_dim, head_dim]` is C, the second moment `E[a·aᵀ]` of their inputs, the mean over the
/// query heads (symmetric; only its upper triangle is used).
///
/// `C^½·(Σ_q W_qᵀ·W_q)·C^½ = V·diag(σ²)·Vᵀ`, then `down = V_kᵀ·C^-½` and `up = C^½·V_k`. With one
/// query head that is the truncated singular value decomposition of `W·C^½`, the best there is,
/// and the error is the sum of the σ² dropped; with several it is that for the mean C, and
/// [`crate::prune::RefitWalk`] refits each query head after it.
///
/// # Errors
/// [`ValuesError`]; a zero second moment is one.
pub fn value_maps(
    outputs: ArrayView2<'_, f32>,
    moment: ArrayView2<'_, f64>,
    keep: usize,
) -> Result<ValueMaps, ValuesError> {
    let head_dim = moment.nrows();
    if keep == 0 || keep > head_dim {
        return Err(ValuesError::Keep { head_dim, keep });
    }
    if !outputs.ncols().is_multiple_of(head_dim) || moment.ncols() != head_dim {
        return Err(ValuesError::Columns { head_dim, found: outputs.ncols() });
    }
    let roots = sqrt_psd(moment, THRESHOLD, Tiny::Raise)?;
    let mut weights = Array2::<f64>::zeros((head_dim, head_dim));
    for w in outputs.axis_chunks_iter(Axis(1), head_dim) {
        let w = w.mapv(f64::from);
        weights += &w.t().dot(&w);
    }
    let Eigen { values, vectors } = eigh(roots.root.dot(&weights).dot(&roots.root).view())?;
    let (dropped, kept) = values.split_at(head_dim - keep);
    let energy = |values: &[f64]| values.iter().map(|value| value.max(0.0)).sum::<f64>();
    // Descending: channel 0 carries most.
    let basis = vectors.slice(s![.., head_dim - keep..;-1]);
    Ok(ValueMaps {
        down: basis.t().dot(&roots.inverse),
        up: roots.root.dot(&basis),
        dropped: energy(dropped),
        total: energy(dropped) + energy(kept),
    })
}

impl ValueMaps {
    /// The new rows of the value projection, `[k, hidden]`, from the old `[head_dim, hidden]`.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn values(&self, rows: ArrayView2<'_, f32>) -> Array2<f32> {
        self.down.dot(&rows.mapv(f64::from)).mapv(|w| w as f32)
    }

    /// The new bias of the values, `[k]`, from the old `[head_dim]`. The weights of attention add
    /// up to 1, so a bias reaches the output as it is and passes through the same maps.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn bias(&self, bias: &[f32]) -> Vec<f32> {
        let bias: Array1<f64> = bias.iter().map(|b| f64::from(*b)).collect();
        self.down.dot(&bias).iter().map(|b| *b as f32).collect()
    }

    /// The new columns of the output projection, `[out, kv_repeat · k]`, from the old
    /// `[out, kv_repeat · head_dim]`.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn outputs(&self, columns: ArrayView2<'_, f32>) -> Array2<f32> {
        let mapped: Vec<Array2<f32>> = columns
            .axis_chunks_iter(Axis(1), self.up.nrows())
            .map(|w| w.mapv(f64::from).dot(&self.up).mapv(|w| w as f32))
            .collect();
        let views: Vec<_> = mapped.iter().map(|w| w.view()).collect();
        concatenate(Axis(1), &views).unwrap_or_else(|_| Array2::zeros((columns.nrows(), 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::svd;

    const HEAD: usize = 8;

    fn waves(m: usize, n: usize, step: f64) -> Array2<f64> {
        Array2::from_shape_fn((m, n), |(i, j)| ((i * 37 + j * 11 + i * j) as f64 * step).sin())
    }

    /// Attention outputs of `tokens` tokens, correlated.
    fn tokens(tokens: usize) -> Array2<f64> {
        waves(tokens, HEAD, 1.0) + waves(tokens, 1, 0.3)
    }

    fn second_moment(a: &Array2<f64>) -> Array2<f64> {
        a.t().dot(a) / a.nrows() as f64
    }

    fn largest(a: &Array2<f64>) -> f64 {
        a.iter().fold(0.0, |max, x| max.max(x.abs()))
    }

    fn squares(a: &Array2<f64>) -> f64 {
        a.iter().map(|x| x * x).sum()
    }

    /// The root of C has a condition of at most 1e4 by the threshold.
    const BOUND: f64 = 1e4 * 64.0 * f64::EPSILON;

    #[test]
    fn one_query_head_gives_the_truncated_decomposition() {
        let a = tokens(50);
        let w = waves(20, HEAD, 0.7).mapv(|w| w as f32);
        let wide = w.mapv(f64::from);
        let c = second_moment(&a);
        let root = sqrt_psd(c.view(), THRESHOLD, Tiny::Raise).unwrap().root;
        let exact = svd(wide.dot(&root).view()).unwrap();
        for keep in 1..=HEAD {
            let maps = value_maps(w.view(), c.view(), keep).unwrap();
            // W·up·down·C^½ = U_k·Σ_k·V_kᵀ
            let got = wide.dot(&maps.up).dot(&maps.down).dot(&root);
            let left =
                &exact.u.slice(s![.., ..keep]) * &Array1::from(exact.values[..keep].to_vec());
            let want = left.dot(&exact.v.slice(s![.., ..keep]).t());
            assert!(largest(&(got - want)) <= BOUND * exact.values[0], "{keep}");
            // The error over the tokens themselves is the sum of what was dropped.
            let dropped: f64 = exact.values[keep..].iter().map(|s| s * s).sum();
            assert!((maps.dropped - dropped).abs() <= BOUND * maps.total, "{keep}");
            let lost = (&a - &a.dot(&maps.down.t()).dot(&maps.up.t())).dot(&wide.t());
            assert!((squares(&lost) / 50.0 - maps.dropped).abs() <= BOUND * maps.total, "{keep}");
            // Keeping the first channels instead loses more, unless all are kept.
            let cut = wide.slice(s![.., keep..]);
            let plain = squares(&a.slice(s![.., keep..]).dot(&cut.t())) / 50.0;
            assert!(keep == HEAD || plain > maps.dropped, "{keep}");
        }
    }

    #[test]
    fn query_heads_share_the_basis_that_loses_least_in_sum() {
        let a = tokens(50);
        let w = waves(20, 3 * HEAD, 0.7).mapv(|w| w as f32);
        let maps = value_maps(w.view(), second_moment(&a).view(), 5).unwrap();
        let lost = &a - &a.dot(&maps.down.t()).dot(&maps.up.t());
        let all: f64 = w
            .axis_chunks_iter(Axis(1), HEAD)
            .map(|w| squares(&lost.dot(&w.mapv(f64::from).t())) / 50.0)
            .sum();
        assert!((all - maps.dropped).abs() <= BOUND * maps.total);
        assert!(maps.dropped > 0.0 && maps.dropped < maps.total);
    }

    #[test]
    fn all_channels_are_the_identity_even_if_some_were_never_seen() {
        let w = waves(20, 2 * HEAD, 0.7).mapv(|w| w as f32);
        for seen in [50, 3] {
            let c = second_moment(&tokens(seen));
            let identity = |keep| {
                let maps = value_maps(w.view(), c.view(), keep).unwrap();
                largest(&(maps.up.dot(&maps.down) - Array2::<f64>::eye(HEAD)))
            };
            assert!(identity(HEAD) <= BOUND, "{seen}: {}", identity(HEAD));
            assert!(identity(HEAD - 1) > 0.01, "{seen}");
        }
    }

    #[test]
    fn weights_and_biases_pass_through_the_maps() {
        let (w_v, bias) = (waves(HEAD, 30, 0.2).mapv(|w| w as f32), [0.5; HEAD]);
        let w_o = waves(20, 2 * HEAD, 0.7).mapv(|w| w as f32);
        let maps = value_maps(w_o.view(), second_moment(&tokens(50)).view(), HEAD).unwrap();
        let (v, b, o) = (maps.values(w_v.view()), maps.bias(&bias), maps.outputs(w_o.view()));
        assert_eq!((v.dim(), b.len(), o.dim()), ((HEAD, 30), HEAD, (20, 2 * HEAD)));
        // Nothing is cut: O'·V' = O·V for each query head, up to float32 weights.
        for q in 0..2 {
            let head = s![.., q * HEAD..(q + 1) * HEAD];
            let (old, new) = (w_o.slice(head), o.slice(head));
            let scale =
                largest(&new.mapv(|w| f64::from(w.abs())).dot(&v.mapv(|w| f64::from(w.abs()))));
            let bound = 4.0 * HEAD as f64 * f64::from(f32::EPSILON) * scale.max(HEAD as f64);
            let weights = new.dot(&v) - old.dot(&w_v);
            assert!(largest(&weights.mapv(f64::from)) <= bound);
            let biases = new.dot(&Array1::from(b.clone())) - old.dot(&Array1::from(bias.to_vec()));
            assert!(biases.iter().all(|b| f64::from(b.abs()) <= bound), "{biases}");
        }
        let cut = value_maps(w_o.view(), second_moment(&tokens(50)).view(), 3).unwrap();
        assert_eq!(cut.values(w_v.view()).dim(), (3, 30));
        assert_eq!(cut.outputs(w_o.view()).dim(), (20, 6));
    }

    #[test]
    fn bad_input_is_named() {
        let (w, c) = (Array2::zeros((4, HEAD)), Array2::eye(HEAD));
        for keep in [0, HEAD + 1] {
            let refused = value_maps(w.view(), c.view(), keep).unwrap_err();
            assert_eq!(refused, ValuesError::Keep { head_dim: HEAD, keep });
        }
        let refused = value_maps(w.slice(s![.., 1..]), c.view(), 2).unwrap_err();
        assert_eq!(refused, ValuesError::Columns { head_dim: HEAD, found: HEAD - 1 });
        let zero = Array2::zeros((HEAD, HEAD));
        let refused = value_maps(w.view(), zero.view(), 2).unwrap_err();
        assert!(matches!(refused, ValuesError::Matrix(_)));
    }
}
