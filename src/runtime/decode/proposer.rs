//! What may come next, offered before the model is asked.
use super::pace::Pace;
use crate::forward::ForwardError;
use serde::Serialize;
use std::time::Instant;

/// Offers tokens that a model may write next. The text does not depend on them, its speed does.
pub trait Proposer {
    /// Sees a prompt before the first offer behind it.
    fn begin(&mut self, _text: &[u32]) -> Result<(), ForwardError> {
        Ok(())
    }

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
    pace: Option<Pace>,
    /// Seconds that the last offer took.
    offering: f64,
    counts: Counts,
}

impl<'a> Speculation<'a> {
    /// Offers `most` tokens a pass, as far as the proposer has them.
    pub fn new(proposer: impl Proposer + 'a, most: usize) -> Self {
        let proposer = Box::new(proposer);
        Self { proposer, most, pace: None, offering: 0.0, counts: Counts::default() }
    }

    /// Offers as many as have paid lately by the clock, and none where none do.
    pub fn paced(self) -> Self {
        Self { pace: Some(Pace::new(self.most)), ..self }
    }

    /// What came of the offers since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Sees a prompt.
    pub(super) fn begin(&mut self, text: &[u32]) -> Result<(), ForwardError> {
        if let Some(pace) = &mut self.pace {
            pace.begin();
        }
        self.proposer.begin(text)
    }

    /// Tokens to verify behind `text`, at most `room`.
    pub(super) fn offer(&mut self, text: &[u32], room: usize) -> Result<Vec<u32>, ForwardError> {
        self.offering = 0.0;
        let room = self.most.min(room);
        let most = self.pace.as_ref().map_or(room, |pace| pace.choose(room));
        if most == 0 {
            return Ok(Vec::new());
        }
        let began = Instant::now();
        let mut offered = self.proposer.offer(text, most)?;
        offered.truncate(most);
        self.offering = began.elapsed().as_secs_f64();
        Ok(offered)
    }

    /// What came of an offer in a pass of so many seconds.
    pub(super) fn learn(&mut self, offered: usize, accepted: usize, seconds: f64) {
        self.counts.passes += 1;
        self.counts.offered += offered;
        self.counts.accepted += accepted;
        if let Some(pace) = &mut self.pace {
            pace.learn(offered, accepted, (self.offering, seconds));
        }
    }
}
