//! Weights times activations.
use super::{Score, ScoreError, Site, sum_runs};

/// `Σ_i |W_ij| · ‖x_j‖`, summed over the channels of a unit. Wanda, arXiv 2306.11695, whose score
/// of single weights is summed over the column that structured pruning removes.
pub(super) struct Wanda;

impl Score for Wanda {
    fn name(&self) -> &'static str {
        "wanda"
    }

    fn about(&self) -> &'static str {
        "absolute weights that read a channel times the norm of its activations (Wanda, arXiv 2306.11695)"
    }

    fn units(&self, site: &Site<'_>, width: usize, _keep: usize) -> Result<Vec<f64>, ScoreError> {
        site.units(width)?;
        let sums = site.columns(f64::abs);
        let channels: Vec<f64> = sums.iter().zip(site.norms()).map(|(w, x)| w * x).collect();
        Ok(sum_runs(&channels, width))
    }
}
