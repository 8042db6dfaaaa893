//! Which scales stand nearest to some weights: least squares over codes that a few trial scales
//! give, each followed by the best scale for its codes.

/// Trial scales on each side of the one whose grid just holds the largest weight.
const TRIALS: i32 = 10;
/// Their distance in steps of the grid.
const STEP: f32 = 0.125;

/// Code of a value in steps, to nearest.
pub(super) fn code(steps: f32, (least, most): (f32, f32)) -> f32 {
    steps.round_ties_even().clamp(least, most)
}

/// What weights on a scale are multiplied by to become steps; 0 where float16 lost the scale.
pub(super) fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The scale `s` of `w ≈ s·q`, `least ≤ q ≤ most`; of either sign, since one more step lies below 0
/// than above. 0 for weights that are all 0.
pub(super) fn symmetric(weights: &[f32], range: (f32, f32)) -> f32 {
    let extreme = weights.iter().fold(0.0_f32, |far, w| if w.abs() > far.abs() { *w } else { far });
    if extreme == 0.0 {
        return 0.0;
    }
    let (mut best, mut scale) = (-1.0, 0.0);
    for trial in -TRIALS..=TRIALS {
        let inverse = (range.0 + STEP * trial as f32) / extreme;
        let (mut wq, mut qq) = (0.0_f32, 0.0_f32);
        for w in weights {
            let q = code(w * inverse, range);
            wq += w * q;
            qq += q * q;
        }
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
    let (mut best, mut found) = (f32::INFINITY, (0.0, 0.0));
    for trial in -TRIALS..=TRIALS {
        let inverse = (most + STEP * trial as f32) / (high - low);
        let mut sums = Sums::default();
        for w in weights {
            sums.add(*w, code((w - low) * inverse, (0.0, most)), -1.0);
        }
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
