//! Proposers at work, and how much they are asked for.
use super::{control::Control, proposer::Proposer, report::Counts};
use crate::{forward::ForwardError, runtime::states::Wanted};

/// A proposer at work on one text after the other.
pub struct Speculation<'a> {
    pub(super) proposer: Box<dyn Proposer + 'a>,
    pub(super) control: Control,
}

impl<'a> Speculation<'a> {
    /// Offers `most` tokens a pass, as far as the proposer has them.
    pub fn new(proposer: impl Proposer + 'a, most: usize) -> Self {
        Self { proposer: Box::new(proposer), control: Control::new(most) }
    }

    /// Offers as many as have paid lately by the clock, and none where none do.
    pub fn paced(self) -> Self {
        Self { control: self.control.paced(), ..self }
    }

    /// What came of the offers since the last call.
    pub fn take_counts(&mut self) -> Counts {
        self.control.take_counts()
    }

    /// The states to keep for it.
    pub(super) fn wants(&self) -> Wanted {
        self.control.wants(&*self.proposer)
    }

    /// Sees a prompt.
    pub(super) fn begin(&mut self, text: &[u32]) -> Result<(), ForwardError> {
        self.control.begin();
        self.proposer.begin(text)
    }
}

/// Makes a proposer for each of several texts that are written together.
pub struct Offers<'a> {
    make: Box<dyn FnMut() -> Box<dyn Proposer + 'a> + 'a>,
    pub(super) control: Control,
}

impl<'a> Offers<'a> {
    /// Offers `most` tokens a pass to each text, as far as its proposer has them.
    pub fn new(make: impl FnMut() -> Box<dyn Proposer + 'a> + 'a, most: usize) -> Self {
        Self { make: Box::new(make), control: Control::new(most) }
    }

    /// As [`Speculation::paced`], for all texts together.
    pub fn paced(self) -> Self {
        Self { control: self.control.paced(), ..self }
    }

    /// What came of the offers since the last call, of all texts.
    pub fn take_counts(&mut self) -> Counts {
        self.control.take_counts()
    }

    /// For one text after the other.
    pub fn alone(mut self) -> Speculation<'a> {
        Speculation { proposer: self.proposer(), control: self.control }
    }

    /// For one more text.
    pub(super) fn proposer(&mut self) -> Box<dyn Proposer + 'a> {
        (self.make)()
    }
}
