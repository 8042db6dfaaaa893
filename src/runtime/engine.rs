//! A loaded model with a memory of the tokens it has seen.
use super::states::{Kept, States, Wanted};
use crate::forward::{
    Backend, BlockWeights, Branch, Embedding, ForwardError, Head, KvCache, RotaryCache, Rows,
    Scratch,
};
use crate::linalg::Team;
use crate::model::{Model, ModelSpec};
use crate::progress::{Progress, Unit};
use ndarray::{Array2, Axis, s};
use std::sync::Arc;

/// Tokens of a prompt that pass through a block at a time.
pub(super) const BATCH: usize = 512;

/// The keys and values of one text's tokens, block by block.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    caches: Vec<KvCache>,
    kept: Kept,
}

impl Sequence {
    /// Tokens seen.
    pub fn len(&self) -> usize {
        self.caches.first().map_or(0, KvCache::len)
    }

    /// Whether no token has been seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all tokens but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.caches.iter_mut().for_each(|cache| cache.truncate(len));
        self.kept.states.truncate(len);
    }

    /// Makes room for `tokens` tokens altogether.
    pub fn reserve(&mut self, tokens: usize) {
        self.caches.iter_mut().for_each(|cache| cache.reserve(tokens));
    }

    /// Takes over the first `len` tokens of another sequence of the same model.
    pub fn copy_from(&mut self, other: &Self, len: usize) {
        for (cache, other) in self.caches.iter_mut().zip(&other.caches) {
            cache.copy_from(other, len);
        }
        self.kept.states = States::default();
    }

    /// Keeps the states that are wanted of what is read from now on; none of before.
    pub fn keep_states(&mut self, wanted: Wanted) {
        self.kept = Kept { wanted, states: States::default() };
    }

    /// The states of what was read since the last call and not forgotten since.
    pub fn take_states(&mut self) -> States {
        std::mem::take(&mut self.kept.states)
    }

    /// Bytes that `tokens` tokens take.
    pub fn bytes_of(&self, tokens: usize) -> usize {
        self.caches.iter().map(|cache| cache.bytes_of(tokens)).sum()
    }
}

/// All blocks of a model in memory, and a sequence of its own.
pub struct Engine<'a> {
    embedding: Arc<Embedding>,
    blocks: Vec<BlockWeights>,
    head: Arc<Head>,
    own: Sequence,
    spec: ModelSpec,
    scratch: Scratch,
    logits: Vec<f32>,
    team: &'a Team,
}

impl<'a> Engine<'a> {
    /// Loads a model.
    pub fn load(
        model: &Model,
        backend: &dyn Backend,
        team: &'a Team,
        progress: &dyn Progress,
    ) -> Result<Self, ForwardError> {
        let count = model.spec.blocks.len();
        progress.start("load", count as u64, Unit::Items);
        let blocks: Vec<BlockWeights> = (0..count)
            .map(|b| {
                progress.advance(1);
                let block = BlockWeights::load(model, b, backend);
                model.release(b);
                block
            })
            .collect::<Result<_, _>>()?;
        progress.finish();
        let caches = blocks.iter().map(|block| block.cache(BATCH)).collect();
        let own = Sequence { caches, kept: Kept::default() };
        Ok(Self {
            embedding: Embedding::load(model)?.into(),
            blocks,
            head: Head::load(model, backend)?.into(),
            own,
            spec: model.spec.clone(),
            scratch: Scratch::default(),
            logits: Vec::new(),
            team,
        })
    }

    /// Tokens seen so far.
    pub fn len(&self) -> usize {
        self.own.len()
    }

    /// Whether no token has been seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions that the model was made for.
    pub fn max_positions(&self) -> usize {
        self.spec.rope.max_positions
    }

    /// Rows of the embedding: ids are below.
    pub fn vocab(&self) -> usize {
        self.spec.vocab
    }

