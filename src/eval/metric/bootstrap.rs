//! Intervals by the bootstrap over blocks: the blocks of a text are drawn anew, with repetition,
//! and the figure is computed of each draw.
//!
//! The ends are those of BCa (Efron 1987; Efron & Tibshirani, An Introduction to the Bootstrap,
//! chapter 14): percentiles of the draws, corrected for bias and for a spread that changes with the
//! value. Draws of few blocks spread less than they should: for B of them the percentiles are those
//! of a normal distribution at ±√(B/(B-1)) · t instead of ±1.96, with Student's t of B-1 degrees of
//! freedom (Hesterberg 2015, expanded percentiles). The same blocks give the same interval.
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Draws of an interval.
const RESAMPLES: usize = 2000;

/// Seed of the draws; every figure of a text is computed of the same ones.
const SEED: u64 = 0;

/// How the intervals of a report were made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct IntervalMethod {
    /// Always `block-bootstrap-bca-expanded`.
    pub method: &'static str,
    /// Share of intervals that hold what they are of.
    pub level: f64,
    /// Draws.
    pub resamples: usize,
    /// Of the draws.
    pub seed: u64,
}

impl IntervalMethod {
    /// The only one.
    pub const BCA: Self = Self {
        method: "block-bootstrap-bca-expanded",
        level: 0.95,
        resamples: RESAMPLES,
        seed: SEED,
    };
}

/// What a block adds to the two sums that a figure is made of.
pub(super) type Sums = [f64; 2];

/// The interval of 95 % of a figure of the sums over blocks; nothing with fewer than two blocks,
/// NaN where a block is no number.
pub(super) fn interval(blocks: &[Sums], figure: impl Fn(Sums) -> f64) -> Option<[f64; 2]> {
    if blocks.len() < 2 {
        return None;
    }
    let total = blocks.iter().fold([0.0; 2], add);
    let value = figure(total);
    let mut drawn = draws(blocks, &figure);
    if value.is_nan() || drawn.iter().any(|it| it.is_nan()) {
        return Some([f64::NAN; 2]);
    }
    drawn.sort_by(f64::total_cmp);
    let below = drawn.partition_point(|it| *it < value);
    let equal = drawn.partition_point(|it| *it <= value) - below;
    let count = RESAMPLES as f64;
    let share = ((below as f64 + 0.5 * equal as f64) / count).clamp(0.5 / count, 1.0 - 0.5 / count);
    let normal = Normal::standard();
    let bias = normal.inverse_cdf(share);
    let without: Vec<f64> =
        blocks.iter().map(|[a, b]| figure([total[0] - a, total[1] - b])).collect();
    let acceleration = acceleration(&without);
    let end = |quantile: f64| {
        let shifted = bias + quantile;
        let place = bias + shifted / (1.0 - acceleration * shifted).max(0.1);
        percentile(&drawn, normal.cdf(place))
    };
    let count = blocks.len() as f64;
    let student = StudentsT::new(0.0, 1.0, count - 1.0).ok()?;
    let reach = (count / (count - 1.0)).sqrt() * student.inverse_cdf(0.975);
    Some([end(-reach), end(reach)])
}

fn add(sums: Sums, block: &Sums) -> Sums {
    [sums[0] + block[0], sums[1] + block[1]]
}

/// The figure of as many blocks as there are, drawn with repetition, again and again.
fn draws(blocks: &[Sums], figure: impl Fn(Sums) -> f64) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut draw = || {
        let picked = blocks.iter().map(|_| random.random_range(0..blocks.len()));
        figure(picked.fold([0.0; 2], |sums, block| add(sums, &blocks[block])))
    };
    (0..RESAMPLES).map(|_| draw()).collect()
}

/// A sixth of the skewness of the figure without one block each.
fn acceleration(without: &[f64]) -> f64 {
    let mean = without.iter().sum::<f64>() / without.len() as f64;
    let power = |n: i32| without.iter().map(|it| (mean - it).powi(n)).sum::<f64>();
    let skewed = power(3) / (6.0 * power(2).powf(1.5));
    // No number where all are alike.
    if skewed.is_finite() { skewed } else { 0.0 }
}

