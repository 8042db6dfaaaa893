//! The end of a model that can learn: the last norm and the head.
use super::{
    TrainError,
    linear::Linear,
    loss::{Target, learn, loss},
    norm::Norm,
    parameters::{Learns, Loader, Parameters},
};
use crate::{
    linalg::Team,
    model::{Model, Role, Tensors},
};
use ndarray::Array2;

/// The last norm, which learns, and the head, which does not: it is the embedding where both are tied.
#[derive(Clone, Debug)]
pub struct Head {
    norm: Norm,
    /// What a rotated model with a tied head has in the place of the gain.
    correction: Option<Linear>,
    linear: Linear,
    /// The norm's gain, and the head's matrix.
    pub parameters: Parameters,
}

impl Head {
    /// Of a model.
    pub fn load(model: &Model, learns: Learns) -> Result<Self, TrainError> {
        let mut parameters = Parameters::default();
        let role = model.spec.head().map_or(Role::Head, |tensor| tensor.role);
        let parameters_mut = &mut parameters;
        let mut loader =
            Loader { model, block: None, expert: None, learns, parameters: parameters_mut };
        let norm = Norm::load(&mut loader, Role::FinalNorm)?;
        loader.learns = Learns::Nothing;
        let corrected = model.spec.has_head_correction();
        let correction = corrected.then(|| loader.linear(Role::HeadInput)).transpose()?;
        let linear = loader.linear(role)?;
        Ok(Self { norm, correction, linear, parameters })
    }

    /// The sum of the losses of streams `[tokens, hidden]` and its gradient by them, times `scale`; the sum of
    /// the norm's gradients grows.
    pub fn learn(
        &mut self,
        x: &Array2<f32>,
        (target, scale): (&dyn Target, f32),
        team: &Team,
    ) -> (f64, Array2<f32>) {
        let read = self.read(x, team);
        let end = (self.linear, &mut self.parameters);
        let (loss, mut dread) = learn(end, read.view(), (target, scale), team);
        if let Some(correction) = self.correction {
            let mut dnormed = Array2::zeros(dread.dim());
            // Nothing of it learns, so that what it was given does not matter.
            let p = &mut self.parameters;
            correction.backward(read.view(), dread.view(), dnormed.view_mut(), p, team);
            dread = dnormed;
        }
        (loss, self.norm.backward(x, dread, &mut self.parameters, team))
    }

    /// The sum of the losses alone.
    pub fn loss(&self, x: &Array2<f32>, target: &dyn Target, team: &Team) -> f64 {
        let read = self.read(x, team);
        loss((self.linear, &self.parameters), read.view(), target, team)
    }

    /// What the head multiplies.
    fn read(&self, x: &Array2<f32>, team: &Team) -> Array2<f32> {
        let normed = self.norm.forward(x, &self.parameters, team);
        match self.correction {
            Some(correction) => correction.of(normed.view(), &self.parameters, team),
            None => normed,
        }
    }

    /// The tensors that learn, as a checkpoint holds them.
    pub fn tensors(&self) -> Tensors {
        self.parameters.tensors()
    }
}
