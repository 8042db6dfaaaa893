//! The memory that a quantization takes, before it begins: what each part of the work holds at its
//! fullest, from the shapes of the model and the length of the text alone.
//!
//! Sizes are those of the code they speak of: weights of one block in float32 beside their source,
//! both residual streams in bfloat16, the sums `H` and `C` of the layers of a stage, the float64
//! matrices of their solution, rows of logits. Mapped pages of files count until they are released.
mod live;
mod work;

use self::{
    live::{Live, Peak},
    work::Work,
};
use super::Bases;
use crate::{
    model::{Model, TensorSpec},
    package,
    quantize::{Plan, Planned, Settings},
    transform,
};

/// Bytes of numbers.
const F32: u64 = 4;
const F64: u64 = 8;
const BF16: u64 = 2;

/// What a quantization works on.
#[derive(Clone, Copy)]
pub struct Footprint<'a> {
    /// The float model.
    pub model: &'a Model,
    /// Whether its files are mapped, so that pages can be let go; a carried model stays.
    pub is_mapped: bool,
    /// What is wanted.
    pub settings: &'a Settings,
    /// The coordinates that it may take.
    pub bases: &'a Bases,
    /// What becomes of each tensor.
    pub plan: &'a Plan,
    /// Tokens of each window that is calibrated on.
    pub windows: &'a [usize],
    /// Tokens of each window that only the loss is measured on.
    pub held_out: &'a [usize],
    /// Threads.
    pub threads: usize,
}

impl Footprint<'_> {
    /// Bytes beside what the program holds when it begins; `None` where rotations are made of
    /// activations, whose fits are not accounted for, and where the model learns.
    pub fn bytes(&self) -> Option<u64> {
        let carried = if self.is_mapped { 0 } else { self.plan.source_bytes() };
        if self.bases.is_streamed() {
            return Some(carried + self.streamed());
        }
        let learns = self.settings.tuning.tune.is_some();
        if learns || self.bases.taken().any(transform::Settings::needs_evidence) {
            return None;
        }
        // Whichever is taken in the end, all are tried before.
        let mut tried = Peak::default();
        for offer in self.bases.tried() {
            Work::new(self, &offer.transform).tried(&mut tried);
        }
        let ended = self.bases.taken().map(|basis| {
            let mut peak = tried;
            Work::new(self, basis).worked(&mut peak);
            peak.bytes
        });
        Some(carried + ended.max().unwrap_or(0))
    }

    /// Rounding tensor by tensor: a band of rows as it is read and as it is written, grids and
    /// hashes of all rows of a tensor, a piece in float32 on each thread.
    fn streamed(&self) -> u64 {
        let band = package::BAND_BYTES as u64;
        let tensor = |it: &Planned| {
            if it.scheme.is_none() {
                let part = it.source_bytes.min(band / 4);
                return part + self.pages(part).bytes();
            }
            let part = (band as f64 / it.source_bytes.max(1) as f64).min(1.0);
            let codes = (it.bytes as f64 * part) as u64;
            let grids = it.bytes.saturating_sub(it.elements() / 2).min(it.elements() / 8);
            let rows = it.shape.first().copied().unwrap_or(1) as u64;
            self.pages(it.source_bytes.min(band)).bytes() + codes + grids + rows * 32
        };
        let piece = (package::PIECE_WEIGHTS as u64) * (F32 + 2);
        self.plan.tensors.values().map(tensor).max().unwrap_or(0) + self.threads as u64 * piece
    }

    fn tensors(&self, block: Option<usize>) -> impl Iterator<Item = (&TensorSpec, &Planned)> {
        let here = self.model.spec.tensors.iter().filter(move |it| it.block == block);
        here.filter_map(|it| Some((it, self.plan.tensors.get(&it.name)?)))
    }

    /// Tensors of a block, or those outside of blocks, with so many bytes a weight.
    fn weights(&self, block: Option<usize>, bytes: u64) -> Live {
        self.tensors(block).map(|(_, it)| Live::piece(it.elements() * bytes)).sum()
    }

    /// Their codes.
    fn codes(&self, block: Option<usize>) -> Live {
        self.tensors(block).map(|(_, it)| Live::piece(it.bytes)).sum()
    }

    /// Their pages in the checkpoint.
    fn source(&self, block: Option<usize>) -> Live {
        self.pages(self.tensors(block).map(|(_, it)| it.source_bytes).sum())
    }

    /// Weights of the largest of them.
    fn largest(&self, block: Option<usize>) -> u64 {
        self.tensors(block).map(|(_, it)| it.elements()).max().unwrap_or(0)
    }

    /// Pages of files that are read: none of a carried model, which was counted whole.
    fn pages(&self, bytes: u64) -> Live {
        Live::pages(if self.is_mapped { bytes } else { 0 })
    }
}
