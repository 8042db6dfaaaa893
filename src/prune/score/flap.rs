//! Fluctuation of activations times weights.
use super::{Score, ScoreError, Site, sum_runs};

/// `f_j = Var(x_j) · ‖W_:j‖²`: what is lost when a channel is replaced by its mean, which a bias
/// can carry. A unit of several channels (heads): the mean of `f_j²` over its channels. FLAP, arXiv
/// 2312.11983, and `lib/prune.py` of its published code, where attention's scores are squared.
///
/// FLAP standardizes the scores of each layer, so that one threshold serves all. Within a layer
/// that changes no order, and layers keep equal widths here unless allocation is asked for, which
/// measures what a cut costs instead: no standardization.
pub(super) struct Flap;

impl Score for Flap {
    fn name(&self) -> &'static str {
        "flap"
    }

    fn about(&self) -> &'static str {
        "variance of a channel times the squared norm of the weights that read it (FLAP, arXiv 2312.11983)"
    }

    fn units(&self, site: &Site<'_>, width: usize, _keep: usize) -> Result<Vec<f64>, ScoreError> {
        site.units(width)?;
        let variances = site.moments.variances();
        let each = variances.iter().zip(site.column_energies());
        let fluctuation: Vec<f64> = each.map(|(variance, energy)| variance * energy).collect();
        if width == 1 {
            return Ok(fluctuation);
        }
        let squared: Vec<f64> = fluctuation.iter().map(|f| f * f).collect();
        Ok(sum_runs(&squared, width).into_iter().map(|sum| sum / width as f64).collect())
    }
}
