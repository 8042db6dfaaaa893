//! Makes rotations of each kind.
use super::{Rotation, TransformError, error::of, outlier_width, rotation::product};
use crate::linalg::{Hadamard, Svd, eigh, svd};
use ndarray::{Array2, s};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// Draws of one rotation; every rotation of a model has a stream of its own.
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    fn signs(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| if self.0.random::<bool>() { 1.0 } else { -1.0 }).collect()
    }

    /// Normally distributed numbers (Box and Muller).
    fn normal(&mut self, shape: (usize, usize)) -> Array2<f64> {
        Array2::from_shape_simple_fn(shape, || {
            let (u, v): (f64, f64) = (self.0.random(), self.0.random());
            (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        })
    }

    /// A Hadamard matrix in blocks of `block`, with random signs. `block` divides `n`.
    pub(super) fn hadamard(
        &mut self,
        n: usize,
        block: usize,
        what: &str,
    ) -> Result<Rotation, TransformError> {
        let matrix = Arc::new(Hadamard::new(block).map_err(of(what))?);
        Ok(Rotation::Hadamard { signs: self.signs(n), matrix })
    }

    /// The orthogonal factor of a matrix of normal numbers: every orthogonal matrix is as likely.
    pub(super) fn orthogonal(&mut self, n: usize, what: &str) -> Result<Rotation, TransformError> {
        let Svd { u, v, .. } = svd(self.normal((n, n)).view()).map_err(of(what))?;
        Ok(Rotation::Dense(product(u.view(), v.t())))
    }

    /// ResQ's form (arXiv 2412.14363): the eigenvectors of `moments`, the `share` with the largest
    /// eigenvalues last, each part rotated by a Hadamard matrix with random signs.
    pub(super) fn resq(
        &mut self,
        moments: &Array2<f64>,
        share: f64,
        what: &str,
    ) -> Result<Rotation, TransformError> {
        let n = moments.nrows();
        let low = n - outlier_width(share, n);
        let mut basis = principal(moments, what)?;
        for part in [s![.., ..low], s![.., low..]] {
            let mut columns = basis.slice_mut(part);
            if columns.ncols() > 1 {
                let mut turned = columns.to_owned();
                self.hadamard(turned.ncols(), turned.ncols(), what)?.rows(&mut turned);
                columns.assign(&turned);
            }
        }
        Ok(Rotation::Dense(basis))
    }
}

/// Eigenvectors of second moments as columns, the largest eigenvalue last. 1 % of the mean
/// diagonal is added: directions that were never seen are a basis all the same.
pub(super) fn principal(moments: &Array2<f64>, what: &str) -> Result<Array2<f64>, TransformError> {
    let mut moments = moments.clone();
    let damping = 0.01 * moments.diag().mean().unwrap_or(0.0);
    moments.diag_mut().mapv_inplace(|x| x + damping);
    Ok(eigh(moments.view()).map_err(of(what))?.vectors.as_standard_layout().into_owned())
}
