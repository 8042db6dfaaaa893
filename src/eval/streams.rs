//! Logits from residual streams that another pass has computed.
use super::{EvalError, LogitSource, Rows, Window};
use crate::{calibrate::HiddenStates, forward::Head, linalg::Team};
use ndarray::s;
use std::ops::Range;

/// The head of a model over streams behind its last block.
pub struct StreamSource<'a> {
    head: &'a Head,
    vocab: usize,
    states: &'a HiddenStates,
    first: usize,
    team: &'a Team,
}

impl<'a> StreamSource<'a> {
    /// Of the windows of `states` from `first` on; the head gives `vocab` logits.
    pub fn new(
        (head, vocab): (&'a Head, usize),
        states: &'a HiddenStates,
        first: usize,
        team: &'a Team,
    ) -> Self {
        Self { head, vocab, states, first, team }
    }
}

impl LogitSource for StreamSource<'_> {
    fn vocab(&self) -> usize {
        self.vocab
    }

    fn bytes_per_token(&self) -> usize {
        0
    }

    fn prepare(&mut self, _: usize, _: &[Window]) -> Result<(), EvalError> {
        Ok(())
    }

    fn rows(&mut self, window: usize, positions: Range<usize>) -> Result<Rows, EvalError> {
        let stream = self.states.load(self.first + window);
        let logits = self.head.logits(stream.slice(s![positions, ..]), self.team);
        Ok(Rows { logits, exact: None })
    }
}
