//! The end of a model that can learn: the last norm and the head.
use super::{
    TrainError,
    linear::Linear,
    loss::{Target, learn, loss},
    norm::Norm,
    parameters::{Loader, Parameters},
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
    linear: Linear,
    /// The norm's gain, and the head's matrix.
    pub parameters: Parameters,
}

impl Head {
    /// Of a model.
    pub fn load(model: &Model) -> Result<Self, TrainError> {
        let mut parameters = Parameters::default();
        let role = model.spec.head().map_or(Role::Head, |tensor| tensor.role);
        let parameters_mut = &mut parameters;
        let mut loader =
            Loader { model, block: None, expert: None, learns: true, parameters: parameters_mut };
        let norm = Norm::load(&mut loader, Role::FinalNorm)?;
        loader.learns = false;
        let linear = loader.linear(role)?;
        Ok(Self { norm, linear, parameters })
    }

    /// The sum of the losses of streams `[tokens, hidden]` and its gradient by them, times `scale`; the sum of
    /// the norm's gradients grows.
    pub fn learn(
        &mut self,
        x: &Array2<f32>,
        (target, scale): (&dyn Target, f32),
        team: &Team,
    ) -> (f64, Array2<f32>) {
        let normed = self.norm.forward(x, &self.parameters, team);
        let end = (self.linear, &mut self.parameters);
        let (loss, dnormed) = learn(end, normed.view(), (target, scale), team);
        (loss, self.norm.backward(x, dnormed, &mut self.parameters, team))
    }

    /// The sum of the losses alone.
    pub fn loss(&self, x: &Array2<f32>, target: &dyn Target, team: &Team) -> f64 {
        let normed = self.norm.forward(x, &self.parameters, team);
        loss((self.linear, &self.parameters), normed.view(), target, team)
    }

    /// The tensors that learn, as a checkpoint holds them.
    pub fn tensors(&self) -> Tensors {
        let learnt = self.parameters.list.iter().filter(|it| !it.gradient.is_empty());
        learnt.map(|it| (it.name.clone(), it.to_raw())).collect()
    }
}
