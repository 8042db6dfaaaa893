//! Whether a covariance was summed over enough tokens.
use super::{BlockStatistics, CalibrateError, Request, layout::Layout};
use crate::model::{Expert, ModelSpec, Role};
use serde::Serialize;

/// Tokens per row of a covariance from which on nothing is said.
const ENOUGH: u64 = 4;

/// A covariance of few tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RankWarning {
    /// The block.
    pub block: usize,
    /// The layer whose input it is.
    pub role: Role,
    /// The expert that the layer is in.
    #[serde(skip)]
    pub expert: Option<Expert>,
    /// Tokens that were seen.
    pub tokens: u64,
    /// Rows of the covariance.
    pub width: usize,
}

/// Covariances of block `block` with fewer tokens than four times their rows. Fewer tokens than
/// rows is an error unless it is allowed: such a covariance cannot be inverted.
pub fn check_rank(
    block: usize,
    statistics: &BlockStatistics,
    allow: bool,
) -> Result<Vec<RankWarning>, CalibrateError> {
    let mut warnings = Vec::new();
    for ((role, expert), input) in &statistics.inputs {
        let (tokens, width) = (input.moments.tokens, input.moments.sum.len());
        let (role, expert) = (*role, *expert);
        if input.covariance.is_none() || tokens >= ENOUGH * width as u64 {
            continue;
        }
        if tokens < width as u64 && !allow {
            return Err(CalibrateError::RankDeficient { block, role, tokens, width });
        }
        warnings.push(RankWarning { block, role, expert, tokens, width });
    }
    Ok(warnings)
}

/// What [`check_rank`] would refuse of layers that see every token, before any work.
pub fn check_tokens(
    spec: &ModelSpec,
    request: &Request,
    tokens: u64,
    allow: bool,
) -> Result<(), CalibrateError> {
    let layout = Layout::new(spec, request);
    for (block, it) in layout.blocks.iter().enumerate() {
        for (role, expert, width) in &it.inputs {
            let wanted = layout.covariance(*role) && !matches!(expert, Some(Expert::Routed(_)));
            if wanted && tokens < *width as u64 && !allow {
                let (role, width) = (*role, *width);
                return Err(CalibrateError::RankDeficient { block, role, tokens, width });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::{InputStatistics, Moments};
    use ndarray::Array2;

    #[test]
    fn few_tokens_are_told_and_fewer_than_rows_refused() {
        let with = |tokens: u64, covariance: bool| {
            let moments = Moments { tokens, ..Moments::new(8) };
            let covariance = covariance.then(|| Array2::zeros((8, 8)));
            let input = InputStatistics { moments, covariance, cross: None };
            let inputs = [((Role::Down, None), input)].into();
            BlockStatistics { inputs, ..BlockStatistics::default() }
        };
        assert!(check_rank(3, &with(32, true), false).unwrap().is_empty());
        assert_eq!(check_rank(3, &with(31, true), false).unwrap()[0].tokens, 31);
        assert!(check_rank(3, &with(7, false), false).unwrap().is_empty());
        let refused = check_rank(3, &with(7, true), false).unwrap_err().to_string();
        assert!(refused.contains("has 8 rows, 7 tokens"), "{refused}");
        assert_eq!(check_rank(3, &with(7, true), true).unwrap().len(), 1);
    }
}
