//! A layer for multi-token prediction: what the head makes of it is the token behind the next one.
use super::{
    block::BlockWeights,
    kv_cache::KvCache,
    linear::{Backend, Rows},
    projection::{Norm, Projection},
    rotary::Rotary,
    scratch::Scratch,
};
use crate::linalg::Team;
use crate::model::{self, ModelSpec, WeightError};
use ndarray::{Array2, ArrayView2, s};

/// The weights of a layer for multi-token prediction.
pub struct NextLayer {
    state_norm: Norm,
    token_norm: Norm,
    input: Projection,
    block: BlockWeights,
    last_norm: Norm,
    spec: ModelSpec,
}

impl NextLayer {
    /// Takes the weights of a layer.
    pub fn load(layer: &model::NextLayer, backend: &dyn Backend) -> Result<Self, WeightError> {
        let norm = |name: &str| Norm::named(&layer.model, name);
        Ok(Self {
            state_norm: norm(&layer.state_norm)?,
            token_norm: norm(&layer.token_norm)?,
            input: Projection::new(backend.linear(vec![layer.model.weights.get(&layer.input)?])),
            block: BlockWeights::load(&layer.model, 0, backend)?,
            last_norm: norm(&layer.last_norm)?,
            spec: layer.model.spec.clone(),
        })
    }

    /// An empty cache.
    pub fn cache(&self) -> KvCache {
        self.block.cache(0)
    }

    /// Reads rows at `first` and the places behind it: the states of the tokens there (what the head
    /// multiplies) and the embeddings of the tokens one place on, both `[rows, hidden]`; at place 0 no
    /// embedding is seen. Gives what the head is to multiply, `[rows, hidden]`.
    pub fn forward(
        &self,
        (first, states): (usize, ArrayView2<'_, f32>),
        embeddings: ArrayView2<'_, f32>,
        cache: &mut KvCache,
        (team, scratch): (&Team, &mut Scratch),
    ) -> Array2<f32> {
        let (rows, hidden) = states.dim();
        let mut both = Array2::zeros((rows, 2 * hidden));
        self.state_norm.rows(states, both.slice_mut(s![.., ..hidden]), team);
        self.token_norm.rows(embeddings, both.slice_mut(s![.., hidden..]), team);
        if first == 0 {
            both.slice_mut(s![..1, hidden..]).fill(0.0);
        }
        let mut x = Array2::zeros((rows, hidden));
        self.input.forward(both.view(), x.view_mut(), (team, Rows::Together));
        let end = first + rows;
        let rotary = Rotary::new(&self.spec, 0, first..end, end);
        self.block.forward(x.view_mut(), (cache, &rotary), team, scratch);
        let mut normed = Array2::zeros(x.dim());
        self.last_norm.rows(x.view(), normed.view_mut(), team);
        normed
    }
}
