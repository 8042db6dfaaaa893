//! Statistics block by block, each block with the activations that the ones before gave.
use super::{BlockStatistics, CalibrateError, HiddenStates, Request, statistics::Collector};
use crate::{
    forward::{Backend, BlockWeights, ForwardError, KvCache, RotaryCache, Run, Scratch},
    linalg::Team,
    model::Model,
    progress::Progress,
};

/// Goes through a model over many windows; one block's weights are in memory at a time.
pub struct Walk<'a> {
    model: &'a Model,
    backend: &'a dyn Backend,
    team: &'a Team,
    progress: &'a dyn Progress,
    states: HiddenStates,
    block: usize,
}

impl<'a> Walk<'a> {
    /// Begins before the first block.
    pub fn new(
        model: &'a Model,
        backend: &'a dyn Backend,
        windows: &[Vec<u32>],
        (team, progress): (&'a Team, &'a dyn Progress),
    ) -> Result<Self, ForwardError> {
        let states = HiddenStates::embed(model, windows)?;
        Ok(Self { model, backend, team, progress, states, block: 0 })
    }

    /// Goes on before block `block`, with the streams that stood there.
    pub fn resume(
        model: &'a Model,
        backend: &'a dyn Backend,
        (block, states): (usize, HiddenStates),
        (team, progress): (&'a Team, &'a dyn Progress),
    ) -> Self {
        Self { model, backend, team, progress, states, block }
    }

    /// The streams before the next block.
    pub fn states(&self) -> &HiddenStates {
        &self.states
    }

    /// Runs the next block over all windows; what its layers saw. Progress counts tokens.
    pub fn observe(&mut self, request: &Request) -> Result<BlockStatistics, CalibrateError> {
        let (block, spec) = (self.block, &self.model.spec);
        let sizes = &spec.blocks[block];
        let weights = BlockWeights::load(self.model, block, self.backend)?;
        self.model.release(block);
        let mut collector = Collector::new(request, sizes, self.team);
        let (mut scratch, mut rotary) = (Scratch::default(), RotaryCache::default());
        for window in 0..self.states.len() {
            let before = self.states.load(window);
            let (mut x, tokens) = (before.clone(), before.nrows());
            let mut cache = KvCache::new(sizes.kv_heads, sizes.head_dim, tokens);
            let mut run = Run { team: self.team, scratch: &mut scratch, tap: &mut collector };
            let rotary = rotary.get(spec, block, 0..tokens, tokens);
            weights.attend(x.view_mut(), (&mut cache, rotary), &mut run);
            weights.feed(x.view_mut(), &mut run);
            if x.iter().any(|x| !x.is_finite()) {
                return Err(CalibrateError::NonFinite { block, window });
            }
            collector.streams(before.view(), x.view());
            self.states.store(window, x.view());
            self.progress.advance(tokens as u64);
        }
        self.block += 1;
        Ok(collector.finish())
    }
}
