//! No information at all.
use super::{PairSite, Score, ScoreError, Site};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Uniform in [0, 1), drawn from the seed of the site: what every other score has to beat.
pub(super) struct Random;

impl Score for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn about(&self) -> &'static str {
        "a number drawn from the seed; the baseline that shows what a score is worth"
    }

    fn units(&self, site: &Site<'_>, width: usize, _keep: usize) -> Result<Vec<f64>, ScoreError> {
        Ok(draw(site.seed, 0, site.units(width)?))
    }

    fn pairs(&self, site: &PairSite<'_>) -> Vec<f64> {
        draw(site.seed, 1, site.keys.len())
    }
}

/// Units and pairs draw from streams of their own.
fn draw(seed: u64, stream: u64, len: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    (0..len).map(|_| rng.random()).collect()
}
