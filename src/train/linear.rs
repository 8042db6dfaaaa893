//! Linear layers.
use super::{
    TrainError,
    parameters::{Id, Loader, Parameters},
};
use crate::{
    linalg::{Team, matmul_tiled},
    model::{Part, Role},
};
use ndarray::{Array2, ArrayView2, ArrayViewMut2};

/// `y = x·Wᵀ + b`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linear {
    pub(super) weight: Id,
    pub(super) bias: Option<Id>,
}

impl Loader<'_> {
    /// A weight with its bias.
    pub(super) fn linear(&mut self, role: Role) -> Result<Linear, TrainError> {
        Ok(Linear { weight: self.weight(role)?, bias: self.find(role, Part::Bias)? })
    }
}

impl Linear {
    /// Columns of `y`.
    pub(super) fn width(self, parameters: &Parameters) -> usize {
        parameters.value(self.weight).nrows()
    }

    /// `y ← x·Wᵀ + b`, `[tokens, out]` of `[tokens, in]`.
    pub(super) fn forward(
        self,
        x: ArrayView2<'_, f32>,
        mut y: ArrayViewMut2<'_, f32>,
        parameters: &Parameters,
        team: &Team,
    ) {
        matmul_tiled(x, parameters.value(self.weight).t(), y.view_mut(), false, team);
        if let Some(bias) = self.bias {
            y += &parameters.value(bias).row(0);
        }
    }

    /// `dx ← dx + dy·W`; the sums of the gradients by `dW = dyᵀ·x` and `db = Σ dy` grow.
    pub(super) fn backward(
        self,
        x: ArrayView2<'_, f32>,
        dy: ArrayView2<'_, f32>,
        dx: ArrayViewMut2<'_, f32>,
        parameters: &mut Parameters,
        team: &Team,
    ) {
        matmul_tiled(dy, parameters.value(self.weight), dx, true, team);
        parameters.learn_product(self.weight, (dy, x), team);
        if let Some(gradient) = self.bias.and_then(|bias| parameters.gradient(bias)) {
            let mut sum = gradient.row_mut(0);
            dy.outer_iter().for_each(|dy| sum += &dy);
        }
    }

    /// As [`Self::forward`], a matrix of its own.
    pub(super) fn of(
        self,
        x: ArrayView2<'_, f32>,
        parameters: &Parameters,
        team: &Team,
    ) -> Array2<f32> {
        let mut y = Array2::zeros((x.nrows(), self.width(parameters)));
        self.forward(x, y.view_mut(), parameters, team);
        y
    }
}
