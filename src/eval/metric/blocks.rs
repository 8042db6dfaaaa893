//! Standard errors from blocks: neighbouring positions are alike, so whole blocks of text are
//! the independent observations, not tokens.
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
}

impl Estimate {
    /// Mean of all values and its standard error as a ratio of sums over B blocks,
    /// √(B/(B-1) · Σ (S_b - mean·n_b)²) / Σ n_b, since blocks may differ in length (Cochran,
    /// Sampling Techniques, section 6.3).
    pub fn of(values: &[f64], blocks: &[Range<usize>]) -> Self {
        let sums =
            || blocks.iter().map(|b| (values[b.clone()].iter().sum::<f64>(), b.len() as f64));
        let total: f64 = sums().map(|(_, len)| len).sum();
        let value = sums().map(|(sum, _)| sum).sum::<f64>() / total;
        let count = blocks.len() as f64;
        let squares: f64 = sums().map(|(sum, len)| (sum - value * len).powi(2)).sum();
        let error = || (count / (count - 1.0) * squares).sqrt() / total;
        Self { value, standard_error: (blocks.len() > 1).then(error) }
    }
}

/// A ratio with its interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The ratio.
    pub value: f64,
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Ratio {
    /// From the mean of paired differences of logarithms over `blocks` blocks: exp(mean ± t·error).
    pub fn of(log: Estimate, blocks: usize) -> Self {
        let reach = log.standard_error.map(|error| error * t_975(blocks as f64 - 1.0));
        let end = |sign: f64| reach.map(|reach| (log.value + sign * reach).exp());
        Self { value: log.value.exp(), low: end(-1.0), high: end(1.0) }
    }

    /// A figure without an interval.
    pub fn point(value: f64) -> Self {
        Self { value, low: None, high: None }
    }

    /// A mean over `blocks` blocks: mean ± t·error.
    pub fn mean(mean: Estimate, blocks: usize) -> Self {
        let reach = mean.standard_error.map(|error| error * t_975(blocks as f64 - 1.0));
        let end = |sign: f64| reach.map(|reach| mean.value + sign * reach);
        Self { value: mean.value, low: end(-1.0), high: end(1.0) }
    }

    /// The figure less one, say of a ratio.
    #[must_use]
    pub fn minus_one(self) -> Self {
        let less = |it: f64| it - 1.0;
        Self { value: less(self.value), low: self.low.map(less), high: self.high.map(less) }
    }

    /// `1 − Σ ours / Σ theirs` over the same positions. With R the ratio of the sums, its standard
    /// error is √(B/(B−1) · Σ (a_b − R·c_b)²) / Σ theirs over the sums a_b, c_b of B blocks
    /// (Cochran, Sampling Techniques, section 6.3).
    pub fn reduction(ours: &[f64], theirs: &[f64], blocks: &[Range<usize>]) -> Self {
        let sum = |of: &[f64], block: &Range<usize>| of[block.clone()].iter().sum::<f64>();
        let sums: Vec<(f64, f64)> =
            blocks.iter().map(|block| (sum(ours, block), sum(theirs, block))).collect();
        let total: f64 = sums.iter().map(|(_, theirs)| theirs).sum();
        let ratio = sums.iter().map(|(ours, _)| ours).sum::<f64>() / total;
        let count = blocks.len() as f64;
        let squares: f64 = sums.iter().map(|(a, c)| (a - ratio * c).powi(2)).sum();
        let error = (count / (count - 1.0) * squares).sqrt() / total.abs();
        let reach = (blocks.len() > 1).then(|| error * t_975(count - 1.0));
        let end = |sign: f64| reach.map(|reach| 1.0 - ratio + sign * reach);
        Self { value: 1.0 - ratio, low: end(-1.0), high: end(1.0) }
    }
}

/// The 97.5 % quantile of Student's t, from the normal's by Abramowitz & Stegun 26.7.5 (three
/// corrections: within 0.1 % from 7 degrees of freedom on).
fn t_975(freedom: f64) -> f64 {
    let z = 1.959_963_984_540_054_f64;
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / freedom + second / freedom.powi(2) + third / freedom.powi(3)
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
    fn student_quantiles_agree_with_tables() {
        // Tables: 2.365 (7), 2.131 (15), 2.042 (30), 1.984 (100).
        for (freedom, t) in [(7.0, 2.365), (15.0, 2.131), (30.0, 2.042), (100.0, 1.984)] {
            assert!((t_975(freedom) / t - 1.0).abs() < 1e-3, "{freedom}");
        }
    }

    #[test]
    fn a_reduction_of_hand_computed_sums() {
        // Sums 1, 3 against 4, 4: R = 1/2, residuals −1, 1: √(2/1 · 2) / 8 = 1/4.
        let blocks = [0..2, 2..4];
        let ratio = Ratio::reduction(&[0.5, 0.5, 1.0, 2.0], &[1.0, 3.0, 2.0, 2.0], &blocks);
        near(ratio.value, 0.5);
        near(ratio.high.unwrap() - ratio.value, 0.25 * t_975(1.0));
        near(ratio.value - ratio.low.unwrap(), 0.25 * t_975(1.0));
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
        assert_eq!(Ratio::of(log, 16), one);
    }
}
