//! Rows of logits compared: divergence, most likely tokens.
use super::elementwise::{LANES, exp, lanes_sum, max, vectorized};

vectorized! {
    /// `Σ exp(a - a0) · ((a - a0) - (b - b0))` and `Σ exp(a - a0)` over the shorter length: with
    /// `a0` and `b0` the rows' log-sum-exps, the KL divergence of `softmax(a)` from `softmax(b)`.
    /// Each 1024 terms are summed in float32, the parts in float64; equal rows give exactly 0.
    fn divergence_sums<'a>(a: &'a [f32], a0: f32, b: &'a [f32], b0: f32) -> (f64, f64) {
        let (mut divergence, mut mass) = (0.0, 0.0);
        for (a, b) in a.chunks(1024).zip(b.chunks(1024)) {
            let ((a_all, a_tail), (b_all, b_tail)) =
                (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
            let (mut d, mut m) = ([0.0; LANES], [0.0; LANES]);
            for (a, b) in a_all.iter().zip(b_all) {
                for i in 0..LANES {
                    let (x, p) = term(a[i] - a0, b[i] - b0);
                    d[i] += x;
                    m[i] += p;
                }
            }
            for (i, (a, b)) in a_tail.iter().zip(b_tail).enumerate() {
                let (x, p) = term(*a - a0, *b - b0);
                d[i] += x;
                m[i] += p;
            }
            divergence += f64::from(lanes_sum(d));
            mass += f64::from(lanes_sum(m));
        }
        (divergence, mass)
    }
}

/// KL(a ‖ b) = Σ p_a · (log p_a - log p_b) of rows of logits with their log-sum-exps. Rounding
/// the latter to float32 shifts every difference alike, which is put right in float64.
pub fn divergence((a, a0): (&[f32], f64), (b, b0): (&[f32], f64)) -> f64 {
    let (a_shift, b_shift) = (a0 as f32, b0 as f32);
    let (sum, mass) = divergence_sums(a, a_shift, b, b_shift);
    let correction = (f64::from(a_shift) - a0) - (f64::from(b_shift) - b0);
    let kl = sum / mass + correction;
    // max() would turn NaN into 0.
    if kl < 0.0 { 0.0 } else { kl }
}

/// eᵃ·(a - b) and eᵃ. A token that is not allowed (a = -∞) adds nothing; NaN stays.
#[inline(always)]
fn term(a: f32, b: f32) -> (f32, f32) {
    let p = exp(a);
    (if p > 0.0 { p * (a - b) } else { p }, p)
}

vectorized! {
    /// Indices of the five largest values, largest first, the lower index first among equals.
    /// Places that find no value (short rows, NaN) hold `u32::MAX`.
    pub fn top5<'a>(x: &'a [f32]) -> [u32; 5] {
        let mut best = [(f32::NEG_INFINITY, u32::MAX); 5];
        for (part, values) in x.chunks(256).enumerate() {
            let last = best[4];
            // Most parts hold none of the largest: one maximum says so.
            if last.1 != u32::MAX && max(values) <= last.0 {
                continue;
            }
            for (i, value) in values.iter().enumerate() {
                place(&mut best, *value, (part * 256 + i) as u32);
            }
        }
        best.map(|(_, index)| index)
    }
}

/// The index of the largest value. Ties go to the lower index; NaN is never chosen.
pub fn largest(values: impl Iterator<Item = f32>) -> Option<u32> {
    let mut largest: Option<(f32, u32)> = None;
    for (value, index) in values.zip(0..) {
        if value > largest.map_or(f32::NEG_INFINITY, |(most, _)| most) {
            largest = Some((value, index));
        }
    }
    largest.map(|(_, index)| index)
}

/// Inserts a value into the list of the largest; equals keep their order.
fn place(best: &mut [(f32, u32); 5], value: f32, index: u32) {
    let before = |held: &(f32, u32)| value > held.0 || (held.1 == u32::MAX && value >= held.0);
    if let Some(at) = best.iter().position(before) {
        best[at..].rotate_right(1);
        best[at] = (value, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::log_sum_exp;

    #[test]
    fn divergence_of_hand_computed_rows() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): KL = ½·ln 2 − ¼·ln 2 = ¼·ln 2.
        let ln = |x: f32| x.ln();
        let (a, b) = ([ln(2.0), 0.0, 0.0], [1.0, 1.0, 1.0 + ln(2.0)]);
        let (a0, b0) = (log_sum_exp(&a) as f32, log_sum_exp(&b) as f32);
        let (kl, mass) = divergence_sums(&a, a0, &b, b0);
        assert!((kl - 0.25 * 2.0_f64.ln()).abs() < 1e-6, "{kl}");
        assert!((mass - 1.0).abs() < 1e-6);
        let same = divergence_sums(&a, a0, &a, a0).0;
        assert!(same.abs() < f64::MIN_POSITIVE, "{same}");
    }

    #[test]
    fn divergence_agrees_with_float64_over_long_rows() {
        let a: Vec<f32> = (0..5003).map(|i| (i as f32 * 0.37).sin() * 9.0).collect();
        let b: Vec<f32> = (0..5003).map(|i| (i as f32 * 0.37).sin() * 8.0 + 3.0).collect();
        let lse = |x: &[f32]| x.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        let (a0, b0) = (lse(&a), lse(&b));
        let want: f64 = a
            .iter()
            .zip(&b)
            .map(|(a, b)| (f64::from(*a), f64::from(*b)))
            .map(|(a, b)| (a - a0).exp() * ((a - a0) - (b - b0)))
            .sum();
        let (got, mass) = divergence_sums(&a, a0 as f32, &b, b0 as f32);
        // Each difference of logs of size 32 at most is rounded to 2^-19, the sums to 2^-24·1024.
        assert!((got / mass - want).abs() < 32.0 * 2.0_f64.powi(-19), "{got} {want}");
    }

    #[test]
    fn top_orders_by_value_and_then_by_index() {
        let mut x = vec![0.0_f32; 1000];
        (x[700], x[3], x[999], x[4]) = (5.0, 2.0, 2.0, 1.0);
        assert_eq!(top5(&x), [700, 3, 999, 4, 0]);
        let none = u32::MAX;
        assert_eq!(top5(&[f32::NAN, -1.0]), [1, none, none, none, none]);
        assert_eq!(top5(&[f32::NEG_INFINITY; 6]), [0, 1, 2, 3, 4]);
    }
}
