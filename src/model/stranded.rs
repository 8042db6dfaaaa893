//! Tensors beside the architecture that a changed model cannot carry.
use super::{Block, Mlp, Model, ModelSpec};
use std::collections::BTreeSet;

/// What differs between a model and one that was made of it.
struct Changed {
    /// The residual stream was turned.
    residual: bool,
    /// Sizes of blocks are others.
    sizes: bool,
    /// Widths, before, of the spaces that were cut or turned inside blocks.
    widths: BTreeSet<usize>,
}

impl Changed {
    fn between(before: &ModelSpec, after: &ModelSpec) -> Self {
        let mut changed = Self { residual: false, sizes: false, widths: BTreeSet::new() };
        for (old, new) in before.blocks.iter().zip(&after.blocks) {
            let pairs = widths(old).into_iter().zip(widths(new));
            changed.widths.extend(pairs.filter(|(old, new)| old != new).map(|(old, _)| old));
        }
        changed.sizes = !changed.widths.is_empty();
        if let Some(turned) = after.transformed.as_ref().filter(|_| before.transformed.is_none()) {
            changed.residual = turned.rotation != "none";
            let inside = |block: &Block| {
                let down = mlp_widths(block).into_iter().filter(|_| turned.down_input);
                attention_widths(block).into_iter().chain(down).collect::<Vec<_>>()
            };
            changed.widths.extend(before.blocks.iter().flat_map(inside));
        }
        changed
    }

    fn touches(&self, hidden: usize, shape: &[usize]) -> bool {
        let residual = |width: usize| self.residual && width.is_multiple_of(hidden);
        shape.iter().any(|width| *width > 0 && (self.widths.contains(width) || residual(*width)))
    }
}

/// Queries, keys and values of all heads.
fn attention_widths(block: &Block) -> [usize; 2] {
    [block.heads * block.head_dim, block.kv_heads * block.head_dim]
}

fn mlp_widths(block: &Block) -> [usize; 2] {
    match &block.mlp {
        Mlp::Dense { width } => [*width; 2],
        Mlp::Experts { width, shared, .. } => [*width, shared.unwrap_or(*width)],
    }
}

/// Widths of a block's spaces: of all heads, of one, of its rotary pairs, and of the MLP.
fn widths(block: &Block) -> [usize; 6] {
    let ([q, kv], [mlp, shared]) = (attention_widths(block), mlp_widths(block));
    [q, kv, block.head_dim, block.head_dim / 2, mlp, shared]
}

impl Model {
    /// Stored tensors that the architecture does not know and that a model of `after`, which was
    /// made of this one, cannot have: they would be of other sizes or in other coordinates. These
    /// are layers beside the main path where blocks were resized or the stream was turned, and
    /// whatever has an axis as wide as a space that was. In name order.
    pub fn stranded(&self, after: &ModelSpec) -> Vec<String> {
        let changed = Changed::between(&self.spec, after);
        let is_stranded = |name: &&str| {
            if self.spec.is_extra_layer(name) {
                return changed.residual || changed.sizes;
            }
            let shape = self.weights.raw.get(*name).map(|raw| raw.shape.as_slice());
            changed.touches(self.spec.hidden, shape.unwrap_or_default())
        };
        self.extras().into_iter().filter(is_stranded).map(str::to_owned).collect()
    }
}