/// Linear between neighbours of sorted values.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    let high = sorted[(low + 1).min(sorted.len() - 1)];
    // Equal ones may be infinite.
    if sorted[low] < high { sorted[low] + (high - sorted[low]) * part } else { high }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(sums: Sums) -> f64 {
        sums[0] / sums[1]
    }

    /// `count` draws of a distribution given by its quantiles, in a fixed disorder.
    fn sample(count: usize, seed: u64, quantile: impl Fn(f64) -> f64) -> Vec<Sums> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        (0..count).map(|_| [quantile(random.random_range(0.0..1.0)), 1.0]).collect()
    }

    #[test]
    fn many_equal_blocks_come_near_to_the_textbook() {
        // Uniform on 0 to 1, 400 of them: the mean's error is √(1/12/400), reach 1.96 of it. The
        // sample's own spread and 2000 draws leave some 6 %.
        let blocks = sample(400, 1, |u| u);
        let [low, high] = interval(&blocks, mean).unwrap();
        let value = mean(blocks.iter().fold([0.0; 2], add));
        let reach = 1.96 * (1.0_f64 / 12.0 / 400.0).sqrt();
        for (end, sign) in [(low, -1.0), (high, 1.0)] {
            assert!(((end - value) / (sign * reach) - 1.0).abs() < 0.1, "{low} {value} {high}");
        }
        assert_eq!(interval(&blocks, mean), Some([low, high]), "the same draws");
        assert_ne!(interval(&sample(400, 2, |u| u), mean), Some([low, high]), "the twin");
    }

    #[test]
    fn a_long_tail_makes_the_upper_part_longer() {
        // Exponential: the mean of a few has a tail upwards; of a symmetric sample it has none.
        let parts = |quantile: fn(f64) -> f64| {
            let (mut above, mut below) = (0.0, 0.0);
            for seed in 0..20 {
                let blocks = sample(30, seed, quantile);
                let value = mean(blocks.iter().fold([0.0; 2], add));
                let [low, high] = interval(&blocks, mean).unwrap();
                (above, below) = (above + high - value, below + value - low);
            }
            above / below
        };
        let (skewed, even) = (parts(|u| -(1.0 - u).ln()), parts(|u| u));
        assert!(skewed > 1.2 && (even - 1.0).abs() < 0.1, "{skewed} {even}");
    }

    #[test]
    fn nineteen_of_twenty_intervals_hold_the_mean() {
        // 400 samples of 16 blocks: 95 % hold it, less a little for the few blocks; the error of
        // such a share is about 1.2 %.
        let holds = |seed: u64| {
            let [low, high] = interval(&sample(16, seed, |u| u * u), mean).unwrap();
            usize::from((low..high).contains(&(1.0 / 3.0)))
        };
        let held: usize = (0..400).map(holds).sum();
        assert!((364..=394).contains(&held), "{held} of 400");
    }

    #[test]
    fn edges() {
        assert_eq!(interval(&[[1.0, 1.0]], mean), None);
        assert_eq!(interval(&[[2.0, 1.0]; 5], mean), Some([2.0, 2.0]), "no chance in it");
        let [low, high] = interval(&[[f64::NAN, 1.0], [1.0, 1.0]], mean).unwrap();
        assert!(low.is_nan() && high.is_nan());
        let endless = interval(&[[f64::INFINITY, 1.0]; 2], mean).unwrap();
        assert!(endless.iter().all(|it| *it == f64::INFINITY));
        // Half of it lies on one value: the interval is still one.
        let steps: Vec<Sums> = (0..16).map(|i| [f64::from(u8::from(i == 3)), 1.0]).collect();
        let [low, high] = interval(&steps, mean).unwrap();
        let share = 1.0 / 16.0;
        assert!((0.0..share).contains(&low) && (share..0.5).contains(&high), "{low} {high}");
    }
}
