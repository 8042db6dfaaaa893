//! How activations are rounded, and their static grids.

/// How a linear layer sees its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activations {
    /// As it is: float32 in the reference runtime.
    Float,
    /// int8, symmetric, one scale per token, computed at run time (`max|x| / 127`).
    Int8PerToken,
    /// int8, symmetric, one scale for all tokens, chosen on calibration text and stored as
    /// `input_scale`.
    Int8Static,
}

/// A grid that all values of an activation share, chosen before the model runs:
/// `value = (code − zero_point) · scale` with codes from 0 to `2^bits − 1`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ActivationGrid {
    /// Bits of a code: 8 or 16.
    pub bits: u32,
    /// Step between codes, above 0.
    pub scale: f32,
    /// The code of value 0.
    pub zero_point: u16,
}

impl ActivationGrid {
    /// The grid that covers `[min(0, min), max(0, max)]`, 0 exactly on it; a range of nothing
    /// has scale 1.
    pub fn covering(min: f32, max: f32, bits: u32) -> Self {
        let (min, max) = (f64::from(min.min(0.0)), f64::from(max.max(0.0)));
        let last = f64::from((1_u32 << bits) - 1);
        let scale = ((max - min) / last) as f32;
        if !(scale > 0.0 && scale.is_finite()) {
            return Self { bits, scale: 1.0, zero_point: 0 };
        }
        let zero_point = (-min / f64::from(scale)).round_ties_even().clamp(0.0, last);
        Self { bits, scale, zero_point: zero_point as u16 }
    }

    /// Whether it can be computed with: what a stranger's file says may not.
    pub fn is_sound(&self) -> bool {
        matches!(self.bits, 8 | 16)
            && self.scale.is_finite()
            && self.scale > 0.0
            && u32::from(self.zero_point) < 1 << self.bits
    }

    /// Rounds values to the grid, in float32.
    pub fn round(&self, values: &mut [f32]) {
        let (last, zero) = (((1_u32 << self.bits) - 1) as f32, f32::from(self.zero_point));
        for x in values {
            let code = (*x / self.scale).round_ties_even() + zero;
            *x = (code.clamp(0.0, last) - zero) * self.scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_of_a_hand_computed_range() {
        // 255 steps from -1 to 4.1: 0.02 each, zero at code 50.
        let grid = ActivationGrid::covering(-1.0, 4.1, 8);
        assert_eq!((grid.bits, grid.zero_point), (8, 50));
        assert!((grid.scale - 0.02).abs() < 1e-8);
        let mut x = [0.0, 0.029, -0.031, 9.0, -9.0];
        grid.round(&mut x);
        let steps = x.map(|x| (x / 0.02).round() as i32);
        assert_eq!(steps, [0, 1, -2, 205, -50], "nearest, and clamped at both ends");
        // Ranges on one side of 0 are stretched to it.
        assert_eq!(ActivationGrid::covering(2.0, 5.1, 8).zero_point, 0);
        assert_eq!(ActivationGrid::covering(-5.1, -2.0, 8).zero_point, 255);
    }

    #[test]
    fn values_in_the_range_err_by_half_a_step() {
        for bits in [8, 16] {
            let grid = ActivationGrid::covering(-3.0, 7.0, bits);
            let plain: Vec<f32> = (0..1000).map(|i| i as f32 * 0.01 - 3.0).collect();
            let mut rounded = plain.clone();
            grid.round(&mut rounded);
            for (x, y) in plain.iter().zip(&rounded) {
                // half a step, moved by the zero point's rounding at the very ends, and float32
                let bound = grid.scale * if (-2.9..6.9).contains(x) { 0.5 } else { 1.0 };
                assert!((x - y).abs() <= bound + 7.0 * f32::EPSILON, "{bits}: {x} {y}");
            }
            let once = rounded.clone();
            grid.round(&mut rounded);
            assert_eq!(once, rounded, "what lies on the grid stays");
        }
    }

    #[test]
    fn nothing_divides_by_zero() {
        for (min, max) in [(0.0, 0.0), (f32::NAN, f32::NAN), (f32::MIN, f32::MAX)] {
            let grid = ActivationGrid::covering(min, max, 8);
            assert!(grid.is_sound(), "{grid:?}");
        }
        let wrong = ActivationGrid { bits: 8, scale: 0.0, zero_point: 0 };
        assert!(
            !wrong.is_sound()
                && !ActivationGrid { scale: 1.0, zero_point: 256, ..wrong }.is_sound()
        );
    }
}
