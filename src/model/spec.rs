//! The architecture of a model, without weights.
use super::{
    ops::{Half, Op},
    role::Role,
    rope::Rope,
    space::{Axis, Expert, Space},
    transformed::Transformed,
};
use crate::scheme::KvPrecision;
use std::collections::BTreeMap;

/// Weight or bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "standard names")]
pub enum Part {
    Weight,
    Bias,
}

/// One tensor of a model.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// Checkpoint name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Weight or bias.
    pub part: Part,
    /// Block index, if inside a block.
    pub block: Option<usize>,
    /// Expert, if inside one.
    pub expert: Option<Expert>,
    /// Rows.
    pub output: Axis,
    /// Columns; `None` for gains and biases.
    pub input: Option<Axis>,
    /// The norm whose output this tensor reads, if any.
    pub reads: Option<Role>,
}

/// Sizes of one block; per block, so that pruned blocks may differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Tokens a query sees, itself included; `None` for all.
    pub window: Option<usize>,
    /// The feed-forward part.
    pub mlp: Mlp,
    /// What each half computes, attention first.
    pub ops: [Vec<Op>; 2],
}

impl Block {
    /// What a half computes.
    pub fn ops(&self, half: Half) -> &[Op] {
        match half {
            Half::Attention => &self.ops[0],
            Half::Mlp => &self.ops[1],
        }
    }

    /// Whether queries and keys are normalized per head.
    pub fn has_head_norms(&self) -> bool {
        self.ops[0].contains(&Op::HeadNorms)
    }

    /// What products of queries and keys are multiplied by.
    pub fn score_scale(&self, width: Option<usize>) -> f32 {
        1.0 / (width.unwrap_or(self.head_dim) as f32).sqrt()
    }

    /// Query heads per key/value head.
    pub fn kv_repeat(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }
}

/// The feed-forward part of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// One gated MLP.
    Dense {
        /// Hidden units.
        width: usize,
    },
    /// A mixture of experts.
    Experts {
        /// Routed experts.
        count: usize,
        /// Experts that see a token.
        per_token: usize,
        /// Hidden units of each.
        width: usize,
        /// Hidden units of the shared expert.
        shared: Option<usize>,
        /// Router weights of the chosen experts are scaled to sum to 1.
        normalize: bool,
    },
}

/// Architecture of a model.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// Registry name of the family, e.g. `llama`.
    pub family: &'static str,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Vocabulary size.
    pub vocab: usize,
    /// The head multiplies by the embedding.
    pub tied: bool,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
    /// Added to stored norm gains: 1 where a stored 0 leaves a channel as it is, else 0.
    pub gain_offset: f32,
    /// What rows of the embedding are multiplied by on their way in, not by a tied head.
    pub embed_scale: f32,
    /// Rotary position embedding.
    pub rope: Rope,
    /// That of blocks that see a window, where it is another.
    pub local_rope: Option<Rope>,
    /// Positions that the model was made for.
    pub max_positions: usize,
    /// How it was rotated, if it was.
    pub transformed: Option<Transformed>,
    /// How keys and values of past tokens are held.
    pub kv_cache: KvPrecision,
    /// Blocks, first to last.
    pub blocks: Vec<Block>,
    /// Every tensor, in forward order.
    pub tensors: Vec<TensorSpec>,
    index: BTreeMap<Slot, usize>,
}

type Slot = (Option<usize>, Role, Option<Expert>, Part);

impl ModelSpec {
    /// Sets the tensors and their index.
    pub(super) fn with_tensors(mut self, tensors: Vec<TensorSpec>) -> Self {
        let slots = tensors.iter().enumerate();
        self.index = slots.map(|(i, t)| ((t.block, t.role, t.expert, t.part), i)).collect();
        self.tensors = tensors;
        self
    }

    /// The tensor in a place, e.g. the bias of the queries of block 3.
    pub fn find(
        &self,
        block: Option<usize>,
        role: Role,
        expert: Option<Expert>,
        part: Part,
    ) -> Option<&TensorSpec> {
        self.index.get(&(block, role, expert, part)).map(|i| &self.tensors[*i])
    }

