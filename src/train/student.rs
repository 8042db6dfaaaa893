//! A whole model that learns.
use super::{Block, Head, Learns, Parameters, Target, TrainError};
use crate::{
    forward::Embedding,
    linalg::Team,
    model::{Model, Tensors},
};
use ndarray::{Array2, Axis};

/// Embedding, blocks and head, in float32. Of the blocks and the last norm learns what is asked for; embedding
/// and head, which most small models share, stay.
pub struct Student {
    embedding: Embedding,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// The last norm and the head.
    pub head: Head,
}

impl Student {
    /// Of a model, over windows of `window` tokens.
    pub fn load(model: &Model, window: usize, learns: Learns) -> Result<Self, TrainError> {
        let blocks = (0..model.spec.blocks.len()).map(|b| Block::load(model, b, window, learns));
        let embedding = Embedding::load(model).map_err(crate::forward::ForwardError::from)?;
        let blocks = blocks.collect::<Result<_, _>>()?;
        Ok(Self { embedding, blocks, head: Head::load(model, learns)? })
    }

    /// The streams before the first block, `[windows · window, hidden]`.
    fn embed(&self, windows: &[&[u32]]) -> Result<Array2<f32>, TrainError> {
        let streams = windows.iter().map(|ids| self.embedding.rows(ids));
        let streams: Vec<Array2<f32>> = streams.collect::<Result<_, _>>()?;
        let views: Vec<_> = streams.iter().map(|it| it.view()).collect();
        Ok(ndarray::concatenate(Axis(0), &views).expect("windows of one width"))
    }

    /// The sum of the losses over all tokens of some windows; the sums of gradients grow by those of the loss
    /// times `scale`. Each block's input is kept, what happens inside is computed again on the way back.
    pub fn learn(
        &mut self,
        windows: &[&[u32]],
        target: &dyn Target,
        scale: f32,
        team: &Team,
    ) -> Result<f64, TrainError> {
        let mut x = self.embed(windows)?;
        let mut inputs = Vec::with_capacity(self.blocks.len());
        let mut last = None;
        for block in &self.blocks {
            inputs.push(x.clone());
            let (y, tape) = block.forward(x, team);
            (x, last) = (y, Some(tape));
        }
        let (loss, mut dx) = self.head.learn(&x, (target, scale), team);
        for (block, x) in self.blocks.iter_mut().zip(inputs).rev() {
            let tape = last.take().unwrap_or_else(|| block.forward(x, team).1);
            dx = block.backward(tape, dx, team);
        }
        Ok(loss)
    }

    /// The sum of the losses, nothing learnt.
    pub fn loss(
        &self,
        windows: &[&[u32]],
        target: &dyn Target,
        team: &Team,
    ) -> Result<f64, TrainError> {
        let mut x = self.embed(windows)?;
        for block in &self.blocks {
            x = block.forward(x, team).0;
        }
        Ok(self.head.loss(&x, target, team))
    }

    /// Everything that may learn, block by block, the end last.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameters> {
        self.blocks.iter().map(|it| &it.parameters).chain([&self.head.parameters])
    }

    /// As [`Self::parameters`], to be changed.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameters> {
        self.blocks.iter_mut().map(|it| &mut it.parameters).chain([&mut self.head.parameters])
    }

    /// The tensors that learn, as a checkpoint holds them.
    pub fn tensors(&self) -> Tensors {
        let blocks = self.blocks.iter().flat_map(Block::tensors);
        blocks.chain(self.head.tensors()).collect()
    }
}
