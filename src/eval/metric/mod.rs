//! Figures from scores of single positions. Sums run in float64 in the order of the text.
mod blocks;
mod bootstrap;
mod row;

pub use blocks::{Estimate, Ratio, blocks};
pub use bootstrap::IntervalMethod;
pub use row::{Compared, Exact, Rows, TokenScore, row_divergences, score_rows};

use super::Window;
use serde::Serialize;
use std::ops::Range;

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Scored positions.
    pub tokens: usize,
    /// Those among them whose logits, or the reference's, hold NaN or make no distribution.
    #[serde(skip_serializing_if = "is_none")]
    pub undefined: usize,
    /// Blocks that standard errors and intervals come from.
    pub blocks: usize,
    /// How the intervals were made.
    pub intervals: IntervalMethod,
    /// Perplexity of the model.
    pub perplexity: Perplexity,
    /// Against a reference, if there is one.
    pub divergence: Option<Divergence>,
}

/// exp of the mean negative log-likelihood of the right token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Perplexity {
    /// exp(nll)
    pub value: f64,
    /// Of the value, by the delta method: value · standard error of the nll.
    pub standard_error: Option<f64>,
    /// Lower end of the value's interval of 95 %.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Mean negative log-likelihood, nats per token.
    pub nll: f64,
    /// Of the mean, from the blocks.
    pub nll_standard_error: Option<f64>,
}

/// How far the model is from its reference, over the scored positions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// Perplexity of the reference on the same positions.
    pub reference: Perplexity,
    /// Perplexity ÷ the reference's with its paired interval.
    pub ppl_ratio: Ratio,
    /// Mean of KL(reference ‖ model), nats.
    pub kl_mean: Estimate,
    /// KL of single positions, nats.
    pub kl: Spread,
    /// How many positions have a KL below 1e-6; then a quarter of a decade per place, from 1e-6 to
    /// 10^1.5; above.
    pub kl_histogram: [u32; 32],
    /// Share of positions where both have the same most likely token.
    pub top1_agreement: f64,
    /// Its interval of 95 %.
    pub top1_interval: Option<[f64; 2]>,
    /// Mean share of the reference's five most likely tokens that are among the model's five.
    pub top5_agreement: f64,
    /// Its interval of 95 %.
    pub top5_interval: Option<[f64; 2]>,
    /// Mean change of the right token's probability.
    pub dp_mean: f64,
    /// Root mean square of that change.
    pub dp_rms: f64,
    /// The change at single positions: harm shows as a longer lower tail, noise has two alike.
    pub dp: Spread,
}

/// How much less one model loses than another, both against one reference: `1 − loss / loss`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reduction {
    /// Of the mean KL divergence.
    pub kl: Ratio,
    /// Of the growth of the log-perplexity.
    pub log_perplexity: Ratio,
}

impl Reduction {
    /// From scores of the same positions; `None` without a reference.
    pub fn of(ours: &[TokenScore], theirs: &[TokenScore], windows: &[Window]) -> Option<Self> {
        let counts: Vec<usize> = windows.iter().map(|window| window.scored.len()).collect();
        let blocks = blocks(&counts);
        let ratio = |loss: fn(&TokenScore, &Compared) -> f64| {
            let each = |scores: &[TokenScore]| {
                let losses = scores.iter().map(|it| it.reference.map(|other| loss(it, &other)));
                losses.collect::<Option<Vec<f64>>>().filter(|it| it.len() == ours.len())
            };
            Some(Ratio::reduction(&each(ours)?, &each(theirs)?, &blocks))
        };
        Some(Self {
            kl: ratio(|_, other| other.kl)?,
            log_perplexity: ratio(|it, other| it.nll - other.nll)?,
        })
    }
}

