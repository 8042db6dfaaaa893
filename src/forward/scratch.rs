//! Buffers that live from block to block.
use super::{linear::Rows, tap::Tap};
use crate::linalg::Team;
use ndarray::{ArrayView2, ArrayViewMut2, s};

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

/// Which memory an intermediate result has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    /// Of norms.
    Norm,
    /// Of queries, keys and values.
    Heads,
    /// Of attention.
    Mixed,
    /// Of gates beside what they let through.
    Hidden,
    /// Of what is added to the stream.
    Out,
}

/// Memory of the intermediate results of a block. Kept, so that no block allocates it anew.
#[derive(Debug, Default)]
pub struct Scratch {
    slots: [Vec<f32>; 5],
}

impl Scratch {
    /// A result `[rows, columns]` with any content; [`Self::keep`] gives its memory back.
    pub(super) fn value(&mut self, slot: Slot, rows: usize, columns: usize) -> Value {
        let mut memory = std::mem::take(&mut self.slots[slot as usize]);
        if memory.len() < rows * columns {
            memory.resize(rows * columns, 0.0);
        }
        Value { slot, memory, rows, stride: columns, columns }
    }

    /// Keeps the memory of a result.
    pub(super) fn keep(&mut self, value: Value) {
        self.slots[value.slot as usize] = value.memory;
    }
}

/// An intermediate result, in memory that is lent.
#[derive(Debug)]
pub(super) struct Value {
    slot: Slot,
    memory: Vec<f32>,
    rows: usize,
    /// Columns of the matrix that it is the left part of.
    stride: usize,
    columns: usize,
}

impl Value {
    /// Its first columns alone.
    pub(super) fn narrowed(self, columns: usize) -> Self {
        Self { columns, ..self }
    }

    /// `[rows, columns]`.
    pub(super) fn view(&self) -> ArrayView2<'_, f32> {
        let memory = &self.memory[..self.rows * self.stride];
        let whole = ArrayView2::from_shape((self.rows, self.stride), memory);
        whole.expect("rows × columns values").slice_move(s![.., ..self.columns])
    }

    /// As [`Self::view`], to be written.
    pub(super) fn view_mut(&mut self) -> ArrayViewMut2<'_, f32> {
        let memory = &mut self.memory[..self.rows * self.stride];
        let whole = ArrayViewMut2::from_shape((self.rows, self.stride), memory);
        whole.expect("rows × columns values").slice_move(s![.., ..self.columns])
    }
}
