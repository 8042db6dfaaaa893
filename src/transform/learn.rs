//! A rotation fitted to activations: alternating Procrustes problems (DFRot, arXiv 2412.00648).
//!
//! With the tokens fixed, the rotation is wanted in which their int4 codes are nearest to them:
//! quantize `Y = X·R` per token to `B`, then take the orthogonal T that brings `Y·T` nearest to
//! `B`, which is `U·Vᵀ` of `YᵀB = U·S·Vᵀ`, and go on with `R·T`. Neither half raises the error.
use super::{Rotation, report::Learned, rotation::product};
use crate::linalg::{LinalgError, Svd, svd};
use ndarray::{Array2, ArrayView1};
use rayon::prelude::*;

/// Most steps.
const STEPS: usize = 100;
/// A step that lowers the error by less than this share of it is the last.
const GAIN: f64 = 1e-3;
/// Weight of tokens with a massive activation.
const MASSIVE: f64 = 100.0;

/// The rotation that starts at `start` and fits `tokens` `[tokens, n]`.
pub(super) fn procrustes(
    start: &Rotation,
    tokens: &Array2<f32>,
) -> Result<(Rotation, Learned), LinalgError> {
    let weights: Vec<f64> = tokens.outer_iter().map(weight).collect();
    let x = tokens.mapv(f64::from);
    let mut rotation = start.matrix();
    let (before, mut step) = fitted(&x, &weights, &rotation);
    let mut learned = Learned { steps: 0, before, after: before };
    while learned.steps < STEPS {
        let Svd { u, v, .. } = svd(step.view())?;
        let turned = product(rotation.view(), product(u.view(), v.t()).view());
        let (after, next) = fitted(&x, &weights, &turned);
        // The scale of a token follows its largest value, so that an error may rise a little.
        if after >= learned.after {
            break;
        }
        let gain = 1.0 - after / learned.after.max(f64::MIN_POSITIVE);
        (rotation, step) = (turned, next);
        learned = Learned { steps: learned.steps + 1, before, after };
        if gain < GAIN {
            break;
        }
    }
    Ok((Rotation::Dense(rotation), learned))
}

/// A token more than a quarter of whose energy stands in one channel.
fn weight(token: ArrayView1<'_, f32>) -> f64 {
    let energy: f32 = token.iter().map(|x| x * x).sum();
    let largest = token.iter().fold(0.0_f32, |max, x| max.max(x * x));
    if 4.0 * largest > energy { MASSIVE } else { 1.0 }
}

/// The weighted error of int4 tokens in a rotation over their weighted squares, and `YᵀWB`.
fn fitted(x: &Array2<f64>, weights: &[f64], rotation: &Array2<f64>) -> (f64, Array2<f64>) {
    let y = product(x.view(), rotation.view());
    let mut codes = y.clone();
    let mut rows: Vec<_> = codes.outer_iter_mut().collect();
    let errors: Vec<[f64; 2]> = rows
        .par_iter_mut()
        .zip(weights)
        .map(|(row, weight)| {
            let largest = row.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
            let scale = if largest > 0.0 { largest / 7.5 } else { 1.0 };
            let mut sums = [0.0; 2];
            for x in row.iter_mut() {
                let code = (*x / scale).round().clamp(-8.0, 7.0) * scale;
                sums[0] += weight * (*x - code).powi(2);
                sums[1] += weight * *x * *x;
                *x = weight * code;
            }
            sums
        })
        .collect();
    let total = errors.iter().fold([0.0; 2], |sum, it| [sum[0] + it[0], sum[1] + it[1]]);
    let cross = product(y.t(), codes.view());
    (total[0] / total[1].max(f64::MIN_POSITIVE), cross)
}
