//! Queries, keys and values of all heads, and their turns by position.
use super::{
    TrainError,
    linear::Linear,
    parameters::{Loader, Parameters},
    run::Run,
};
use crate::{
    forward::each_row,
    linalg::Team,
    model::{Block, Role},
};
use ndarray::{Array2, s};
use std::ops::Range;

/// Queries, keys and values side by side.
#[derive(Clone, Debug)]
pub(super) struct Heads {
    projections: [Linear; 3],
}

impl Heads {
    pub(super) fn load(loader: &mut Loader<'_>) -> Result<Self, TrainError> {
        let projections =
            [loader.linear(Role::Q)?, loader.linear(Role::K)?, loader.linear(Role::V)?];
        Ok(Self { projections })
    }

    /// Columns of each projection.
    fn columns(&self, parameters: &Parameters) -> [Range<usize>; 3] {
        let mut end = 0;
        self.projections.map(|linear| {
            let start = end;
            end += linear.width(parameters);
            start..end
        })
    }

    /// Of `x`, `[tokens, hidden]`.
    pub(super) fn forward(
        &self,
        x: &Array2<f32>,
        parameters: &Parameters,
        team: &Team,
    ) -> Array2<f32> {
        let columns = self.columns(parameters);
        let mut y = Array2::zeros((x.nrows(), columns[2].end));
        for (linear, columns) in self.projections.iter().zip(columns) {
            linear.forward(x.view(), y.slice_mut(s![.., columns]), parameters, team);
        }
        y
    }

    pub(super) fn backward(
        &self,
        x: &Array2<f32>,
        dy: &Array2<f32>,
        parameters: &mut Parameters,
        team: &Team,
    ) -> Array2<f32> {
        let mut dx = Array2::zeros(x.dim());
        for (linear, columns) in self.projections.iter().zip(self.columns(parameters)) {
            let dy = dy.slice(s![.., columns]);
            linear.backward(x.view(), dy, dx.view_mut(), parameters, team);
        }
        dx
    }
}

/// Turns query and key heads by the positions of their tokens.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) sizes: Block,
}

impl Turn {
    /// In place, of queries, keys and values side by side; `back` by the opposite angles, which is what a
    /// turn passes back.
    pub(super) fn turn(&self, mut x: Array2<f32>, back: bool, run: &Run<'_>) -> Array2<f32> {
        let Block { heads, kv_heads, head_dim, .. } = self.sizes;
        let repeat = self.sizes.kv_repeat();
        each_row(x.view_mut(), run.team, |t, row| {
            let turned = row[..(heads + kv_heads) * head_dim].chunks_mut(head_dim);
            for (index, head) in turned.enumerate() {
                let kv_head = if index < heads { index / repeat } else { index - heads };
                let token = t % run.window;
                if back {
                    run.rotary.turn_back(token, kv_head, head);
                } else {
                    run.rotary.turn(token, kv_head, head);
                }
            }
        });
        x
    }
}
