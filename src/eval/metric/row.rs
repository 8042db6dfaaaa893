//! Scores of single positions from rows of logits.
use crate::linalg::{Team, divergence, log_sum_exp, top5};
use ndarray::Array2;

/// One scored position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// -log p(right token), nats.
    pub nll: f64,
    /// Against the reference.
    pub reference: Option<Compared>,
}

impl TokenScore {
    /// Whether one of its figures is no number.
    pub fn is_undefined(&self) -> bool {
        let against = |it: Compared| it.nll.is_nan() || it.kl.is_nan();
        self.nll.is_nan() || self.reference.is_some_and(against)
    }
}

/// One position of model and reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// -log p of the reference, nats.
    pub nll: f64,
    /// KL(reference ‖ model), nats, not below 0.
    pub kl: f64,
    /// The most likely token is the same.
    pub top1: bool,
    /// How many of the reference's five most likely tokens are among the model's five.
    pub top5: u8,
}

/// What a stored reference knows exactly although its rows are rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exact {
    /// log p(right token), nats.
    pub target: f64,
    /// The five most likely tokens, most likely first.
    pub top: [u32; 5],
}

/// Some rows of logits.
#[derive(Clone, Debug)]
pub struct Rows {
    /// `[rows, vocab]`, contiguous; up to a constant per row.
    pub logits: Array2<f32>,
    /// What is known better than the rows tell, per row.
    pub exact: Option<Vec<Exact>>,
}

impl Rows {
    /// The logits of one row, `[vocab]`.
    pub fn row(&self, at: usize) -> &[f32] {
        self.logits.row(at).to_slice().expect("rows are contiguous")
    }
}

/// Rows that one thread takes at a time.
const ROWS_AT_ONCE: usize = 8;

/// Scores rows: `targets[i]` is the token that row i predicts. Same bits at any number of
/// threads, since each row is one thread's.
pub fn score_rows(
    rows: &Rows,
    reference: Option<&Rows>,
    targets: &[u32],
    team: &Team,
) -> Vec<TokenScore> {
    let none = TokenScore { nll: f64::NAN, reference: None };
    let mut scores = vec![none; targets.len()];
    team.each(scores.chunks_mut(ROWS_AT_ONCE).collect(), |part, scores: &mut [TokenScore]| {
        for (i, score) in scores.iter_mut().enumerate() {
            let at = part * ROWS_AT_ONCE + i;
            *score = score_row(rows, reference, at, targets[at]);
        }
    });
    scores
}

fn score_row(rows: &Rows, reference: Option<&Rows>, at: usize, target: u32) -> TokenScore {
    let row = rows.row(at);
    let lse = log_sum_exp(row);
    let nll = |row: &[f32], lse: f64| match row.get(target as usize) {
        Some(logit) => lse - f64::from(*logit),
        None => f64::NAN,
    };
    let reference = reference.map(|reference| {
        let other = reference.row(at);
        let other_lse = log_sum_exp(other);
        let (nll, best) = match reference.exact.as_ref().and_then(|all| all.get(at)) {
            Some(exact) => (-exact.target, exact.top),
            None => (nll(other, other_lse), top5(other)),
        };
        let mine = top5(row);
        // Rows with NaN or an infinity are no distributions: they agree with nothing.
        let both = lse.is_finite() && other_lse.is_finite();
        let shared = |token: &&u32| both && **token != u32::MAX && mine.contains(token);
        Compared {
            nll,
            kl: divergence((other, other_lse), (row, lse)),
            top1: both && best[0] == mine[0] && best[0] != u32::MAX,
            top5: best.iter().filter(shared).count() as u8,
        }
    });
    TokenScore { nll: nll(row, lse), reference }
}

