//! Weights alone.
use super::{PairSite, Score, ScoreError, Site, sum_runs};

/// `‖W_:unit‖`, the Frobenius norm of the weights that read a unit; no activations. The plain
/// baseline, as in arXiv 1608.08710.
pub(super) struct Magnitude;

impl Score for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn about(&self) -> &'static str {
        "norm of the weights that read a unit; sees no activations (arXiv 1608.08710)"
    }

    fn units(&self, site: &Site<'_>, width: usize, _keep: usize) -> Result<Vec<f64>, ScoreError> {
        site.units(width)?;
        let energies = sum_runs(&site.column_energies(), width);
        Ok(energies.into_iter().map(f64::sqrt).collect())
    }

    /// `Σ‖W_q,row‖² · Σ‖W_k,row‖²`: the product of energies that white inputs would give.
    fn pairs(&self, site: &PairSite<'_>) -> Vec<f64> {
        site.query_rows.iter().zip(site.key_rows).map(|(q, k)| q * k).collect()
    }
}
