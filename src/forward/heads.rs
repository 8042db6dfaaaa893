//! Queries, keys and values of all heads, their norms, and their turns by position.
use super::{
    points::Point,
    projection::{Loader, Projection, each_row},
    rotary::Rotary,
    scratch::{Run, Slot, Value},
    tap::Site,
};
use crate::linalg::{Hadamard, rms_norm};
use crate::model::{Block, Role, WeightError};
use ndarray::{ArrayView2, s};

/// Queries, keys and values side by side.
pub(super) struct Heads {
    qkv: Projection,
    sizes: Block,
}

impl Heads {
    pub(super) fn load(loader: &Loader<'_>, sizes: &Block) -> Result<Self, WeightError> {
        let qkv = loader.projection(&[Role::Q, Role::K, Role::V])?;
        Ok(Self { qkv, sizes: sizes.clone() })
    }

    /// Of `x`, `[tokens, hidden]`.
    pub(super) fn forward(&self, x: ArrayView2<'_, f32>, run: &mut Run<'_>) -> Value {
        let Block { heads, kv_heads, head_dim: width, .. } = self.sizes;
        run.tap.see(Site::Input(Role::Q, None), x);
        let mut value = run.scratch.value(Slot::Heads, x.nrows(), self.qkv.out_features());
        let mut qkv = value.view_mut();
        self.qkv.forward(x, qkv.view_mut(), run.by());
        let (q, k) = (heads * width, (heads + kv_heads) * width);
        for (point, columns) in [(Point::Q, s![.., ..q]), (Point::K, s![.., q..k])] {
            run.tap.alter((point, None), qkv.slice_mut(columns));
        }
        run.tap.alter((Point::V, None), qkv.slice_mut(s![.., k..]));
        value
    }
}

/// The norm of each query and key head.
pub(super) struct HeadNorms {
    q: Vec<f32>,
    k: Vec<f32>,
    sizes: Block,
    eps: f32,
}

impl HeadNorms {
    pub(super) fn load(loader: &Loader<'_>, sizes: &Block) -> Result<Self, WeightError> {
        let (q, k) = (loader.gain(Role::QNorm)?, loader.gain(Role::KNorm)?);
        Ok(Self { q, k, sizes: sizes.clone(), eps: loader.model.spec.norm_eps })
    }

    /// In place, of `[tokens, (heads + 2 · kv_heads) · head_dim]`.
    pub(super) fn forward(&self, value: &mut Value, run: &mut Run<'_>) {
        each_row(value.view_mut(), run.team, |_, row| {
            for (index, head) in turned(row, &self.sizes) {
                let plain = head.to_vec();
                let gain = if index < self.sizes.heads { &self.q } else { &self.k };
                rms_norm(&plain, gain, self.eps, head);
            }
        });
    }
}

/// Turns query and key heads by the positions of their tokens.
pub(super) struct Turn {
    sizes: Block,
    /// What they are multiplied by after `RoPE`.
    rotation: Option<Hadamard>,
}

impl Turn {
    pub(super) fn load(loader: &Loader<'_>, sizes: &Block) -> Self {
        let rotation = loader.hadamard(sizes.head_dim, |transformed| transformed.keys);
        Self { sizes: sizes.clone(), rotation }
    }

    /// In place, of `[tokens, (heads + 2 · kv_heads) · head_dim]`; row `t` of `rotary` belongs to
    /// token `t`.
    pub(super) fn forward(&self, value: &mut Value, rotary: &Rotary, run: &mut Run<'_>) {
        let (heads, repeat) = (self.sizes.heads, self.sizes.kv_repeat());
        each_row(value.view_mut(), run.team, |token, row| {
            for (index, head) in turned(row, &self.sizes) {
                let kv_head = if index < heads { index / repeat } else { index - heads };
                rotary.turn(token, kv_head, head);
                if let Some(rotation) = &self.rotation {
                    rotation.apply(head);
                }
            }
        });
    }
}

/// The query heads of a token and then its key heads, counted.
fn turned<'a>(
    row: &'a mut [f32],
    sizes: &Block,
) -> impl Iterator<Item = (usize, &'a mut [f32])> + use<'a> {
    let Block { heads, kv_heads, head_dim, .. } = *sizes;
    row[..(heads + kv_heads) * head_dim].chunks_mut(head_dim).enumerate()
}
