//! One decoder block.
use super::{
    attention::Attention,
    grids::{PointGrids, Rounds},
    kv_cache::{KvCache, Memory},
    linear::{Backend, Rows},
    mlp::FeedForward,
    points::Point,
    projection::{Loader, each_row},
    rotary::Rotary,
    scratch::{Run, Scratch},
    tap::{NoTap, Tap},
};
use crate::linalg::{Team, add_assign, rms_norm};
use crate::model::{Model, Role, WeightError};
use ndarray::{Array2, ArrayView2, ArrayViewMut2};

/// A half of a block: `x ← x + f(norm(x))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// f is attention.
    Attention,
    /// f is the feed-forward part.
    Mlp,
}

/// The weights of a block, ready to run: `x ← x + attention(norm(x)); x ← x + mlp(norm(x))`.
pub struct BlockWeights {
    attention_gain: Vec<f32>,
    attention: Attention,
    mlp_gain: Vec<f32>,
    mlp: FeedForward,
    eps: f32,
    /// Static grids of activations, if there are any.
    grids: Option<PointGrids>,
}

impl BlockWeights {
    /// Takes the weights of block `block` from a model.
    pub fn load(model: &Model, block: usize, backend: &dyn Backend) -> Result<Self, WeightError> {
        let loader = Loader { model, backend, block: Some(block), expert: None };
        let sizes = &model.spec.blocks[block];
        Ok(Self {
            attention_gain: loader.gain(Role::AttnNorm)?,
            attention: Attention::load(&loader, sizes)?,
            mlp_gain: loader.gain(Role::MlpNorm)?,
            mlp: FeedForward::load(loader, &sizes.mlp)?,
            eps: model.spec.norm_eps,
            grids: PointGrids::of_block(model, block),
        })
    }

    /// An empty cache for this block with room for `capacity` tokens; it grows when more come.
    pub fn cache(&self, capacity: usize) -> KvCache {
        self.attention.cache(capacity)
    }

    /// Runs the block over the residual stream `x`, `[tokens, hidden]`, in place.
    pub fn forward(
        &self,
        x: ArrayViewMut2<'_, f32>,
        (cache, rotary): (&mut KvCache, &Rotary),
        team: &Team,
        scratch: &mut Scratch,
    ) {
        self.go((x, Rows::Together), (Memory::One(cache), rotary), team, scratch);
    }

    /// Runs the block over tokens of several sequences, `x` `[tokens, hidden]`, in place: as
    /// [`Self::forward`] of one token after the other, bit for bit. Row `t` of `rotary` belongs to row
    /// `t` of `x`.
    pub fn step(
        &self,
        x: ArrayViewMut2<'_, f32>,
        (caches, rotary): (Vec<(&mut KvCache, usize)>, &Rotary),
        team: &Team,
        scratch: &mut Scratch,
    ) {
        self.go((x, Rows::Apart), (Memory::Each(caches), rotary), team, scratch);
    }