/// Percentiles, linear between neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// 0.1 %
    pub p0_1: f64,
    /// 1 %
    pub p1: f64,
    /// 10 %
    pub p10: f64,
    /// 50 %
    pub median: f64,
    /// 90 %
    pub p90: f64,
    /// 99 %
    pub p99: f64,
    /// 99.9 %
    pub p99_9: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Percentiles of values; NaN sorts to the end. All NaN without values.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * values.len().saturating_sub(1) as f64;
            let (low, part) = (place.floor() as usize, place.fract());
            match (values.get(low), values.get(low + 1)) {
                (Some(a), Some(b)) if part > 0.0 => a + (b - a) * part,
                (Some(a), _) => *a,
                (None, _) => f64::NAN,
            }
        };
        Self {
            min: at(0.0),
            p0_1: at(0.001),
            p1: at(0.01),
            p10: at(0.1),
            median: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: at(1.0),
        }
    }
}

impl Perplexity {
    /// From negative log-likelihoods, nats.
    pub fn of(nlls: &[f64], blocks: &[Range<usize>]) -> Self {
        let nll = Estimate::of(nlls, blocks);
        let Ratio { value, low, high } = Ratio::exp(&nll);
        Self {
            value,
            low,
            high,
            standard_error: nll.standard_error.map(|error| error * value),
            nll: nll.value,
            nll_standard_error: nll.standard_error,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

impl Figures {
    /// From scores in the order of the text; `windows` holds the number of them in each window.
    pub fn of(scores: &[TokenScore], windows: &[usize]) -> Self {
        let blocks = blocks(windows);
        let nlls: Vec<f64> = scores.iter().map(|score| score.nll).collect();
        let compared: Option<Vec<&Compared>> =
            scores.iter().map(|score| score.reference.as_ref()).collect();
        Self {
            tokens: scores.len(),
            undefined: scores.iter().filter(|it| it.is_undefined()).count(),
            blocks: blocks.len(),
            intervals: IntervalMethod::BCA,
            perplexity: Perplexity::of(&nlls, &blocks),
            divergence: compared
                .filter(|all| !all.is_empty())
                .map(|all| Divergence::of(&nlls, &all, &blocks)),
        }
    }
}

impl Divergence {
    fn of(nlls: &[f64], compared: &[&Compared], blocks: &[Range<usize>]) -> Self {
        let count = compared.len() as f64;
        let each = |f: fn(&Compared) -> f64| compared.iter().map(|it| f(it)).collect::<Vec<f64>>();
        let references = each(|it| it.nll);
        let kl = each(|it| it.kl);
        let dp: Vec<f64> =
            nlls.iter().zip(&references).map(|(a, b)| (-a).exp() - (-b).exp()).collect();
        let growth: Vec<f64> = nlls.iter().zip(&references).map(|(a, b)| a - b).collect();
        let share = |f: fn(&Compared) -> f64| {
            let shared = Estimate::of(&each(f), blocks);
            (shared.value, shared.low.zip(shared.high).map(|(low, high)| [low, high]))
        };
        let (top1_agreement, top1_interval) = share(|it| f64::from(u8::from(it.top1)));
        let (top5_agreement, top5_interval) = share(|it| f64::from(it.top5) / 5.0);
        Self {
            reference: Perplexity::of(&references, blocks),
            ppl_ratio: Ratio::exp(&Estimate::of(&growth, blocks)),
            kl_mean: Estimate::of(&kl, blocks),
            kl_histogram: kl_histogram(&kl),
            kl: Spread::of(kl),
            top1_agreement,
            top1_interval,
            top5_agreement,
            top5_interval,
            dp_mean: dp.iter().sum::<f64>() / count,
            dp_rms: (dp.iter().map(|dp| dp * dp).sum::<f64>() / count).sqrt(),
            dp: Spread::of(dp),
        }
    }
}

/// Counts as [`Divergence::kl_histogram`] tells; what is no number is not counted.
fn kl_histogram(values: &[f64]) -> [u32; 32] {
    let mut counts = [0; 32];
    for value in values.iter().filter(|it| !it.is_nan()) {
        // From -inf for 0; conversion saturates.
        let place = ((value.log10() + 6.0) * 4.0).floor() as i64;
        counts[place.saturating_add(1).clamp(0, 31) as usize] += 1;
    }
    counts
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Figures with the three values that gates look at.
    pub(crate) fn figures(ratio: f64, kl: f64, top1: f64) -> Figures {
        let score = TokenScore {
            nll: 8.0_f64.ln(),
            reference: Some(Compared { nll: 8.0_f64.ln(), kl: 0.0, top1: true, top5: 5 }),
        };
        let mut figures = Figures::of(&[score; 32], &[16, 16]);
        let divergence = figures.divergence.as_mut().unwrap();
        divergence.ppl_ratio.value = ratio;
        divergence.kl_mean.value = kl;
        divergence.top1_agreement = top1;
        figures
    }

    #[test]
    fn positions_are_counted_by_quarters_of_a_decade() {
        let counts =
            kl_histogram(&[0.0, 1e-7, 1.1e-6, 1.9e-6, 1.1, 31.0, 32.0, f64::INFINITY, f64::NAN]);
        let at = |place: usize| counts[place];
        assert_eq!([at(0), at(1), at(2), at(25), at(30), at(31)], [2, 1, 1, 1, 1, 2]);
        assert_eq!(counts.iter().sum::<u32>(), 8);
    }

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-12 * want.abs().max(1.0), "{got} {want}");
    }

    #[test]
    fn figures_of_hand_computed_scores() {
        let score = |nll: f64, reference: f64, kl, top1, top5| TokenScore {
            nll: nll.ln(),
            reference: Some(Compared { nll: reference.ln(), kl, top1, top5 }),
        };
        // Right tokens at 1/2 and 1/8, the reference at 1/2 and 1/2: perplexities 4 and 2.
        let scores = [score(2.0, 2.0, 0.1, true, 5), score(8.0, 2.0, 0.5, false, 4)];
        let figures = Figures::of(&scores, &[2]);
        near(figures.perplexity.value, 4.0);
        let against = figures.divergence.unwrap();
        near(against.reference.value, 2.0);
        near(against.ppl_ratio.value, 2.0);
        near(against.kl_mean.value, 0.3);
        near(against.kl.median, 0.3);
        near(against.kl.p90, 0.46);
        near(against.kl.max, 0.5);
        near(against.top1_agreement, 0.5);
        near(against.top5_agreement, 0.9);
        near(against.dp_mean, -3.0 / 16.0);
        near(against.dp_rms, (9.0_f64 / 128.0).sqrt());
        near(against.dp.min, -3.0 / 8.0);
    }

    #[test]
    fn without_a_reference_there_is_no_divergence() {
        let scores = [TokenScore { nll: 1.0, reference: None }; 3];
        let figures = Figures::of(&scores, &[3]);
        assert!(figures.divergence.is_none());
        near(figures.perplexity.value, 1.0_f64.exp());
    }

    #[test]
    fn no_number_stays_no_number() {
        let scores = [TokenScore { nll: f64::NAN, reference: None }; 3];
        assert!(Figures::of(&scores, &[3]).perplexity.value.is_nan());
        assert!(Figures::of(&[], &[]).perplexity.value.is_nan());
        assert!(Spread::of(vec![]).max.is_nan());
    }

    #[test]
    fn positions_without_a_number_are_counted() {
        let sound = TokenScore { nll: 1.0, reference: None };
        let scores = [sound, TokenScore { nll: f64::NAN, reference: None }, sound];
        assert_eq!(Figures::of(&scores, &[3]).undefined, 1);
        assert_eq!(Figures::of(&[sound; 3], &[3]).undefined, 0);
    }

    #[test]
    fn percentiles_lie_between_neighbours() {
        let spread = Spread::of((0..=1000).rev().map(f64::from).collect());
        let got = [spread.min, spread.p0_1, spread.p10, spread.median, spread.p99_9, spread.max];
        for (got, want) in got.into_iter().zip([0.0, 1.0, 100.0, 500.0, 999.0, 1000.0]) {
            assert!((got - want).abs() < 1e-9, "{got} {want}");
        }
    }
}
