//! Which scales stand nearest to some weights: least squares over the codes that a few trial scales
//! give, each followed by the best scale for its codes.
//!
//! Loops run over trials or in eight lanes, so that compilers make vectors of them in one order.
use half::f16;

/// Trial scales, half of them on each side of the one whose grid just holds the largest weight.
const TRIALS: usize = 20;
/// Their distance in steps of the grid.
const STEP: f32 = 0.125;

/// Code of a value in steps, to nearest, ties to even.
pub(super) fn code(steps: f32, (least, most): (f32, f32)) -> f32 {
    /// Numbers from here on have no fractions: adding it rounds. A call of `round` is no vector.
    const WHOLE: f32 = 12_582_912.0;
    let within = if steps > least { steps } else { least };
    let within = if within < most { within } else { most };
    (within + WHOLE) - WHOLE
}

/// The scale as a file holds it: the next float16 away from 0, so that no code has to be larger
/// than there is one.
pub(super) fn half_up(x: f32) -> f32 {
    let near = f16::from_f32(x);
    let short = near.to_f32().abs() < x.abs();
    f16::from_bits(near.to_bits() + u16::from(short)).to_f32()
}

/// What weights on a scale are multiplied by to become steps; 0 where float16 lost the scale.
pub(super) fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Σ (w − near(w))².
pub(super) fn distance<const N: usize>(weights: &[f32; N], near: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 8];
    for weights in weights.as_chunks::<8>().0 {
        for (lane, w) in lanes.iter_mut().zip(weights) {
            let far = near(*w) - w;
            *lane += far * far;
        }
    }
    lanes.iter().sum()
}

/// Inverse scales of the trials of a grid of `steps` over `width`.
fn trials(steps: f32, width: f32) -> [f32; TRIALS] {
    std::array::from_fn(|t| (steps + STEP * (t as f32 - (TRIALS / 2) as f32)) / width)
}

/// Of each trial Σq, Σq² and Σwq of its codes `q` of `w − low`.
fn code_sums(
    weights: &[f32],
    low: f32,
    inverses: &[f32; TRIALS],
    range: (f32, f32),
) -> [[f32; TRIALS]; 3] {
    let [mut q1, mut qq, mut wq] = [[0.0; TRIALS]; 3];
    for w in weights {
        for t in 0..TRIALS {
            let q = code((w - low) * inverses[t], range);
            q1[t] += q;
            qq[t] += q * q;
            wq[t] += w * q;
        }
    }
    [q1, qq, wq]
}

/// The scale `s` of `w ≈ s·q`, `least ≤ q ≤ most`; of either sign, since one more step lies below 0
/// than above. 0 for weights that are all 0.
pub(super) fn symmetric(weights: &[f32], range: (f32, f32)) -> f32 {
    let extreme = weights.iter().fold(0.0_f32, |far, w| if w.abs() > far.abs() { *w } else { far });
    if extreme == 0.0 {
        return 0.0;
    }
    let [_, qq, wq] = code_sums(weights, 0.0, &trials(range.0, extreme), range);
    let (mut best, mut scale) = (-1.0, 0.0);
    for (qq, wq) in qq.into_iter().zip(wq) {
        // What is left of Σw² shrinks by (Σwq)² / Σq².
        if qq > 0.0 && wq * (wq / qq) > best {
            (best, scale) = (wq * (wq / qq), wq / qq);
        }
    }
    scale
}

/// Scale and minimum, both at least 0, of `w ≈ s·q − m`, `0 ≤ q ≤ most`.
pub(super) fn affine(weights: &[f32], most: f32) -> (f32, f32) {
    let low = weights.iter().fold(0.0_f32, |low, w| low.min(*w));
    let high = weights.iter().fold(low, |high, w| high.max(*w));
    if high <= low {
        return (0.0, -low);
    }
    let count = weights.len() as f64;
    let total = -weights.iter().map(|w| f64::from(*w)).sum::<f64>();
    let squares = weights.iter().map(|w| f64::from(*w).powi(2)).sum();
    let [q1, qq, wq] = code_sums(weights, low, &trials(most, high - low), (0.0, most));
    let (mut best, mut found) = (f32::INFINITY, (0.0, 0.0));
    for t in 0..TRIALS {
        let [q1, aa, wa] = [q1[t], qq[t], wq[t]].map(f64::from);
        let sums = Sums { ww: squares, wa, wc: total, aa, ac: -q1, cc: count };
        let (scale, min) = sums.solve();
        let error = sums.error(scale, min);
        if error < best {
            (best, found) = (error, (scale, min));
        }
    }
    found
}