    fn go(
        &self,
        (mut x, rows): (ArrayViewMut2<'_, f32>, Rows),
        place: (Memory<'_>, &Rotary),
        team: &Team,
        scratch: &mut Scratch,
    ) {
        let (mut rounds, mut nothing) = (self.grids.as_ref().map(Rounds), NoTap);
        let tap: &mut dyn Tap = match &mut rounds {
            Some(rounds) => rounds,
            None => &mut nothing,
        };
        let mut run = Run { team, scratch, tap, rows };
        self.attend(x.view_mut(), place, &mut run);
        self.feed(x, &mut run);
    }

    /// What the first half's projections see of the stream `x`: `norm(x)`, `[tokens, hidden]`.
    pub fn attention_input(&self, x: ArrayView2<'_, f32>, team: &Team) -> Array2<f32> {
        self.normed(x, &self.attention_gain, team)
    }

    /// What the second half's projections see of the stream `x`: `norm(x)`, `[tokens, hidden]`.
    pub fn mlp_input(&self, x: ArrayView2<'_, f32>, team: &Team) -> Array2<f32> {
        self.normed(x, &self.mlp_gain, team)
    }

    fn normed(&self, x: ArrayView2<'_, f32>, gain: &[f32], team: &Team) -> Array2<f32> {
        let mut normed = Array2::zeros(x.dim());
        each_row(normed.view_mut(), team, |t, y| {
            rms_norm(x.row(t).to_slice().expect("rows are contiguous"), gain, self.eps, y);
        });
        normed
    }

    /// The first half: `x ← x + attention(norm(x))`, in place.
    pub fn attend(
        &self,
        x: ArrayViewMut2<'_, f32>,
        place: (Memory<'_>, &Rotary),
        run: &mut Run<'_>,
    ) {
        self.half(x, (&self.attention_gain, Point::AttentionNorm), run, |x, y, run| {
            self.attention.forward(x, y, place, run);
        });
    }

    /// The second half: `x ← x + mlp(norm(x))`, in place.
    pub fn feed(&self, mut x: ArrayViewMut2<'_, f32>, run: &mut Run<'_>) {
        let norm = (self.mlp_gain.as_slice(), Point::MlpNorm);
        self.half(x.view_mut(), norm, run, |x, y, run| self.mlp.forward(x, y, run));
        run.tap.alter((Point::Block, None), x);
    }

    /// The input of the layer that ends a half, `[tokens, in]`, for the stream `x`; `None` of a
    /// mixture of experts, whose experts each have their own.
    pub(super) fn inner(
        &self,
        half: Half,
        x: ArrayView2<'_, f32>,
        place: (Memory<'_>, &Rotary),
        run: &mut Run<'_>,
    ) -> Option<Array2<f32>> {
        match (half, &self.mlp) {
            (Half::Attention, _) => {
                let normed = self.attention_input(x, run.team);
                let mut mixed = Array2::zeros((x.nrows(), self.attention.mixed_width()));
                self.attention.mix(normed.view(), mixed.view_mut(), place, run);
                Some(mixed)
            }
            (Half::Mlp, FeedForward::Dense(gated)) => {
                let normed = self.mlp_input(x, run.team);
                let mut buffer = std::mem::take(&mut run.scratch.gate_up);
                let hidden = gated.hide(normed.view(), &mut buffer, run).to_owned();
                run.scratch.gate_up = buffer;
                Some(hidden)
            }
            (Half::Mlp, FeedForward::Experts(_)) => None,
        }
    }

    /// Ends a half: adds to the stream `x` what its last layer makes of `inner`.
    pub(super) fn finish(
        &self,
        half: Half,
        inner: ArrayView2<'_, f32>,
        mut x: ArrayViewMut2<'_, f32>,
        run: &mut Run<'_>,
    ) {
        let mut y = Array2::zeros(x.dim());
        match (half, &self.mlp) {
            (Half::Attention, _) => self.attention.project(inner, y.view_mut(), run),
            (Half::Mlp, FeedForward::Dense(gated)) => gated.project(inner, y.view_mut(), run),
            (Half::Mlp, FeedForward::Experts(_)) => {}
        }
        x += &y;
    }

    /// `x ← x + f(norm(x))`.
    fn half(
        &self,
        mut x: ArrayViewMut2<'_, f32>,
        (gain, point): (&[f32], Point),
        run: &mut Run<'_>,
        f: impl FnOnce(ArrayView2<'_, f32>, ArrayViewMut2<'_, f32>, &mut Run<'_>),
    ) {
        let (tokens, hidden) = x.dim();
        let mut normed = std::mem::take(&mut run.scratch.norm);
        let mut out = std::mem::take(&mut run.scratch.out);
        each_row(normed.take(tokens, hidden), run.team, |t, y| {
            rms_norm(x.row(t).to_slice().expect("rows are contiguous"), gain, self.eps, y);
        });
        run.tap.alter((point, None), normed.take(tokens, hidden));
        f(normed.take(tokens, hidden).view(), out.take(tokens, hidden), run);
        let y = out.take(tokens, hidden);
        each_row(x.view_mut(), run.team, |t, x| {
            add_assign(x, y.row(t).to_slice().expect("rows are contiguous"), 1.0);
        });
        (run.scratch.norm, run.scratch.out) = (normed, out);
    }
}
