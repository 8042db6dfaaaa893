//! Offers of a known share of right tokens, to measure what a proposer of that share would give.
use super::proposer::Proposer;
use crate::forward::ForwardError;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Knows the text that comes, and offers a token of it, or at once another one.
#[derive(Clone, Debug)]
pub struct Scripted {
    text: Vec<u32>,
    right: Vec<bool>,
}

impl Scripted {
    /// Of `text`, the prompt and what the model writes behind it: each token is offered with the
    /// probability `share`, else another one. Offers take no time.
    pub fn new(text: &[u32], share: f64, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let right = text.iter().map(|_| random.random::<f64>() < share).collect();
        Self { text: text.to_vec(), right }
    }
}

impl Proposer for Scripted {
    fn offer(&mut self, text: &[u32], most: usize) -> Result<Vec<u32>, ForwardError> {
        let coming = self.text.iter().zip(&self.right).skip(text.len()).take(most);
        // Another token, and one that every vocabulary has.
        let wrong = |id: u32| if id == 0 { 1 } else { id - 1 };
        Ok(coming.map(|(id, right)| if *right { *id } else { wrong(*id) }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_offers_is_right() {
        let text: Vec<u32> = (0..2000).map(|it| it % 7).collect();
        for share in [0.0, 0.7, 1.0] {
            let mut scripted = Scripted::new(&text, share, 3);
            let offered: Vec<u32> =
                (1..2000).flat_map(|at| scripted.offer(&text[..at], 1).unwrap()).collect();
            let right = offered.iter().zip(&text[1..]).filter(|(a, b)| a == b).count();
            // Four standard deviations of 2000 draws.
            let bound = 4.0 * (2000.0 * share * (1.0 - share)).sqrt();
            assert!((right as f64 - 1999.0 * share).abs() <= bound + 0.001, "{share}: {right}");
        }
        assert!(Scripted::new(&text, 1.0, 3).offer(&text, 4).unwrap().is_empty());
    }
}
