//! A loaded model with a memory of the tokens it has seen.
use crate::forward::{
    Backend, BlockWeights, Branch, Embedding, ForwardError, Head, KvCache, RotaryCache, Scratch,
};
use crate::linalg::Team;
use crate::model::{Model, ModelSpec};
use crate::progress::{Progress, Unit};
use ndarray::{Array2, Axis};

/// Tokens of a prompt that pass through a block at a time.
const BATCH: usize = 512;

/// All blocks of a model in memory, and the keys and values of one sequence.
pub struct Engine<'a> {
    embedding: Embedding,
    blocks: Vec<BlockWeights>,
    head: Head,
    caches: Vec<KvCache>,
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
        Ok(Self {
            embedding: Embedding::load(model)?,
            blocks,
            head: Head::load(model, backend)?,
            caches,
            spec: model.spec.clone(),
            scratch: Scratch::default(),
            logits: Vec::new(),
            team,
        })
    }

    /// Tokens seen so far.
    pub fn len(&self) -> usize {
        self.caches.first().map_or(0, KvCache::len)
    }

    /// Whether no token has been seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions that the model was made for.
    pub fn max_positions(&self) -> usize {
        self.spec.rope.max_positions
    }

    /// Forgets all tokens but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        for cache in &mut self.caches {
            cache.truncate(len);
        }
    }

    /// Reads tokens after those seen; returns the logits `[vocab]` of what follows the last.
    pub fn feed(&mut self, ids: &[u32]) -> Result<&[f32], ForwardError> {
        let end = self.len() + ids.len();
        for batch in ids.chunks(BATCH) {
            let mut x = self.embedding.rows(batch)?;
            let start = self.len();
            let mut tables = RotaryCache::default();
            for (b, (block, cache)) in self.blocks.iter().zip(&mut self.caches).enumerate() {
                let rotary = tables.get(&self.spec, b, start..start + batch.len(), end);
                block.forward(x.view_mut(), (cache, rotary), self.team, &mut self.scratch);
            }
            if self.len() == end {
                let last = x.slice(ndarray::s![x.nrows() - 1.., ..]);
                self.logits = self.head.logits(last, self.team).into_raw_vec_and_offset().0;
            }
        }
        if ids.is_empty() { Err(ForwardError::NoTokens) } else { Ok(&self.logits) }
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
        for (b, (block, cache)) in self.blocks.iter().zip(&mut self.caches).enumerate() {
            let rotary = tables.at(&self.spec, b, &positions, total);
            cache.plant(branches);
            block.forward(x.view_mut(), (cache, rotary), self.team, &mut self.scratch);
        }
        Ok(self.head.logits(x.select(Axis(0), wanted).view(), self.team))
    }
}
