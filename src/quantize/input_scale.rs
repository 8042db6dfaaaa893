//! The scale of a layer's static activations.
use super::QuantizeError;
use crate::model::{Input, Model, Weight};

/// Bits of a float32 that a bin ignores: 5 bits of the mantissa are left.
const SHIFT: u32 = 18;
/// Bins of non-negative finite numbers.
const BINS: usize = 0x7f80_0000 >> SHIFT;
/// Highest code.
const LAST: f64 = 127.0;
/// Scales that are tried, and the ratio between them.
const TRIES: (i32, f64) = (120, 0.97);

/// How often magnitudes occur, in bins of 1/32 of their power of two.
#[derive(Clone, Debug)]
pub struct Magnitudes {
    /// Numbers in each bin, see [`SHIFT`].
    counts: Vec<u64>,
    largest: f32,
}

impl Default for Magnitudes {
    fn default() -> Self {
        Self { counts: vec![0; BINS], largest: 0.0 }
    }
}

impl Magnitudes {
    /// Takes in finite numbers.
    pub fn add<'a>(&mut self, values: impl IntoIterator<Item = &'a f32>) {
        for x in values {
            let magnitude = x.abs();
            self.largest = self.largest.max(magnitude);
            if let Some(count) = self.counts.get_mut((magnitude.to_bits() >> SHIFT) as usize) {
                *count += 1;
            }
        }
    }

    /// The scale with the least squared error of all numbers, those beyond 127 steps clamped: the
    /// largest magnitude over 127, or a smaller one. 1 where all numbers are zero.
    pub fn scale(&self) -> f32 {
        let (tries, ratio) = TRIES;
        let first = f64::from(self.largest) / LAST;
        let scales = (0..tries).map(|k| first * ratio.powi(k));
        let best =
            scales.map(|scale| (self.error(scale), scale)).min_by(|a, b| a.0.total_cmp(&b.0));
        match best {
            Some((_, scale)) if (scale as f32).is_normal() => scale as f32,
            _ => 1.0,
        }
    }

    /// Squared error on a grid: a twelfth of a squared step inside, the distance outside.
    fn error(&self, scale: f64) -> f64 {
        let bins = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        bins.map(|(bin, count)| {
            let middle = f32::from_bits((bin as u32) << SHIFT | 1 << (SHIFT - 1));
            let beyond = (f64::from(middle) - LAST * scale).max(0.0);
            let inside = if f64::from(middle) < scale / 2.0 {
                f64::from(middle).powi(2) // rounded to 0
            } else {
                scale * scale / 12.0
            };
            *count as f64 * if beyond > 0.0 { beyond * beyond } else { inside }
        })
        .sum()
    }
}

/// The largest input scale that another expert has in the place of a weight that saw hardly a token.
pub(super) fn of_another_expert(
    model: &Model,
    block: usize,
    tensor: &str,
) -> Result<f32, QuantizeError> {
    let here = || model.spec.tensors.iter().filter(|it| it.block == Some(block));
    let role = here().find(|it| it.name == tensor).map(|it| it.role);
    let mut largest = None;
    for spec in here().filter(|it| it.name != tensor && Some(it.role) == role) {
        if !model.weights.quantized.contains_key(&spec.name) {
            continue;
        }
        let (Weight::Quantized { activations, .. } | Weight::Split { activations, .. }) =
            model.weights.get(&spec.name)?
        else {
            continue;
        };
        if let Input::Int8Static(scale) = activations {
            largest = largest.max(Some(scale.to_bits())); // of positive numbers, as of the numbers
        }
    }
    let unseen = || QuantizeError::Unseen { tensor: tensor.to_owned() };
    largest.map(f32::from_bits).ok_or_else(unseen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_numbers_are_covered_and_rare_giants_are_clamped() {
        let mut even = Magnitudes::default();
        let values: Vec<f32> = (0..=1000).map(|i| i as f32 / 1000.0 - 0.5).collect();
        even.add(&values);
        // Clamping the last 1/127 saves less than it costs: within a bin of the largest.
        let scale = even.scale() * 127.0;
        assert!((0.5 * (1.0 - 1.0 / 16.0)..=0.5).contains(&scale), "{scale}");
        let mut giant = even.clone();
        giant.add(&[3.0]);
        // One number at 3 over 1001: at 3/127 steps cost 1001 · (3/127)²/12 = 0.0465, to clamp the
        // giant to 0.5 costs 6.25: it stays. A thousand times as many others: it is clamped.
        assert!((giant.scale() * 127.0 - 3.0).abs() < 0.3, "{}", giant.scale() * 127.0);
        for _ in 0..1000 {
            giant.add(&values);
        }
        assert!(giant.scale() * 127.0 < 2.5, "{}", giant.scale() * 127.0);
    }

    #[test]
    fn nothing_divides_by_zero() {
        let mut zeros = Magnitudes::default();
        assert_eq!(zeros.scale().to_bits(), 1.0_f32.to_bits());
        zeros.add(&[0.0, -0.0]);
        assert_eq!(zeros.scale().to_bits(), 1.0_f32.to_bits());
    }
}