/// KL(reference ‖ model) of each row of logits, `[rows, vocab]`, nats. Same bits at any number of
/// threads.
pub fn row_divergences(reference: &Array2<f32>, model: &Array2<f32>, team: &Team) -> Vec<f64> {
    let mut all = vec![f64::NAN; reference.nrows().min(model.nrows())];
    team.each(all.iter_mut().collect(), |at, kl: &mut f64| {
        if let (Some(a), Some(b)) = (reference.row(at).to_slice(), model.row(at).to_slice()) {
            *kl = divergence((a, log_sum_exp(a)), (b, log_sum_exp(b)));
        }
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};

    fn rows(logits: Array2<f32>) -> Rows {
        Rows { logits, exact: None }
    }

    fn wave(rows: usize, vocab: usize, pitch: f32) -> Array2<f32> {
        Array2::from_shape_fn((rows, vocab), |(r, v)| ((r * 31 + v) as f32 * pitch).sin() * 6.0)
    }

    #[test]
    fn scores_of_hand_computed_logits() {
        // p = (1/8, 2/8, 5/8), reference (1/2, 1/4, 1/4).
        let model = rows(array![[0.0, 2.0_f32.ln(), 5.0_f32.ln()]]);
        let reference = rows(array![[2.0_f32.ln() + 3.0, 3.0, 3.0]]);
        let score = score_rows(&model, Some(&reference), &[1], &Team::new(1))[0];
        let against = score.reference.unwrap();
        // Logits of size 4 carry errors of 2^-23.
        assert!((score.nll - 4.0_f64.ln()).abs() < 1e-6);
        assert!((against.nll - 4.0_f64.ln()).abs() < 1e-6);
        let kl = 0.5 * 4.0_f64.ln() + 0.25 * 0.4_f64.ln();
        assert!((against.kl - kl).abs() < 1e-6, "{} {kl}", against.kl);
        assert_eq!((against.top1, against.top5), (false, 3));
    }

    #[test]
    fn equal_logits_diverge_by_nothing_and_shifted_ones_by_rounding() {
        let team = Team::new(2);
        let (a, targets) = (wave(20, 777, 0.7), vec![5; 20]);
        for score in score_rows(&rows(a.clone()), Some(&rows(a.clone())), &targets, &team) {
            let against = score.reference.unwrap();
            assert!(against.kl.abs() < f64::MIN_POSITIVE && against.top1 && against.top5 == 5);
            assert!((against.nll - score.nll).abs() < f64::MIN_POSITIVE);
        }
        // Adding a constant changes no probability; logits of size 40 are rounded to 2^-19.
        for score in score_rows(&rows(&a + 32.0), Some(&rows(a.clone())), &targets, &team) {
            assert!(score.reference.unwrap().kl < 2.0_f64.powi(-18));
        }
        for score in score_rows(&rows(wave(20, 777, 0.6)), Some(&rows(a)), &targets, &team) {
            assert!(score.reference.unwrap().kl > 0.1, "other logits diverge");
        }
    }

    #[test]
    fn a_uniform_model_has_the_vocabulary_as_its_perplexity() {
        let scores =
            score_rows(&rows(Array2::from_elem((9, 1000), 3.0)), None, &[7; 9], &Team::new(1));
        assert!(scores.iter().all(|score| (score.nll.exp() / 1000.0 - 1.0).abs() < 1e-6));
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (a, b) = (rows(wave(50, 999, 0.3)), rows(wave(50, 999, 0.31)));
        let targets: Vec<u32> = (0..50).collect();
        let one = score_rows(&a, Some(&b), &targets, &Team::new(1));
        assert_eq!(one, score_rows(&a, Some(&b), &targets, &Team::new(3)));
    }

    #[test]
    fn no_number_and_foreign_tokens_give_no_number() {
        let bad = rows(array![[0.0, f32::NAN, 1.0]]);
        let good = rows(array![[0.0, 0.5, 1.0]]);
        let team = Team::new(1);
        assert!(score_rows(&bad, None, &[0], &team)[0].nll.is_nan());
        assert!(score_rows(&bad, Some(&good), &[0], &team)[0].reference.unwrap().kl.is_nan());
        assert!(score_rows(&good, Some(&bad), &[0], &team)[0].reference.unwrap().kl.is_nan());
        // Two rows without a distribution do not agree, however alike they are.
        for (model, reference) in [(&bad, &bad), (&bad, &good), (&good, &bad)] {
            let score = score_rows(model, Some(reference), &[0], &team)[0];
            let against = score.reference.unwrap();
            assert_eq!((against.top1, against.top5), (false, 0));
            assert!(score.is_undefined());
        }
        assert!(score_rows(&good, Some(&good), &[0], &team)[0].reference.unwrap().top1);
        assert!(score_rows(&good, None, &[3], &team)[0].nll.is_nan());
        let never = rows(array![[0.0, f32::NEG_INFINITY, 1.0]]);
        let kl = score_rows(&never, Some(&good), &[0], &team)[0].reference.unwrap().kl;
        assert!(kl.is_infinite(), "{kl}");
        let kl = score_rows(&good, Some(&never), &[0], &team)[0].reference.unwrap().kl;
        assert!(kl.is_finite() && kl > 0.0, "{kl}");
    }
}
