//! Sizes of a block: what pruning changes of it.
use crate::model::{Block, Expert, Mlp};
use std::collections::BTreeMap;

/// Sizes of a block after pruning.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BlockShape {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Hidden units of the MLP, or of each expert; routed experts of a block have one width.
    #[serde(serialize_with = "widths")]
    pub mlp: BTreeMap<Option<Expert>, usize>,
}

/// One entry for all routed experts.
fn widths<S: serde::Serializer>(
    mlp: &BTreeMap<Option<Expert>, usize>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let name = |expert: &Option<Expert>| match expert {
        None => "dense",
        Some(Expert::Routed(_)) => "routed",
        Some(Expert::Shared) => "shared",
    };
    let named: BTreeMap<&str, usize> = mlp.iter().map(|(e, width)| (name(e), *width)).collect();
    serializer.collect_map(named)
}

impl BlockShape {
    /// The sizes of a block as it is.
    pub fn of(block: &Block) -> Self {
        let mlp = match &block.mlp {
            Mlp::Dense { width } => BTreeMap::from([(None, *width)]),
            Mlp::Experts { count, width, shared, .. } => (0..*count)
                .map(|e| (Some(Expert::Routed(e)), *width))
                .chain(shared.map(|width| (Some(Expert::Shared), width)))
                .collect(),
        };
        let Block { heads, kv_heads, head_dim, .. } = *block;
        Self { heads, kv_heads, head_dim, mlp }
    }

    /// A block with these sizes that is otherwise like `block`.
    pub fn block(&self, block: &Block) -> Block {
        let mut new = block.clone();
        (new.heads, new.kv_heads, new.head_dim) = (self.heads, self.kv_heads, self.head_dim);
        let of = |expert: Option<Expert>, old| self.mlp.get(&expert).copied().unwrap_or(old);
        match &mut new.mlp {
            Mlp::Dense { width } => *width = of(None, *width),
            Mlp::Experts { width, shared, .. } => {
                *width = of(Some(Expert::Routed(0)), *width);
                *shared = shared.map(|width| of(Some(Expert::Shared), width));
            }
        }
        new
    }
}
