//! The score of TransAct with pairs from the side that rotates.
use super::{Score, ScoreError, Site, transact::TransAct};

/// Units as [`TransAct`]; a rotary pair by `E‖q_p‖² · E‖k_p‖²`, summed over the query heads of the
/// KV head. A pair is kept for what it adds to the logits of attention, not for the values that
/// happen to have its index. The factor between sums and means is the same for all pairs.
pub(super) struct TransActProduct;

impl Score for TransActProduct {
    fn name(&self) -> &'static str {
        "transact-product"
    }

    fn about(&self) -> &'static str {
        "units as transact; rotary pairs by the product of query and key energies after rotation"
    }

    fn units(&self, site: &Site<'_>, width: usize, keep: usize) -> Result<Vec<f64>, ScoreError> {
        TransAct.units(site, width, keep)
    }
}
