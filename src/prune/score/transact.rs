//! The score of TransAct: how strong activations are.
use super::{PairSite, Score, ScoreError, Site};

/// `a_j = ‖x_j‖` over the tokens; a unit of several channels: `mean a + 10/width · max a`.
/// TransAct, arXiv 2407.05690, and `pruning/scorer.py` of its published code.
pub(super) struct TransAct;

impl Score for TransAct {
    fn name(&self) -> &'static str {
        "transact"
    }

    fn about(&self) -> &'static str {
        "norm of the activations of a unit, mean + 10/width · max over its channels (TransAct, arXiv 2407.05690)"
    }

    fn units(&self, site: &Site<'_>, width: usize, _keep: usize) -> Result<Vec<f64>, ScoreError> {
        site.units(width)?;
        let norms = site.norms();
        Ok(match width {
            1 => norms,
            _ => norms.chunks(width).map(unit).collect(),
        })
    }

    /// From the side of the values, as in the paper's code: the mean norm of the attention output
    /// over the two channels of the pair. Queries and keys are not looked at.
    fn pairs(&self, site: &PairSite<'_>) -> Vec<f64> {
        let heads = site.keys.len() / site.pairs;
        let head = |values: &[f64]| -> Vec<f64> {
            let norm = |channel: usize| values.get(channel).map_or(0.0, |sum| sum.sqrt());
            (0..site.pairs).map(|p| f64::midpoint(norm(p), norm(p + site.pairs))).collect()
        };
        site.values.chunks(site.values.len() / heads).flat_map(head).collect()
    }
}

fn unit(norms: &[f64]) -> f64 {
    let width = norms.len() as f64;
    let max = norms.iter().fold(0.0, |max: f64, norm| max.max(*norm));
    norms.iter().sum::<f64>() / width + 10.0 / width * max
}
