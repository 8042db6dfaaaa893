//! How many tokens each text is offered, and what came of it.
use super::{pace::Pace, proposer::Proposer, report::Counts};
use crate::runtime::states::Wanted;

/// Of the texts that are read together.
pub(super) struct Control {
    most: usize,
    pace: Option<Pace>,
    counts: Counts,
}

impl Control {
    /// Up to `most` tokens a pass.
    pub(super) fn new(most: usize) -> Self {
        Self { most, pace: None, counts: Counts::default() }
    }

    /// As many as have paid lately.
    pub(super) fn paced(self) -> Self {
        Self { pace: Some(Pace::new(self.most)), ..self }
    }

    /// What came of offers since the last call.
    pub(super) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// The states to keep for a proposer.
    pub(super) fn wants(&self, proposer: &dyn Proposer) -> Wanted {
        if self.most == 0 { Wanted::Nothing } else { proposer.wants() }
    }

    /// A prompt is read before the next pass.
    pub(super) fn begin(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.begin();
        }
    }

    /// How many tokens to ask for, where `room` are of use.
    pub(super) fn choose(&self, room: usize) -> usize {
        let room = room.min(self.most);
        self.pace.as_ref().map_or(room, |pace| pace.choose(room))
    }

    /// What became of a pass: tokens offered to each text and those it accepted, seconds of offering
    /// and of reading.
    pub(super) fn learn(&mut self, texts: &[(usize, usize)], seconds: (f64, f64)) {
        for (offered, accepted) in texts {
            self.counts.text(*offered, *accepted);
        }
        self.counts.proposer_seconds += seconds.0;
        self.counts.target_seconds += seconds.1;
        if let Some(pace) = &mut self.pace {
            pace.learn(texts, seconds);
        }
    }
}
