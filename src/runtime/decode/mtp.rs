//! A layer for multi-token prediction that the model carries, asked again and again: its own output
//! stands for the state of the token that it has guessed. Gloeckle et al. 2024, arXiv 2404.19737;
//! applied to itself as in `FastMTP`.
use super::proposer::Proposer;
use crate::{
    forward::{Backend, Embedding, ForwardError, Head, KvCache, NextLayer, Rows, Scratch},
    linalg::{Team, largest},
    model,
    runtime::{
        engine::{BATCH, Engine},
        states::{States, Wanted},
    },
};
use ndarray::{Array2, ArrayView2, Axis, s};
use std::sync::Arc;

/// A layer that reads along: a row for each token whose state and whose next token are known.
pub struct Mtp<'a> {
    layer: Arc<NextLayer>,
    ends: (Arc<Embedding>, Arc<Head>),
    team: &'a Team,
    scratch: Scratch,
    cache: KvCache,
    /// The place of the first row in the cache: 0, unless the model knew a part of the prompt before.
    first: usize,
    /// States of rows behind those in the cache.
    unread: States,
}

impl<'a> Mtp<'a> {
    /// For the model of an engine, whose layer it is.
    pub fn new(
        layer: &model::NextLayer,
        engine: &Engine<'a>,
        backend: &dyn Backend,
    ) -> Result<Self, ForwardError> {
        let layer = NextLayer::load(layer, backend)?;
        let (cache, ends) = (layer.cache(), (engine.embedding(), engine.head()));
        let (scratch, unread) = (Scratch::default(), States::default());
        let (layer, team) = (layer.into(), engine.team());
        Ok(Self { layer, ends, team, scratch, cache, first: 0, unread })
    }

    /// For one more text, with the same weights.
    pub fn another(&self) -> Self {
        let (layer, ends) = (Arc::clone(&self.layer), self.ends.clone());
        let (scratch, unread) = (Scratch::default(), States::default());
        let cache = layer.cache();
        Self { layer, ends, team: self.team, scratch, cache, first: 0, unread }
    }

    /// Reads rows from the place `first` on, of states and of the tokens that follow theirs; gives what
    /// the head is to multiply for the last.
    fn read(
        &mut self,
        (first, states): (usize, ArrayView2<'_, f32>),
        next: &[u32],
    ) -> Result<Array2<f32>, ForwardError> {
        let embeddings = self.ends.0.rows(next)?;
        let by = (self.team, &mut self.scratch);
        let made = self.layer.forward((first, states), embeddings.view(), &mut self.cache, by);
        Ok(made.slice(s![made.nrows() - 1.., ..]).to_owned())
    }

    /// Reads what is known of a text; gives what the head is to multiply for its end.
    fn follow(&mut self, text: &[u32]) -> Result<Option<Array2<f32>>, ForwardError> {
        // The last token has not been read: the state before it is the last there is.
        if self.unread.is_empty() || self.unread.end() + 1 != text.len() {
            return Ok(None);
        }
        let unread = std::mem::take(&mut self.unread);
        let (mut first, mut last) = (unread.first(), None);
        for states in unread.rows().axis_chunks_iter(Axis(0), BATCH) {
            let end = first + states.nrows();
            last = Some(self.read((first, states), &text[first + 1..=end])?);
            first = end;
        }
        Ok(last)
    }
}

impl Proposer for Mtp<'_> {
    fn wants(&self) -> Wanted {
        Wanted::All
    }

    fn see(&mut self, states: States) {
        self.cache.truncate(states.first().saturating_sub(self.first));
        self.unread.push(states.first(), states.rows());
        if self.first + self.cache.len() != self.unread.first() {
            self.cache.truncate(0);
            self.first = self.unread.first();
        }
    }

    fn offer(&mut self, text: &[u32], most: usize) -> Result<Vec<u32>, ForwardError> {
        let mut offered = Vec::new();
        let Some(mut state) = self.follow(text)? else { return Ok(offered) };
        let known = self.cache.len();
        loop {
            let logits = self.ends.1.read(state.view(), (self.team, Rows::Apart));
            let Some(id) = largest(logits.iter().copied()) else { break };
            offered.push(id);
            if offered.len() >= most {
                break;
            }
            let place = self.first + self.cache.len();
            state = self.read((place, state.view()), &[id])?;
        }
        self.cache.truncate(known);
        Ok(offered)
    }
}
