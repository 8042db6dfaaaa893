//! Mixtures of experts.
use super::{
    TrainError,
    gate::Gate,
    linear::Linear,
    parameters::{Loader, Parameters},
};
use crate::{
    forward::route,
    linalg::Team,
    model::{Activation, Expert, Mlp, Role},
};
use ndarray::{Array2, ArrayView2, Axis};

/// Experts that a router chooses per token. Which ones it chooses has no gradient, how much of each has.
#[derive(Clone, Debug)]
pub(super) struct Experts {
    router: Linear,
    routed: Vec<Gated>,
    /// The shared expert and its gate.
    shared: Option<(Gated, Linear)>,
    per_token: usize,
    normalize: bool,
}

/// One expert.
#[derive(Clone, Debug)]
struct Gated {
    gate: Gate,
    down: Linear,
}

/// What an expert made of its input.
struct Made {
    both: Array2<f32>,
    hidden: Array2<f32>,
    output: Array2<f32>,
}

impl Gated {
    fn load(
        loader: &mut Loader<'_>,
        expert: Expert,
        activation: Activation,
    ) -> Result<Self, TrainError> {
        loader.expert = Some(expert);
        let gate = Gate::load(loader, activation)?;
        let down = loader.linear(Role::Down)?;
        loader.expert = None;
        Ok(Self { gate, down })
    }

    fn forward(&self, x: ArrayView2<'_, f32>, parameters: &Parameters, team: &Team) -> Made {
        let (both, hidden) = self.gate.forward(x, parameters, team);
        let output = self.down.of(hidden.view(), parameters, team);
        Made { both, hidden, output }
    }

    fn backward(
        &self,
        (x, made): (ArrayView2<'_, f32>, Made),
        dy: &Array2<f32>,
        parameters: &mut Parameters,
        team: &Team,
    ) -> Array2<f32> {
        let mut dhidden = Array2::zeros(made.hidden.dim());
        let hidden = made.hidden.view();
        self.down.backward(hidden, dy.view(), dhidden.view_mut(), parameters, team);
        self.gate.backward((x, made.both), &dhidden, parameters, team)
    }
}

impl Experts {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        mlp: &Mlp,
        activation: Activation,
    ) -> Result<Option<Self>, TrainError> {
        let Mlp::Experts { count, per_token, shared, normalize, .. } = *mlp else {
            return Ok(None);
        };
        let routed = (0..count).map(|e| Gated::load(loader, Expert::Routed(e), activation));
        let routed = routed.collect::<Result<_, _>>()?;
        let shared = match shared {
            Some(_) => {
                let expert = Gated::load(loader, Expert::Shared, activation)?;
                Some((expert, loader.linear(Role::SharedGate)?))
            }
            None => None,
        };
        let router = loader.linear(Role::Router)?;
        Ok(Some(Self { router, routed, shared, per_token, normalize }))
    }

    /// Of `x`, `[tokens, hidden]`.
    pub(super) fn forward(
        &self,
        x: ArrayView2<'_, f32>,
        parameters: &Parameters,
        team: &Team,
    ) -> Array2<f32> {
        let mut y = Array2::zeros(x.dim());
        let mut scores = self.router.of(x, parameters, team);
        for (expert, tokens) in self.chosen(&mut scores).filter(|it| !it.1.is_empty()) {
            let made = expert.forward(input(x, &tokens).view(), parameters, team);
            for ((t, weight), output) in tokens.iter().zip(made.output.outer_iter()) {
                y.row_mut(*t).scaled_add(*weight, &output);
            }
        }
        if let Some((expert, gate)) = &self.shared {
            let open = gate.of(x, parameters, team).mapv(sigmoid);
            y += &(expert.forward(x, parameters, team).output * open);
        }
        y
    }