    /// What is added to the stored values of a tensor: [`Self::gain_offset`] to gains.
    pub fn offset_of(&self, tensor: &TensorSpec) -> f32 {
        let is_gain = tensor.input.is_none() && tensor.part == Part::Weight;
        if is_gain { self.gain_offset } else { 0.0 }
    }

    /// Whether rows of the embedding are scaled on their way in.
    pub fn scales_embedding(&self) -> bool {
        self.embed_scale.to_bits() != 1.0_f32.to_bits()
    }

    /// Whether a block turns by the rope of windows.
    pub fn is_local(&self, block: usize) -> bool {
        self.local_rope.is_some() && self.blocks[block].window.is_some()
    }

    /// The rotary position embedding of a block.
    pub fn rope_of(&self, block: usize) -> &Rope {
        self.local_rope.as_ref().filter(|_| self.is_local(block)).unwrap_or(&self.rope)
    }

    /// The first norm between a half and the stream that it is added to, if a block has one.
    pub fn post_norm(&self) -> Option<&TensorSpec> {
        self.tensors.iter().find(|it| matches!(it.role, Role::PostAttnNorm | Role::PostMlpNorm))
    }

    /// Whether the last normed stream is multiplied by a matrix before the head.
    pub fn has_head_correction(&self) -> bool {
        self.transformed.as_ref().is_some_and(|it| it.head_correction)
    }

    /// The matrix that the head multiplies by: its own, or the embedding when tied.
    pub fn head(&self) -> Option<&TensorSpec> {
        let role = if self.tied { Role::Embed } else { Role::Head };
        self.find(None, role, None, Part::Weight)
    }

    /// Width of a space, before head repetition.
    pub fn dim(&self, space: Space) -> usize {
        match space {
            Space::Vocab => self.vocab,
            Space::Residual => self.hidden,
            Space::AttnQk(b) | Space::AttnV(b) => self.blocks[b].kv_heads * self.blocks[b].head_dim,
            Space::QkHead(b) => self.blocks[b].head_dim,
            Space::Mlp(b, expert) => match (&self.blocks[b].mlp, expert) {
                (Mlp::Experts { shared, .. }, Some(Expert::Shared)) => shared.unwrap_or(0),
                (Mlp::Dense { width } | Mlp::Experts { width, .. }, _) => *width,
            },
            Space::Experts(b) => match &self.blocks[b].mlp {
                Mlp::Dense { .. } => 0,
                Mlp::Experts { count, .. } => *count,
            },
            Space::One => 1,
        }
    }

    /// Shape of a tensor: `[out, in]`, or `[out]` for gains and biases.
    pub fn shape(&self, tensor: &TensorSpec) -> Vec<usize> {
        let width = |axis: Axis| self.dim(axis.space) * axis.repeat;
        std::iter::once(width(tensor.output)).chain(tensor.input.map(width)).collect()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(|t| self.shape(t).iter().map(|d| *d as u64).product::<u64>()).sum()
    }

    /// Bytes of keys and values per token at `bytes_per_value`.
    pub fn kv_bytes_per_token(&self, bytes_per_value: usize) -> usize {
        self.blocks.iter().map(|b| 2 * b.kv_heads * b.head_dim * bytes_per_value).sum()
    }

    /// Bytes of keys and values per token as they are held, scales included.
    pub fn kv_cache_bytes_per_token(&self) -> usize {
        let row = |width| self.kv_cache.row_bytes(width);
        self.blocks.iter().map(|b| 2 * b.kv_heads * row(b.head_dim)).sum()
    }

    /// An architecture without tensors yet.
    pub(super) fn empty(family: &'static str, blocks: Vec<Block>, rope: Rope) -> Self {
        Self {
            family,
            hidden: 0,
            vocab: 0,
            tied: false,
            norm_eps: 0.0,
            gain_offset: 0.0,
            embed_scale: 1.0,
            rope,
            local_rope: None,
            max_positions: 0,
            transformed: None,
            kv_cache: KvPrecision::Float,
            blocks,
            tensors: Vec::new(),
            index: BTreeMap::new(),
        }
    }
}
