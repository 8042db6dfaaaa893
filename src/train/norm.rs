//! Norms of tokens and of heads.
use super::TrainError;
use super::{
    parameters::{Id, Loader, Parameters},
    rows,
};
use crate::{
    forward::each_row,
    linalg::{Team, rms_norm, rms_norm_gradient},
    model::{Block, Role},
};
use ndarray::Array2;

/// `y = x / √(mean(x²) + ε) · (gain + offset)`.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    gain: Id,
    eps: f32,
    offset: f32,
}

impl Norm {
    pub(super) fn load(loader: &mut Loader<'_>, role: Role) -> Result<Self, TrainError> {
        let (eps, offset) = (loader.model.spec.norm_eps, loader.model.spec.gain_offset);
        Ok(Self { gain: loader.weight(role)?, eps, offset })
    }

    fn gain(&self, parameters: &Parameters) -> Vec<f32> {
        parameters.value(self.gain).iter().map(|gain| gain + self.offset).collect()
    }

    /// Of `x`, `[tokens, hidden]`.
    pub(super) fn forward(
        &self,
        x: &Array2<f32>,
        parameters: &Parameters,
        team: &Team,
    ) -> Array2<f32> {
        let gain = self.gain(parameters);
        let mut y = Array2::zeros(x.dim());
        each_row(y.view_mut(), team, |t, y| {
            rms_norm(x.row(t).to_slice().expect("rows are contiguous"), &gain, self.eps, y);
        });
        y
    }

    /// `dy ← dx`.
    pub(super) fn backward(
        &self,
        x: &Array2<f32>,
        mut dy: Array2<f32>,
        parameters: &mut Parameters,
        team: &Team,
    ) -> Array2<f32> {
        let gain = self.gain(parameters);
        let dgain = rows::summed(dy.view_mut(), gain.len(), team, |t, dy, sum| {
            let x = x.row(t).to_slice().expect("rows are contiguous");
            rms_norm_gradient(x, &gain, self.eps, dy, sum);
        });
        add(parameters, self.gain, &dgain);
        dy
    }
}

/// The norm of each query and key head.
#[derive(Clone, Debug)]
pub(super) struct HeadNorms {
    sides: [Norm; 2],
    sizes: Block,
}

impl HeadNorms {
    pub(super) fn load(loader: &mut Loader<'_>, sizes: &Block) -> Result<Self, TrainError> {
        let sides = [Norm::load(loader, Role::QNorm)?, Norm::load(loader, Role::KNorm)?];
        Ok(Self { sides, sizes: sizes.clone() })
    }

    fn side(&self, head: usize) -> usize {
        usize::from(head >= self.sizes.heads)
    }

    /// Of queries, keys and values side by side.
    pub(super) fn forward(
        &self,
        x: &Array2<f32>,
        parameters: &Parameters,
        team: &Team,
    ) -> Array2<f32> {
        let gains = [0, 1].map(|side| self.sides[side].gain(parameters));
        let mut y = x.clone();
        each_row(y.view_mut(), team, |t, row| {
            let x = x.row(t).to_slice().expect("rows are contiguous");
            for (head, (y, x)) in self.heads(row).zip(x.chunks(self.sizes.head_dim)).enumerate() {
                let side = self.side(head);
                rms_norm(x, &gains[side], self.sides[side].eps, y);
            }
        });
        y
    }

    /// `dy ← dx`.
    pub(super) fn backward(
        &self,
        x: &Array2<f32>,
        mut dy: Array2<f32>,
        parameters: &mut Parameters,
        team: &Team,
    ) -> Array2<f32> {
        let width = self.sizes.head_dim;
        let gains = [0, 1].map(|side| self.sides[side].gain(parameters));
        let dgains = rows::summed(dy.view_mut(), 2 * width, team, |t, row, sums| {
            let x = x.row(t).to_slice().expect("rows are contiguous");
            for (head, (dy, x)) in self.heads(row).zip(x.chunks(width)).enumerate() {
                let side = self.side(head);
                let sum = &mut sums[side * width..(side + 1) * width];
                rms_norm_gradient(x, &gains[side], self.sides[side].eps, dy, sum);
            }
        });
        for (side, dgain) in self.sides.iter().zip(dgains.chunks(width)) {
            add(parameters, side.gain, dgain);
        }
        dy
    }

    /// The query heads of a token and then its key heads.
    fn heads<'a>(&self, row: &'a mut [f32]) -> impl Iterator<Item = &'a mut [f32]> + use<'a> {
        let Block { heads, kv_heads, head_dim, .. } = self.sizes;
        row[..(heads + kv_heads) * head_dim].chunks_mut(head_dim)
    }
}

fn add(parameters: &mut Parameters, id: Id, terms: &[f32]) {
    if let Some(gradient) = parameters.gradient(id) {
        gradient.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    }
}