/// Sums of least squares for `w ≈ s·a + m·c`, `s` and `m` at least 0.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    ww: f64,
    wa: f64,
    wc: f64,
    aa: f64,
    ac: f64,
    cc: f64,
}

impl Sums {
    pub(super) fn add(&mut self, w: f32, a: f32, c: f32) {
        let [w, a, c] = [w, a, c].map(f64::from);
        self.ww += w * w;
        self.wa += w * a;
        self.wc += w * c;
        self.aa += a * a;
        self.ac += a * c;
        self.cc += c * c;
    }

    /// The best `s` and `m`.
    pub(super) fn solve(&self) -> (f32, f32) {
        let alone = |x: f64, xx: f64| if xx > 0.0 { (x / xx).max(0.0) } else { 0.0 };
        let det = self.aa * self.cc - self.ac * self.ac;
        if det > 1e-9 * self.aa * self.cc {
            let s = (self.wa * self.cc - self.wc * self.ac) / det;
            let m = (self.wc * self.aa - self.wa * self.ac) / det;
            if s >= 0.0 && m >= 0.0 {
                return (s as f32, m as f32);
            }
        }
        let ends = [(alone(self.wa, self.aa) as f32, 0.0), (0.0, alone(self.wc, self.cc) as f32)];
        let first = self.error(ends[0].0, 0.0) <= self.error(0.0, ends[1].1);
        if first { ends[0] } else { ends[1] }
    }

    /// `Σ (w − s·a − m·c)²`, up to rounding.
    pub(super) fn error(&self, s: f32, m: f32) -> f32 {
        let (s, m) = (f64::from(s), f64::from(m));
        let fit = s * (s * self.aa - 2.0 * self.wa) + m * (m * self.cc - 2.0 * self.wc);
        (self.ww + fit + 2.0 * s * m * self.ac) as f32
    }
}

/// Turns of [`improved`] at most.
const TURNS: usize = 3;

/// A fit after turns that each change it, as long as its error shrinks.
pub(super) fn improved<F: Copy>(first: F, turn: impl Fn(&mut F), error: impl Fn(&F) -> f32) -> F {
    let (mut best, mut least) = (first, error(&first));
    for _ in 0..TURNS {
        let mut next = best;
        turn(&mut next);
        let found = error(&next);
        if found >= least {
            break;
        }
        (best, least) = (next, found);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_on_a_grid_find_it() {
        let weights: Vec<f32> = (-8..8).map(|q| q as f32 * -0.25).collect();
        assert!((symmetric(&weights, (-8.0, 7.0)) + 0.25).abs() < 1e-6);
        assert!(symmetric(&[0.0; 16], (-8.0, 7.0)) == 0.0);
        let weights: Vec<f32> = (0..16).map(|q| q as f32 * 0.5 - 3.0).collect();
        let (scale, min) = affine(&weights, 15.0);
        assert!((scale - 0.5).abs() < 1e-6 && (min - 3.0).abs() < 1e-5, "{scale} {min}");
        // Nothing below 0: the minimum stays 0.
        let above: Vec<f32> = (0..16).map(|q| 8.0 + q as f32).collect();
        let (scale, min) = affine(&above, 15.0);
        assert!(scale > 0.0 && min == 0.0, "{scale} {min}");
        assert_eq!(affine(&[-2.0; 4], 15.0), (0.0, 2.0));
    }

    /// By hand: 1, 2 and 4 against a = 1, 2, 3 and c = -1 give s = 1.5, m = 2/3.
    #[test]
    fn two_unknowns_by_hand() {
        let mut sums = Sums::default();
        for (w, a) in [(1.0, 1.0), (2.0, 2.0), (4.0, 3.0)] {
            sums.add(w, a, -1.0);
        }
        let (s, m) = sums.solve();
        assert!((s - 1.5).abs() < 1e-6 && (m - 2.0 / 3.0).abs() < 1e-6, "{s} {m}");
        assert!((sums.error(s, m) - 1.0 / 6.0).abs() < 1e-5);
    }
}
