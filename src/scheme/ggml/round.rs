//! Floats rounded to blocks: for embeddings and heads, which packages hold in float.
use super::{BlockFormat, FORMATS, Round};

/// A way from floats to blocks.
#[derive(Clone, Copy, Debug)]
pub struct Rounding {
    /// What the blocks are.
    pub format: &'static dyn BlockFormat,
    round: Round,
}

impl Rounding {
    /// Every format that floats can be rounded to, by id.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMATS
            .iter()
            .filter_map(|format| Some(Self { format: *format, round: format.rounding()? }))
    }

    /// Appends the blocks nearest to some finite values, whole blocks of them. The same values give
    /// the same bytes.
    pub fn round(&self, values: &[f32], out: &mut Vec<u8>) {
        (self.round)(values, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there_and_back(rounding: &Rounding, values: &[f32]) -> Vec<f32> {
        let mut bytes = Vec::new();
        rounding.round(values, &mut bytes);
        assert_eq!(Some(bytes.len()), rounding.format.bytes(values.len()));
        let mut back = vec![0.0; values.len()];
        rounding.format.decode(&bytes, &mut back);
        back
    }

    fn error(a: &[f32], b: &[f32]) -> f64 {
        let sum = |it: &mut dyn Iterator<Item = f32>| it.map(|x| f64::from(x).powi(2)).sum::<f64>();
        let far = sum(&mut a.iter().zip(b).map(|(a, b)| a - b));
        (far / sum(&mut a.iter().copied()).max(1e-30)).sqrt()
    }

    fn normal(seed: u64, count: usize) -> Vec<f32> {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = || rng.random::<f32>();
        (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
    }

    /// Relative errors of normally distributed weights. Between the best scalar quantizers of 16,
    /// 256, 16 and 64 levels for a normal distribution (Max 1960: 0.107 at 16) and the same
    /// multiplied by what scales in few bits cost.
    #[test]
    fn rounding_is_near() {
        let values = normal(1, 1 << 16);
        assert_eq!(Rounding::all().count(), 4);
        let bounds = [("Q4_0", 0.085), ("Q8_0", 0.006), ("Q4_K", 0.075), ("Q6_K", 0.019)];
        for (rounding, (name, bound)) in Rounding::all().zip(bounds) {
            assert_eq!(rounding.format.name(), name);
            let found = error(&values, &there_and_back(&rounding, &values));
            assert!(found < bound, "{name}: {found}");
            assert!(found > bound / 3.0, "{name}: {found}, fewer bits than it has");
        }
    }

    #[test]
    fn blocks_of_one_value_and_of_nothing() {
        for rounding in Rounding::all() {
            let name = rounding.format.name();
            for value in [0.0_f32, 1.0, -3.0, 1e-3] {
                let back = there_and_back(&rounding, &[value; 256]);
                let found = error(&[value; 256], &back);
                assert!(found < 0.01, "{name} of {value}: {found}");
                assert!(value != 0.0 || back.iter().all(|it| *it == 0.0), "{name}");
            }
            // Below float16's smallest number nothing is left, and nothing breaks.
            assert!(there_and_back(&rounding, &[1e-9; 256]).iter().all(|it| it.abs() < 1e-7));
        }
    }

    proptest! {
        /// Whatever the weights, the error is at most that of the plain grid over their range.
        #[test]
        fn never_worse_than_the_plain_grid(seed in 0_u64..1000, spread in 0.0_f32..3.0, shift in -2.0_f32..2.0) {
            let noise = normal(seed, 512);
            let values: Vec<f32> =
                noise.iter().map(|x| (x * spread).exp() * x.signum() + shift).collect();
            for (rounding, steps) in Rounding::all().zip([8.0_f32, 127.0, 15.0, 32.0]) {
                let name = rounding.format.name();
                let back = there_and_back(&rounding, &values);
                let len = rounding.format.block_len();
                for (a, b) in values.chunks(len).zip(back.chunks(len)) {
                    let far = a.iter().fold(0.0_f32, |far, x| far.max(x.abs()));
                    // A step over the whole block at most, a tenth for scales in few bits.
                    let bound = 2.2 * far / steps * (len as f32).sqrt();
                    let found = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
                    prop_assert!(found <= bound, "{}: {} {}", name, found, bound);
                }
            }
        }
    }

    /// What is on the grid of a format stays near: a third of what the rounding itself changes.
    #[test]
    fn values_of_blocks_stay_near() {
        for rounding in Rounding::all() {
            let first = normal(3, 1 << 14);
            let once = there_and_back(&rounding, &first);
            let moved = error(&first, &once);
            let found = error(&once, &there_and_back(&rounding, &once));
            assert!(found < moved / 3.0, "{} {found} {moved}", rounding.format.name());
        }
    }
}
