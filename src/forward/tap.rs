//! Looks at activations as they pass through a block.
use super::points::Point;
use crate::model::{Expert, Role};
use ndarray::{ArrayView2, ArrayViewMut2};

/// A place in a block where activations can be seen, one row per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// The input of a linear layer, `[tokens, in]`; layers that see the same input are seen once,
    /// under the first of query, key, value and of gate, up. Inside an expert only the tokens
    /// that the router sent there are seen.
    Input(Role, Option<Expert>),
    /// Queries after norm and rotation, `[tokens, heads · head_dim]`.
    Queries,
    /// Keys after norm and rotation, `[tokens, kv_heads · head_dim]`.
    Keys,
    /// What is added to the residual stream, `[tokens, hidden]`: of [`Role::O`] or [`Role::Down`]
    /// (all experts together).
    Output(Role),
}

/// Sees the activations of a block.
pub trait Tap {
    /// Called once per site for each run of tokens, in the order of the forward pass.
    fn see(&mut self, site: Site, x: ArrayView2<'_, f32>);

    /// Whether [`alter`](Self::alter) is to be called: some points have to be computed apart.
    fn alters(&self) -> bool {
        false
    }

    /// Called once per point for each run of tokens; may change the activations.
    fn alter(&mut self, _: (Point, Option<Expert>), _: ArrayViewMut2<'_, f32>) {}
}

/// Sees nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTap;

impl Tap for NoTap {
    fn see(&mut self, _: Site, _: ArrayView2<'_, f32>) {}
}

impl<F: FnMut(Site, ArrayView2<'_, f32>)> Tap for F {
    fn see(&mut self, site: Site, x: ArrayView2<'_, f32>) {
        self(site, x);
    }
}
