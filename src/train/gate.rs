//! Gated feed-forward parts.
use super::{
    TrainError,
    linear::Linear,
    parameters::{Loader, Parameters},
};
use crate::{
    forward::each_row,
    linalg::{Team, gelu_mul, gelu_mul_gradient, silu_mul, silu_mul_gradient},
    model::{Activation, Role},
};
use ndarray::{Array2, ArrayView2, Axis, s};

/// `act(gate(x)) · up(x)`.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    opening: Linear,
    up: Linear,
    activation: Activation,
}

impl Gate {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        activation: Activation,
    ) -> Result<Self, TrainError> {
        Ok(Self { opening: loader.linear(Role::Gate)?, up: loader.linear(Role::Up)?, activation })
    }

    /// Of `x`, `[tokens, hidden]`: gate and up side by side, and what comes out.
    pub(super) fn forward(
        &self,
        x: ArrayView2<'_, f32>,
        parameters: &Parameters,
        team: &Team,
    ) -> (Array2<f32>, Array2<f32>) {
        let width = self.opening.width(parameters);
        let mut both = Array2::zeros((x.nrows(), 2 * width));
        self.opening.forward(x, both.slice_mut(s![.., ..width]), parameters, team);
        self.up.forward(x, both.slice_mut(s![.., width..]), parameters, team);
        let mut y = both.slice(s![.., ..width]).to_owned();
        each_row(y.view_mut(), team, |t, y| {
            let up = both.slice(s![t, width..]);
            let up = up.to_slice().expect("rows are contiguous");
            match self.activation {
                Activation::Silu => silu_mul(y, up),
                Activation::GeluTanh => gelu_mul(y, up),
            }
        });
        (both, y)
    }

    /// By what [`Self::forward`] was given and gave.
    pub(super) fn backward(
        &self,
        (x, mut both): (ArrayView2<'_, f32>, Array2<f32>),
        dy: &Array2<f32>,
        parameters: &mut Parameters,
        team: &Team,
    ) -> Array2<f32> {
        let width = dy.ncols();
        each_row(both.view_mut(), team, |t, row| {
            let (gate, up) = row.split_at_mut(width);
            let dy = dy.row(t);
            let dy = dy.to_slice().expect("rows are contiguous");
            match self.activation {
                Activation::Silu => silu_mul_gradient(gate, up, dy),
                Activation::GeluTanh => gelu_mul_gradient(gate, up, dy),
            }
        });
        let mut dx = Array2::zeros(x.dim());
        let (dgate, dup) = both.view().split_at(Axis(1), width);
        self.opening.backward(x, dgate, dx.view_mut(), parameters, team);
        self.up.backward(x, dup, dx.view_mut(), parameters, team);
        dx
    }
}