    /// By what [`Self::forward`] was given.
    pub(super) fn backward(
        &self,
        x: ArrayView2<'_, f32>,
        dy: &Array2<f32>,
        parameters: &mut Parameters,
        team: &Team,
    ) -> Array2<f32> {
        let mut dx = Array2::zeros(x.dim());
        let mut scores = self.router.of(x, parameters, team);
        // The gradients by the weights of the experts that a token has, 0 for all others.
        let mut dweights = Array2::zeros(scores.dim());
        let chosen: Vec<_> = self.chosen(&mut scores).collect();
        for (e, (expert, tokens)) in chosen.iter().enumerate().filter(|it| !it.1.1.is_empty()) {
            let x = input(x, tokens);
            let made = expert.forward(x.view(), parameters, team);
            let mut dy = input(dy.view(), tokens);
            for (i, (t, weight)) in tokens.iter().enumerate() {
                let mut dy = dy.row_mut(i);
                dweights[(*t, e)] = dy.dot(&made.output.row(i));
                dy *= *weight;
            }
            let back = expert.backward((x.view(), made), &dy, parameters, team);
            for ((t, _), back) in tokens.iter().zip(back.outer_iter()) {
                dx.row_mut(*t).scaled_add(1.0, &back);
            }
        }
        let weights = chosen.iter().map(|(_, tokens)| tokens.as_slice());
        let dscores = self.turned_back(&scores, dweights, weights);
        self.router.backward(x, dscores.view(), dx.view_mut(), parameters, team);
        if let Some((expert, gate)) = &self.shared {
            let open = gate.of(x, parameters, team).mapv(sigmoid);
            let made = expert.forward(x, parameters, team);
            let mut dopen = (&made.output * dy).sum_axis(Axis(1)).insert_axis(Axis(1));
            dopen.zip_mut_with(&open, |d, open| *d *= open * (1.0 - open));
            gate.backward(x, dopen.view(), dx.view_mut(), parameters, team);
            dx += &expert.backward((x, made), &(dy * &open), parameters, team);
        }
        dx
    }

    /// The experts with their tokens and the weights there; scores become probabilities.
    fn chosen<'a>(
        &'a self,
        scores: &mut Array2<f32>,
    ) -> impl Iterator<Item = (&'a Gated, Vec<(usize, f32)>)> + use<'a> {
        self.routed.iter().zip(route(scores.view_mut(), self.per_token, self.normalize))
    }

    /// Of the gradients by the weights those by the scores: through the weights' common sum, where they have
    /// one, and through the softmax.
    fn turned_back<'a>(
        &self,
        probabilities: &Array2<f32>,
        mut dweights: Array2<f32>,
        weights: impl Iterator<Item = &'a [(usize, f32)]>,
    ) -> Array2<f32> {
        if self.normalize {
            let mut own = Array2::zeros(dweights.dim());
            for (e, tokens) in weights.enumerate() {
                for (t, weight) in tokens {
                    own[(*t, e)] = *weight;
                }
            }
            for (t, mut dw) in dweights.outer_iter_mut().enumerate() {
                let (own, p) = (own.row(t), probabilities.row(t));
                let mean = dw.dot(&own);
                let sum: f32 = p.iter().zip(&own).filter(|it| *it.1 > 0.0).map(|it| it.0).sum();
                dw.zip_mut_with(&own, |d, own| {
                    *d = if *own > 0.0 { (*d - mean) / sum } else { 0.0 }
                });
            }
        }
        for (mut d, p) in dweights.outer_iter_mut().zip(probabilities.outer_iter()) {
            let mean = d.dot(&p);
            d.zip_mut_with(&p, |d, p| *d = p * (*d - mean));
        }
        dweights
    }
}

/// The rows of some tokens.
fn input(x: ArrayView2<'_, f32>, tokens: &[(usize, f32)]) -> Array2<f32> {
    let rows: Vec<usize> = tokens.iter().map(|(t, _)| *t).collect();
    x.select(Axis(0), &rows)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
