//! Standard errors and intervals from blocks: neighbouring positions are alike, so whole blocks of text are
//! the independent observations, not tokens.
use super::bootstrap::{Sums, interval};
use serde::Serialize;
use std::ops::Range;

/// Fewer windows than this are cut further.
const MIN_BLOCKS: usize = 16;

/// Blocks of positions for windows with the given numbers of them: the windows, or, when there
/// are fewer than 16, equal parts of each so that there are.
pub fn blocks(windows: &[usize]) -> Vec<Range<usize>> {
    let parts = MIN_BLOCKS.div_ceil(windows.len().max(1)).max(1);
    let (mut blocks, mut start) = (Vec::new(), 0);
    for len in windows {
        let at = |part: usize| start + len * part / parts;
        blocks.extend((0..parts).map(|part| at(part)..at(part + 1)));
        start += len;
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// A mean and how far chance may have moved it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean over positions.
    pub value: f64,
    /// Its standard error; nothing with fewer than two blocks.
    pub standard_error: Option<f64>,
    /// Lower end of its interval of 95 %.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Estimate {
    /// Mean of all values and its standard error as a ratio of sums over B blocks,
    /// √(B/(B-1) · Σ (S_b - mean·n_b)²) / Σ n_b, since blocks may differ in length (Cochran,
    /// Sampling Techniques, section 6.3). The interval is that of `bootstrap::interval`.
    pub fn of(values: &[f64], blocks: &[Range<usize>]) -> Self {
        let sums: Vec<Sums> = sums(values, blocks);
        let total: f64 = sums.iter().map(|[_, len]| len).sum();
        let value = sums.iter().map(|[sum, _]| sum).sum::<f64>() / total;
        let count = blocks.len() as f64;
        let squares: f64 = sums.iter().map(|[sum, len]| (sum - value * len).powi(2)).sum();
        let error = || (count / (count - 1.0) * squares).sqrt() / total;
        let ends = interval(&sums, |[sum, len]| sum / len);
        let standard_error = (blocks.len() > 1).then(error);
        Self { value, standard_error, low: ends.map(|it| it[0]), high: ends.map(|it| it[1]) }
    }

    /// The mean with its interval.
    pub fn ratio(self) -> Ratio {
        Ratio { value: self.value, low: self.low, high: self.high }
    }
}

/// Sum and number of the values of each block.
fn sums(values: &[f64], blocks: &[Range<usize>]) -> Vec<Sums> {
    blocks.iter().map(|it| [values[it.clone()].iter().sum(), it.len() as f64]).collect()
}

/// A figure with its interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The figure.
    pub value: f64,
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Ratio {
    /// Of means whose logarithms, or differences of these, are given: exp of their mean.
    pub fn exp(logs: &Estimate) -> Self {
        // Growing functions keep the order that percentiles go by.
        Self { value: logs.value.exp(), low: logs.low.map(f64::exp), high: logs.high.map(f64::exp) }
    }

    /// The figure less one, say of a ratio.
    #[must_use]
    pub fn minus_one(self) -> Self {
        let less = |it: f64| it - 1.0;
        Self { value: less(self.value), low: self.low.map(less), high: self.high.map(less) }
    }

    /// `1 − Σ ours / Σ theirs` over the same positions; a block is drawn with both of its sums.
    pub fn reduction(ours: &[f64], theirs: &[f64], blocks: &[Range<usize>]) -> Self {
        let sums = blocks
            .iter()
            .map(|block| [ours, theirs].map(|of| of[block.clone()].iter().sum::<f64>()));
        let sums: Vec<Sums> = sums.collect();
        let reduced = |[ours, theirs]: Sums| 1.0 - ours / theirs;
        let total = sums.iter().fold([0.0; 2], |all, it| [all[0] + it[0], all[1] + it[1]]);
        let ends = interval(&sums, reduced);
        Self { value: reduced(total), low: ends.map(|it| it[0]), high: ends.map(|it| it[1]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-12 * want.abs().max(1.0), "{got} {want}");
    }

    #[test]
    fn few_windows_are_cut_and_many_are_not() {
        assert_eq!(blocks(&[5; 16]).len(), 16);
        let cut = blocks(&[2047; 4]);
        assert_eq!(cut.len(), 16);
        assert_eq!((cut[0].start, cut[15].end), (0, 4 * 2047));
        assert!(cut.windows(2).all(|two| two[0].end == two[1].start));
        assert_eq!(blocks(&[3]), [0..1, 1..2, 2..3], "no empty blocks");
        assert!(blocks(&[]).is_empty());
    }

    #[test]
    fn standard_error_of_equal_blocks_is_the_textbook_one() {
        // Block means 1, 2, 3, 6: mean 3, sample variance 14/3, error √(14/12).
        let values = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 6.0, 6.0];
        let estimate = Estimate::of(&values, &[0..2, 2..4, 4..6, 6..8]);
        near(estimate.value, 3.0);
        near(estimate.standard_error.unwrap(), (14.0_f64 / 12.0).sqrt());
        assert_eq!(Estimate::of(&values, std::slice::from_ref(&(0..8))).standard_error, None);
    }

    #[test]
    fn correlated_positions_make_the_error_larger_than_tokens_would() {
        let values: Vec<f64> = (0..64).map(|i| f64::from(i / 16 % 2)).collect();
        let by_blocks = Estimate::of(&values, &[0..16, 16..32, 32..48, 48..64]);
        let by_tokens = Estimate::of(&values, &(0..64).map(|i| i..i + 1).collect::<Vec<_>>());
        assert!(by_blocks.standard_error.unwrap() > 4.0 * by_tokens.standard_error.unwrap());
    }

    #[test]
    fn a_reduction_of_hand_computed_sums() {
        // Sums 1, 3 against 4, 4: R = 1/2, residuals −1, 1: √(2/1 · 2) / 8 = 1/4.
        let blocks = [0..2, 2..4];
        let ratio = Ratio::reduction(&[0.5, 0.5, 1.0, 2.0], &[1.0, 3.0, 2.0, 2.0], &blocks);
        near(ratio.value, 0.5);
        // Draws of two blocks: the first twice, both, the second twice, 1 − 1/4, 1 − 4/8, 1 − 3/4.
        assert!(ratio.low.unwrap() >= 0.25 && ratio.high.unwrap() <= 0.75, "{ratio:?}");
        // A tenth of the loss everywhere: no chance in it, although the losses vary.
        let theirs: Vec<f64> = (0..64).map(|i| f64::from(i * i % 37)).collect();
        let ours: Vec<f64> = theirs.iter().map(|x| x / 10.0).collect();
        let ratio = Ratio::reduction(&ours, &theirs, &super::blocks(&[32, 32]));
        near(ratio.value, 0.9);
        near(ratio.low.unwrap(), 0.9);
    }

    #[test]
    fn the_interval_of_equal_models_is_one() {
        let log = Estimate::of(&[0.0; 32], &blocks(&[16, 16]));
        let one = Ratio { value: 1.0, low: Some(1.0), high: Some(1.0) };
        assert_eq!(Ratio::exp(&log), one);
    }
}
