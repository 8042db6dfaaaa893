//! Buffers that live from block to block.
use super::{linear::Rows, tap::Tap};
use crate::linalg::Team;
use ndarray::{ArrayViewMut2, ShapeBuilder};

/// What running a block needs beside weights and tokens.
pub struct Run<'a> {
    /// Threads.
    pub team: &'a Team,
    /// Memory.
    pub scratch: &'a mut Scratch,
    /// Sees the activations.
    pub tap: &'a mut dyn Tap,
    /// How tokens go through linear layers.
    pub rows: Rows,
}

impl<'a> Run<'a> {
    /// What linear layers ask for.
    pub(super) fn by(&self) -> (&'a Team, Rows) {
        (self.team, self.rows)
    }
}

/// Intermediate results of a block. Kept, so that no block allocates them anew.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) norm: Buffer,
    pub(super) qkv: Buffer,
    pub(super) mixed: Buffer,
    pub(super) gate_up: Buffer,
    pub(super) out: Buffer,
}

/// A matrix that keeps its memory.
#[derive(Debug, Default)]
pub(super) struct Buffer(Vec<f32>);

impl Buffer {
    /// A `[rows, columns]` matrix with any content.
    pub(super) fn take(&mut self, rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
        let len = rows * columns;
        if self.0.len() < len {
            self.0.resize(len, 0.0);
        }
        let shape = (rows, columns).strides((columns, 1));
        ArrayViewMut2::from_shape(shape, &mut self.0[..len]).expect("rows × columns values")
    }
}
