//! Runs one block, or half of one, over windows of any length.
use super::{
    block::BlockWeights,
    fault::Fault,
    kv_cache::Memory,
    linear::Rows,
    rotary::RotaryCache,
    scratch::{Run, Scratch},
    tap::{NoTap, Tap},
};
use crate::linalg::Team;
use crate::model::{Half, ModelSpec};
use ndarray::{Array2, ArrayView2, ArrayViewMut2};

/// Memory for running block `block` of models of one architecture.
pub struct Runner<'a> {
    spec: &'a ModelSpec,
    block: usize,
    team: &'a Team,
    scratch: Scratch,
    rotary: RotaryCache,
}

impl<'a> Runner<'a> {
    /// For block `block` of an architecture.
    pub fn new(spec: &'a ModelSpec, block: usize, team: &'a Team) -> Self {
        let (scratch, rotary) = (Scratch::default(), RotaryCache::default());
        Self { spec, block, team, scratch, rotary }
    }

    /// Finds nothing yet in the block that is run.
    pub fn fault(&self) -> Fault<'a> {
        Fault::new(self.spec, self.block)
    }

    /// The block that is run.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Carries a window's stream `x`, `[tokens, hidden]`, through a half.
    pub fn run(
        &mut self,
        half: Half,
        weights: &BlockWeights,
        x: ArrayViewMut2<'_, f32>,
        tap: &mut dyn Tap,
    ) {
        let tokens = x.nrows();
        let mut run =
            Run { team: self.team, scratch: &mut self.scratch, tap, rows: Rows::Together };
        match half {
            Half::Attention => {
                let rotary = self.rotary.get(self.spec, self.block, 0..tokens, tokens);
                let mut cache = weights.cache(tokens);
                weights.attend(x, (Memory::One(&mut cache), rotary), &mut run);
            }
            Half::Mlp => weights.feed(x, &mut run),
        }
    }

    /// The input of the layer that ends a half, `[tokens, in]`, for the stream `x`; `None` of a
    /// mixture of experts.
    pub fn inner(
        &mut self,
        half: Half,
        weights: &BlockWeights,
        x: ArrayView2<'_, f32>,
    ) -> Option<Array2<f32>> {
        let tokens = x.nrows();
        let mut run = Run {
            team: self.team,
            scratch: &mut self.scratch,
            tap: &mut NoTap,
            rows: Rows::Together,
        };
        let rotary = self.rotary.get(self.spec, self.block, 0..tokens, tokens);
        let mut cache = weights.cache(tokens);
        weights.inner(half, x, (Memory::One(&mut cache), rotary), &mut run)
    }

    /// Ends a half that [`inner`](Self::inner) began.
    pub fn finish(
        &mut self,
        half: Half,
        weights: &BlockWeights,
        inner: ArrayView2<'_, f32>,
        x: ArrayViewMut2<'_, f32>,
    ) {
        let mut run = Run {
            team: self.team,
            scratch: &mut self.scratch,
            tap: &mut NoTap,
            rows: Rows::Together,
        };
        weights.finish(half, inner, x, &mut run);
    }
}