    /// Threads that it works with.
    pub fn team(&self) -> &'a Team {
        self.team
    }

    /// The embedding, which others may use.
    pub fn embedding(&self) -> Arc<Embedding> {
        Arc::clone(&self.embedding)
    }

    /// The last norm and the head, which others may use.
    pub fn head(&self) -> Arc<Head> {
        Arc::clone(&self.head)
    }

    /// Forgets all tokens but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.own.truncate(len);
    }

    /// Bytes that the keys and values of a sequence of `tokens` tokens take.
    pub fn bytes_of(&self, tokens: usize) -> usize {
        self.own.bytes_of(tokens)
    }

    /// As [`Sequence::keep_states`], of the engine's own.
    pub fn keep_states(&mut self, wanted: Wanted) {
        self.own.keep_states(wanted);
    }

    /// As [`Sequence::take_states`], of the engine's own.
    pub fn take_states(&mut self) -> States {
        self.own.take_states()
    }

    /// An empty sequence beside the engine's own.
    pub fn sequence(&self) -> Sequence {
        let caches = self.blocks.iter().map(|block| block.cache(0)).collect();
        Sequence { caches, kept: Kept::default() }
    }

    /// Reads tokens after those seen; returns the logits `[vocab]` of what follows the last.
    pub fn feed(&mut self, ids: &[u32]) -> Result<&[f32], ForwardError> {
        let mut own = std::mem::take(&mut self.own);
        let fed = self.feed_to(&mut own, ids).map(|_| ());
        self.own = own;
        fed.map(|()| self.logits.as_slice())
    }

    /// As [`Self::feed`], of another sequence.
    pub fn feed_to(&mut self, to: &mut Sequence, ids: &[u32]) -> Result<&[f32], ForwardError> {
        let end = to.len() + ids.len();
        for batch in ids.chunks(BATCH) {
            let mut x = self.embedding.rows(batch)?;
            let start = to.len();
            let mut tables = RotaryCache::default();
            for (b, (block, cache)) in self.blocks.iter().zip(&mut to.caches).enumerate() {
                let rotary = tables.get(&self.spec, b, start..start + batch.len(), end);
                block.forward(x.view_mut(), (cache, rotary), self.team, &mut self.scratch);
            }
            to.kept.read((start, x.view()), |rows| self.head.normed(rows, self.team));
            if to.len() == end {
                let last = x.slice(s![x.nrows() - 1.., ..]);
                self.logits = self.head.logits(last, self.team).into_raw_vec_and_offset().0;
            }
        }
        if ids.is_empty() { Err(ForwardError::NoTokens) } else { Ok(&self.logits) }
    }

    /// Reads tokens of several sequences, `texts[i].1` behind those of `texts[i].0`; returns the logits
    /// `[tokens, vocab]` of what follows each. Every row is as [`Self::feed_to`] of one token after the
    /// other gives it, bit for bit; the weights are read once for all.
    pub fn step(
        &mut self,
        mut texts: Vec<(&mut Sequence, &[u32])>,
    ) -> Result<Array2<f32>, ForwardError> {
        let ids: Vec<u32> = texts.iter().flat_map(|(_, ids)| *ids).copied().collect();
        let mut x = self.embedding.rows(&ids)?;
        let places = |(text, ids): &(&mut Sequence, &[u32])| text.len()..text.len() + ids.len();
        let positions: Vec<usize> = texts.iter().flat_map(places).collect();
        let longest = positions.iter().max().ok_or(ForwardError::NoTokens)? + 1;
        if self.depends_on_length() {
            // Each length turns its positions in its own way.
            let mut all = Vec::new();
            for (sequence, ids) in texts {
                for id in ids.chunks(1) {
                    all.extend_from_slice(self.feed_to(sequence, id)?);
                }
            }
            let shape = (ids.len(), all.len() / ids.len());
            return Ok(Array2::from_shape_vec(shape, all).expect("rows of one vocabulary"));
        }
        let mut tables = RotaryCache::default();
        for (b, block) in self.blocks.iter().enumerate() {
            let rotary = tables.at(&self.spec, b, &positions, longest);
            let caches = texts.iter_mut().map(|(it, ids)| (&mut it.caches[b], ids.len())).collect();
            block.step(x.view_mut(), (caches, rotary), self.team, &mut self.scratch);
        }
        let by = (self.team, Rows::Apart);
        let normed = self.head.normed_by(x.view(), by);
        let mut first = 0;
        for (text, ids) in texts {
            let rows = normed.slice(s![first..first + ids.len(), ..]);
            text.kept.verified(text.len() - ids.len(), rows);
            first += ids.len();
        }
        Ok(self.head.read(normed.view(), by))
    }

    /// As [`Self::step`], of the engine's own sequence.
    pub fn verify(&mut self, ids: &[u32]) -> Result<Array2<f32>, ForwardError> {
        if ids.len() == 1 {
            // A row that is alone needs nothing to keep it apart.
            self.feed(ids)?;
            let logits = std::mem::take(&mut self.logits);
            let shape = (1, logits.len());
            return Ok(Array2::from_shape_vec(shape, logits).expect("a row of one vocabulary"));
        }
        let mut own = std::mem::take(&mut self.own);
        let read = self.step(vec![(&mut own, ids)]);
        self.own = own;
        read
    }

    /// Whether logits of a text depend on how long the text becomes.
    pub fn depends_on_length(&self) -> bool {
        self.spec.rope.depends_on_length()
    }

    /// Reads branches of a tree after the tokens seen: row `i` of the run is `tokens[i]`, an id
    /// and its position. Returns the logits `[wanted, vocab]` after the rows `wanted`. The tokens
    /// count as seen, but only branches can follow them: [`Self::truncate`] to those before.
    pub fn feed_branches(
        &mut self,
        tokens: &[(u32, usize)],
        branches: &[Branch],
        wanted: &[usize],
    ) -> Result<Array2<f32>, ForwardError> {
        let (ids, positions): (Vec<u32>, Vec<usize>) = tokens.iter().copied().unzip();
        let total = positions.iter().max().ok_or(ForwardError::NoTokens)? + 1;
        let mut x = self.embedding.rows(&ids)?;
        let mut tables = RotaryCache::default();
        for (b, (block, cache)) in self.blocks.iter().zip(&mut self.own.caches).enumerate() {
            let rotary = tables.at(&self.spec, b, &positions, total);
            cache.plant(branches);
            block.forward(x.view_mut(), (cache, rotary), self.team, &mut self.scratch);
        }
        Ok(self.head.logits(x.select(Axis(0), wanted).view(), self.team))
    }
}
