//! Heads beside the model's own, each for a place further on. Cai et al. 2024, arXiv 2401.10774, as a chain.
use super::proposer::Proposer;
use crate::{
    forward::{Backend, ForwardError, Head, Linear, Rows},
    linalg::{Team, add_assign, largest},
    model::Weight,
    package::MedusaHeads,
    runtime::{
        engine::Engine,
        states::{States, Wanted},
    },
    tensor::RawTensor,
};
use ndarray::{Array2, Axis};
use std::sync::Arc;

/// Heads that guess from the state of the last row, each its best token.
#[derive(Clone)]
pub struct Medusa<'a> {
    weights: Arc<Weights>,
    state: States,
    team: &'a Team,
}

struct Weights {
    heads: Vec<Layers>,
    /// The model's own, for heads without a matrix.
    own: Arc<Head>,
    token_map: Option<Vec<u32>>,
}

/// A layer with its bias.
type Biased = (Box<dyn Linear>, Option<Vec<f32>>);

struct Layers {
    blocks: Vec<Biased>,
    matrix: Option<Box<dyn Linear>>,
}

impl<'a> Medusa<'a> {
    /// Of heads that fit the model of an engine.
    pub fn new(heads: MedusaHeads, engine: &Engine<'a>, backend: &dyn Backend) -> Self {
        let (own, team) = (engine.head(), engine.team());
        let linear = |weight: RawTensor| backend.linear(vec![Weight::Dense(weight)]);
        let block = |(weight, bias): (RawTensor, Option<RawTensor>)| {
            (linear(weight), bias.and_then(|it| it.to_f32()))
        };
        let MedusaHeads { heads, token_map } = heads;
        let heads = heads.into_iter().map(|head| Layers {
            blocks: head.layers.into_iter().map(block).collect(),
            matrix: head.matrix.map(linear),
        });
        let weights = Weights { heads: heads.collect(), own, token_map };
        Self { weights: weights.into(), state: States::default(), team }
    }

    /// Heads: tokens that are offered at most.
    pub fn heads(&self) -> usize {
        self.weights.heads.len()
    }
}

impl Weights {
    /// What the first `count` heads make of a state, `[count, hidden]`.
    fn hidden(&self, state: &[f32], count: usize, team: &Team) -> Array2<f32> {
        let mut all = Array2::zeros((count, state.len()));
        let mut sum = Array2::zeros((1, state.len()));
        for (head, mut x) in self.heads.iter().zip(all.axis_chunks_iter_mut(Axis(0), 1)) {
            x.iter_mut().zip(state).for_each(|(x, state)| *x = *state);
            for (linear, bias) in &head.blocks {
                linear.forward(x.view(), sum.view_mut(), team);
                if let (Some(bias), Some(sum)) = (bias, sum.as_slice_mut()) {
                    add_assign(sum, bias, 1.0);
                }
                x.zip_mut_with(&sum, |x, sum| *x += sum / (1.0 + (-sum).exp()));
            }
        }
        all
    }

    /// The best token of each row of `hidden`, `[heads, hidden]`, up to the first that has none. Heads
    /// that share the model's own matrix read it once.
    fn best(&self, hidden: &Array2<f32>, team: &Team) -> Vec<u32> {
        let by = (team, Rows::Apart);
        let without = self.heads.iter().take(hidden.nrows()).any(|it| it.matrix.is_none());
        let shared = without.then(|| self.own.read(hidden.view(), by));
        let rows = hidden.axis_chunks_iter(Axis(0), 1).enumerate();
        rows.map_while(|(at, x)| {
            let id = match &self.heads[at].matrix {
                Some(matrix) => {
                    let mut logits = Array2::zeros((1, matrix.out_features()));
                    matrix.forward(x, logits.view_mut(), team);
                    let row = largest(logits.iter().copied())?;
                    let map = self.token_map.as_ref().filter(|it| it.len() == logits.len());
                    map.map_or(row, |map| map[row as usize])
                }
                None => largest(shared.as_ref()?.row(at).iter().copied())?,
            };
            Some(id)
        })
        .collect()
    }
}

impl Proposer for Medusa<'_> {
    fn wants(&self) -> Wanted {
        Wanted::Last
    }

    fn see(&mut self, states: States) {
        self.state = states;
    }

    fn offer(&mut self, text: &[u32], most: usize) -> Result<Vec<u32>, ForwardError> {
        // The last token has not been read: the state before it has guessed it, and is asked for more.
        let current = self.state.end() + 1 == text.len();
        let Some(state) = self.state.last().filter(|_| current) else { return Ok(vec![]) };
        let hidden = self.weights.hidden(state, most.min(self.heads()), self.team);
        Ok(self.weights.best(&hidden, self.team))
    }
}
