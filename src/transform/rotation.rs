//! Orthogonal matrices that weights are multiplied by.
use crate::linalg::{Hadamard, matmul_add_f64};
use crate::tensor::hex;
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Rows that one product takes. Fixed, so that the result does not depend on threads.
const BAND: usize = 64;

/// An orthogonal matrix R `[n, n]`. Activations are rows: `x ← x·R`.
#[derive(Clone, Debug)]
pub enum Rotation {
    /// `R = diag(signs)·blkdiag(Hᵀ, …, Hᵀ)`.
    Hadamard {
        /// ±1, `[n]`.
        signs: Vec<f64>,
        /// H, of an order that divides n.
        matrix: Arc<Hadamard>,
    },
    /// Any orthogonal matrix.
    Dense(Array2<f64>),
}

impl Rotation {
    /// Its width n.
    pub fn width(&self) -> usize {
        match self {
            Self::Hadamard { signs, .. } => signs.len(),
            Self::Dense(matrix) => matrix.nrows(),
        }
    }

    /// `X ← X·R` for `x` `[rows, n]`. Each row of the result depends on that row alone.
    ///
    /// # Panics
    /// When the width is another.
    pub fn rows(&self, x: &mut Array2<f64>) {
        assert_eq!(x.ncols(), self.width(), "width of a rotation");
        let mut bands: Vec<_> = x.axis_chunks_iter_mut(Axis(0), BAND).collect();
        bands.par_iter_mut().for_each(|band| match self {
            Self::Hadamard { signs, matrix } => {
                for mut row in band.outer_iter_mut() {
                    let mut turned: Vec<f64> = row.iter().zip(signs).map(|(x, s)| x * s).collect();
                    for block in turned.chunks_exact_mut(matrix.order()) {
                        matrix.apply_f64(block);
                    }
                    row.iter_mut().zip(turned).for_each(|(x, y)| *x = y);
                }
            }
            Self::Dense(matrix) => {
                let before = band.to_owned();
                band.fill(0.0);
                matmul_add_f64(1.0, before.view(), matrix.view(), band.view_mut());
            }
        });
    }

    /// `Rᵀ·X` for `x` `[n, columns]`.
    pub fn columns(&self, x: &Array2<f64>) -> Array2<f64> {
        let mut turned = x.t().as_standard_layout().into_owned();
        self.rows(&mut turned);
        turned.t().as_standard_layout().into_owned()
    }

    /// R itself.
    pub fn matrix(&self) -> Array2<f64> {
        match self {
            Self::Dense(matrix) => matrix.clone(),
            Self::Hadamard { .. } => {
                let mut matrix = Array2::eye(self.width());
                self.rows(&mut matrix);
                matrix
            }
        }
    }

    /// How it is made.
    pub fn name(&self) -> String {
        match self {
            Self::Dense(_) => "dense".into(),
            Self::Hadamard { matrix, signs } if matrix.order() == signs.len() => matrix.name(),
            Self::Hadamard { matrix, signs } => {
                format!("{} × {}", signs.len() / matrix.order(), matrix.name())
            }
        }
    }

    /// What stands in for a Hadamard matrix that is not known here.
    pub fn fallback(&self) -> Option<String> {
        match self {
            Self::Hadamard { matrix, .. } if !matrix.is_flat() => Some(matrix.name()),
            _ => None,
        }
    }
}

/// `A·B`.
pub(super) fn product(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Array2<f64> {
    let mut c = Array2::zeros((a.nrows(), b.ncols()));
    let bands: Vec<_> = c.axis_chunks_iter_mut(Axis(0), BAND).collect();
    let pairs: Vec<_> = bands.into_iter().zip(a.axis_chunks_iter(Axis(0), BAND)).collect();
    pairs.into_par_iter().for_each(|(c, a)| matmul_add_f64(1.0, a, b, c));
    c
}

/// SHA-256 of matrices one after the other: float64 little-endian, row-major.
pub(super) fn digest<'a>(rotations: impl Iterator<Item = &'a Rotation>) -> String {
    let mut hash = Sha256::new();
    for rotation in rotations {
        for row in rotation.matrix().outer_iter() {
            let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
            hash.update(bytes);
        }
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::super::basis::{Draw, principal};
    use super::*;

    fn off(r: &Rotation) -> f64 {
        let r = r.matrix();
        (r.t().dot(&r) - Array2::<f64>::eye(r.nrows())).iter().fold(0.0, |m, x| m.max(x.abs()))
    }

    #[test]
    fn rotations_are_orthogonal_and_their_own_matrix() {
        let moments = Array2::from_shape_fn((72, 72), |(i, j)| ((i * j) as f64).cos());
        let moments = moments.t().dot(&moments);
        let mut draw = Draw::new(3, 0);
        for rotation in [
            draw.hadamard(72, 72, "").unwrap(),
            draw.hadamard(72, 12, "").unwrap(),
            draw.orthogonal(72, "").unwrap(),
            draw.resq(&moments, 0.125, "").unwrap(),
            Rotation::Dense(principal(&moments, "").unwrap()),
        ] {
            // Backward stable: n²·u.
            assert!(off(&rotation) < 72.0 * 72.0 * f64::EPSILON, "{}", rotation.name());
            let x = Array2::from_shape_fn((100, 72), |(i, j)| ((i * 31 + j * 7) as f64).sin());
            let (mut rows, matrix) = (x.clone(), rotation.matrix());
            rotation.rows(&mut rows);
            let near = |a: &Array2<f64>, b: &Array2<f64>| (a - b).iter().all(|x| x.abs() < 1e-12);
            assert!(near(&rows, &x.dot(&matrix)));
            assert!(near(&product(x.view(), matrix.view()), &rows));
            assert!(!near(&rows, &x.dot(&matrix.t())), "no symmetric matrix: {}", rotation.name());
        }
    }

    #[test]
    fn the_digest_is_that_of_the_bytes() {
        let rotation = Rotation::Dense(Array2::from_diag(&ndarray::array![1.0, -1.0]));
        let bytes: Vec<u8> =
            [1.0_f64, 0.0, 0.0, -1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(digest([&rotation].into_iter()), crate::tensor::sha256(&bytes));
    }
}
