//! What may come next, offered before the model is asked.
use crate::forward::ForwardError;
use serde::Serialize;

/// Offers tokens that a model may write next. The text does not depend on them, its speed does.
pub trait Proposer {
    /// Up to `most` tokens that may follow `text`: the prompt and all that was written, at least one
    /// token. One text is offered to after the other; each grows from call to call.
    fn offer(&mut self, text: &[u32], most: usize) -> Result<Vec<u32>, ForwardError>;
}

/// What came of offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Passes over the model, those over prompts left out.
    pub passes: usize,
    /// Tokens offered.
    pub offered: usize,
    /// Offered tokens that the model wrote.
    pub accepted: usize,
}

impl Counts {
    /// Offered tokens that a pass saved the reading of; 0 before the first.
    pub fn accepted_per_pass(&self) -> f64 {
        self.accepted as f64 / self.passes.max(1) as f64
    }
}

/// A proposer at work on one text.
pub struct Speculation<'a> {
    proposer: Box<dyn Proposer + 'a>,
    most: usize,
    counts: Counts,
}

impl<'a> Speculation<'a> {
    /// Offers up to `most` tokens a pass.
    pub fn new(proposer: impl Proposer + 'a, most: usize) -> Self {
        Self { proposer: Box::new(proposer), most, counts: Counts::default() }
    }

    /// What came of the offers since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Tokens to verify behind `text`, at most `room`.
    pub(super) fn offer(&mut self, text: &[u32], room: usize) -> Result<Vec<u32>, ForwardError> {
        match self.most.min(room) {
            0 => Ok(Vec::new()),
            most => {
                let mut offered = self.proposer.offer(text, most)?;
                offered.truncate(most);
                Ok(offered)
            }
        }
    }

    /// What came of an offer.
    pub(super) fn learn(&mut self, offered: usize, accepted: usize) {
        self.counts.passes += 1;
        self.counts.offered += offered;
        self.counts.accepted += accepted;
    }
}
