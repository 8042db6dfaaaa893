//! Where logits come from.
use super::{EvalError, Window, metric::Rows};
use crate::{
    forward::{Backend, ForwardError, Head, walk},
    linalg::Team,
    model::Model,
    progress::Progress,
};
use ndarray::{Array2, s};
use std::ops::Range;

/// Gives the logits of windows: a model that is run, or a stored reference.
pub trait LogitSource {
    /// Size of the vocabulary.
    fn vocab(&self) -> usize;

    /// Bytes that a token of a prepared window takes until the next ones are prepared: none of
    /// stored logits.
    fn bytes_per_token(&self) -> usize {
        0
    }

    /// Gets ready to give the logits of these windows; `first` is the index of the first of them.
    /// Stored logits are ready.
    fn prepare(&mut self, _first: usize, _windows: &[Window]) -> Result<(), EvalError> {
        Ok(())
    }

    /// The logits after the given positions of a prepared window: row i predicts the token at
    /// `positions.start + i + 1`.
    fn rows(&mut self, window: usize, positions: Range<usize>) -> Result<Rows, EvalError>;
}

/// Runs a model block by block over the prepared windows; keeps the last block's output, and
/// makes logits of it as they are asked for.
pub struct ModelSource<'a> {
    model: &'a Model,
    backend: &'a dyn Backend,
    team: &'a Team,
    progress: &'a dyn Progress,
    first: usize,
    streams: Vec<Array2<f32>>,
    head: Option<Head>,
}

impl<'a> ModelSource<'a> {
    /// A source over an opened model.
    pub fn new(
        model: &'a Model,
        backend: &'a dyn Backend,
        team: &'a Team,
        progress: &'a dyn Progress,
    ) -> Self {
        Self { model, backend, team, progress, first: 0, streams: Vec::new(), head: None }
    }
}

impl LogitSource for ModelSource<'_> {
    fn vocab(&self) -> usize {
        self.model.spec.vocab
    }

    fn bytes_per_token(&self) -> usize {
        self.model.spec.hidden * size_of::<f32>()
    }

    fn prepare(&mut self, first: usize, windows: &[Window]) -> Result<(), EvalError> {
        // The streams of the windows before make room first.
        self.streams.clear();
        let ids: Vec<Vec<u32>> = windows.iter().map(|window| window.ids.clone()).collect();
        self.streams = walk(self.model, self.backend, &ids, self.team, self.progress)?;
        self.first = first;
        Ok(())
    }

    fn rows(&mut self, window: usize, positions: Range<usize>) -> Result<Rows, EvalError> {
        let stream = window.checked_sub(self.first).and_then(|at| self.streams.get(at));
        let stream = stream.ok_or(ForwardError::NoTokens)?;
        let head = match self.head.take() {
            Some(head) => head,
            None => Head::load(self.model, self.backend).map_err(ForwardError::from)?,
        };
        let logits = head.logits(stream.slice(s![positions, ..]), self.team);
        self.head = Some(head);
        Ok(Rows { logits, exact: None })
    }
}
