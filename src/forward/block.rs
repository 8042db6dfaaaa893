//! One decoder block.
use super::{
    attention::Attention,
    kv_cache::KvCache,
    linear::Backend,
    mlp::FeedForward,
    projection::{Loader, each_row},
    rotary::Rotary,
    scratch::Scratch,
};
use crate::linalg::{Team, add_assign, rms_norm};
use crate::model::{Model, Role, WeightError};
use ndarray::ArrayViewMut2;

/// The weights of a block, ready to run: `x ← x + attention(norm(x)); x ← x + mlp(norm(x))`.
pub struct BlockWeights {
    attention_gain: Vec<f32>,
    attention: Attention,
    mlp_gain: Vec<f32>,
    mlp: FeedForward,
    eps: f32,
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
        })
    }

    /// Runs the block over the residual stream `x`, `[tokens, hidden]`, in place.
    pub fn forward(
        &self,
        mut x: ArrayViewMut2<'_, f32>,
        place: (&mut KvCache, &Rotary),
        team: &Team,
        scratch: &mut Scratch,
    ) {
        let (tokens, hidden) = x.dim();
        let norm = |x: &ArrayViewMut2<'_, f32>, y: ArrayViewMut2<'_, f32>, gain: &[f32]| {
            each_row(y, team, |t, y| {
                rms_norm(x.row(t).to_slice().expect("rows are contiguous"), gain, self.eps, y);
            });
        };
        let add = |x: &mut ArrayViewMut2<'_, f32>, y: ArrayViewMut2<'_, f32>| {
            each_row(x.view_mut(), team, |t, x| {
                add_assign(x, y.row(t).to_slice().expect("rows are contiguous"), 1.0);
            });
        };
        let mut normed = std::mem::take(&mut scratch.norm);
        let mut out = std::mem::take(&mut scratch.out);

        norm(&x, normed.take(tokens, hidden), &self.attention_gain);
        let y = out.take(tokens, hidden);
        self.attention.forward(normed.take(tokens, hidden).view(), y, place, (team, scratch));
        add(&mut x, out.take(tokens, hidden));

        norm(&x, normed.take(tokens, hidden), &self.mlp_gain);
        let y = out.take(tokens, hidden);
        self.mlp.forward(normed.take(tokens, hidden).view(), y, team, &mut scratch.gate_up);
        add(&mut x, out.take(tokens, hidden));

        (scratch.norm, scratch.out) = (normed, out);
    }
}
