//! What came of offers.
use serde::Serialize;

/// What came of offers, over all texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Passes over the model, those over prompts left out; one that reads several texts counts for each.
    pub passes: usize,
    /// Tokens offered.
    pub offered: usize,
    /// Offered tokens that the model wrote.
    pub accepted: usize,
    /// The same by the place in an offer, from its first token on.
    pub by_position: Vec<Position>,
    /// Seconds of offering: in the draft, the heads, the search.
    pub proposer_seconds: f64,
    /// Seconds of the passes.
    pub target_seconds: f64,
}

/// Tokens at one place of offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Offered.
    pub offered: usize,
    /// Written by the model.
    pub accepted: usize,
}

impl Counts {
    /// Offered tokens that a pass saved the reading of; 0 before the first.
    pub fn accepted_per_pass(&self) -> f64 {
        self.accepted as f64 / self.passes.max(1) as f64
    }

    /// A text was offered tokens in a pass, the first of which were accepted.
    pub(super) fn text(&mut self, offered: usize, accepted: usize) {
        self.passes += 1;
        self.offered += offered;
        self.accepted += accepted;
        if self.by_position.len() < offered {
            self.by_position.resize(offered, Position::default());
        }
        for (at, position) in self.by_position[..offered].iter_mut().enumerate() {
            position.offered += 1;
            position.accepted += usize::from(at < accepted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_the_first_token_of_an_offer() {
        let mut counts = Counts::default();
        for (offered, accepted) in [(3, 2), (0, 0), (1, 1), (2, 0)] {
            counts.text(offered, accepted);
        }
        let of = |offered, accepted| Position { offered, accepted };
        assert_eq!(counts.by_position, [of(3, 2), of(2, 1), of(1, 0)]);
        assert_eq!((counts.passes, counts.offered, counts.accepted), (4, 6, 3));
        assert!((counts.accepted_per_pass() - 0.75).abs() < 1e-12);
    }
}
