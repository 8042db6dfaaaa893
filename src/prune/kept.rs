//! What is kept of a block.
use super::{BlockShape, PruneError};
use crate::model::{Block, Expert};
use ndarray::Array2;
use std::collections::BTreeMap;

/// The units of a block that stay.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Key/value heads that stay, in order.
    pub kv_heads: Vec<KeptHead>,
    /// Hidden units that stay, ascending; of each expert where there are some.
    pub mlp: BTreeMap<Option<Expert>, Vec<usize>>,
}

/// What is kept of a key/value head and its query heads.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptHead {
    /// Its index in the block before.
    pub kv_head: usize,
    /// Query heads of its group that stay, ascending, counted from the group's first.
    pub queries: Vec<usize>,
    /// Rotary pairs that stay, ascending: pair `p` is the channels `p` and `p + head_dim / 2` of
    /// queries and keys.
    pub pairs: Vec<usize>,
    /// What stays of its values; as wide as the pairs' channels.
    pub values: Values,
}

/// What is kept of the values of a head.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Some channels, ascending.
    Channels(Vec<usize>),
    /// A linear map of all channels, and the way back: `v ← down·v`, `W_o ← W_o·up`.
    Map {
        /// `[kept, head_dim]`.
        down: Array2<f64>,
        /// `[head_dim, kept]`.
        up: Array2<f64>,
    },
}

impl Values {
    /// Channels that stay.
    pub fn width(&self) -> usize {
        match self {
            Self::Channels(channels) => channels.len(),
            Self::Map { down, .. } => down.nrows(),
        }
    }
}

impl Kept {
    /// Everything.
    pub fn all(block: &Block) -> Self {
        let head = |kv_head| KeptHead {
            kv_head,
            queries: (0..block.kv_repeat()).collect(),
            pairs: (0..block.head_dim / 2).collect(),
            values: Values::Channels((0..block.head_dim).collect()),
        };
        let mlp = BlockShape::of(block).mlp;
        Self {
            kv_heads: (0..block.kv_heads).map(head).collect(),
            mlp: mlp.into_iter().map(|(expert, width)| (expert, (0..width).collect())).collect(),
        }
    }

    /// The first units of each kind, as many as `shape` says, and the first value channels. Where
    /// the shape does not fit the block, [`Self::check`] says so.
    pub fn first(block: &Block, shape: &BlockShape) -> Self {
        let queries = shape.heads / shape.kv_heads.max(1);
        let head = |kv_head| KeptHead {
            kv_head,
            queries: (0..queries).collect(),
            pairs: (0..shape.head_dim / 2).collect(),
            values: Values::Channels((0..shape.head_dim / 2 * 2).collect()),
        };
        let widths = |(expert, old)| {
            let width = shape.mlp.get(&expert).copied().unwrap_or(old);
            (expert, (0..width).collect())
        };
        Self {
            kv_heads: (0..shape.kv_heads).map(head).collect(),
            mlp: BlockShape::of(block).mlp.into_iter().map(widths).collect(),
        }
    }

    /// The sizes of what is kept; [`Self::check`] it first.
    pub fn shape(&self) -> BlockShape {
        BlockShape {
            heads: self.kv_heads.iter().map(|head| head.queries.len()).sum(),
            kv_heads: self.kv_heads.len(),
            head_dim: self.kv_heads.first().map_or(0, |head| 2 * head.pairs.len()),
            mlp: self.mlp.iter().map(|(expert, units)| (*expert, units.len())).collect(),
        }
    }

    /// Checks that this is a part of block number `index` that a model can consist of: at least
    /// one unit of each kind, all heads alike in their counts, routed experts of one width.
    pub fn check(&self, index: usize, block: &Block) -> Result<(), PruneError> {
        let check = Check { block: index };
        let heads: Vec<usize> = self.kv_heads.iter().map(|head| head.kv_head).collect();
        check.units("key/value heads", &heads, block.kv_heads)?;
        let first = &self.kv_heads[0];
        for head in &self.kv_heads {
            check.units("query heads", &head.queries, block.kv_repeat())?;
            check.units("rotary pairs", &head.pairs, block.head_dim / 2)?;
            check.same("query heads", head.queries.len(), first.queries.len())?;
            check.same("rotary pairs", head.pairs.len(), first.pairs.len())?;
            let width = 2 * head.pairs.len();
            check.same("value channels", head.values.width(), width)?;
            match &head.values {
                Values::Channels(units) => check.units("value channels", units, block.head_dim)?,
                Values::Map { down, up } => {
                    check.same("columns of `down`", down.ncols(), block.head_dim)?;
                    check.same("rows of `up`", up.nrows(), block.head_dim)?;
                    check.same("columns of `up`", up.ncols(), width)?;
                    if down.iter().chain(up).any(|x| !x.is_finite()) {
                        return Err(check.wrong("value map", "finite numbers", "NaN or infinity"));
                    }
                }
            }
            if block.has_head_norms() && head.pairs != first.pairs {
                return Err(PruneError::PairsOfNorm { block: index });
            }
        }
        self.check_mlp(&check, block)
    }

    fn check_mlp(&self, check: &Check, block: &Block) -> Result<(), PruneError> {
        let before = BlockShape::of(block).mlp;
        check.same("MLPs", self.mlp.len(), before.len())?;
        let mut routed = None;
        for (expert, width) in before {
            let Some(units) = self.mlp.get(&expert) else {
                return Err(check.wrong("MLPs", format!("{expert:?}"), "nothing of it"));
            };
            check.units("hidden units", units, width)?;
            if matches!(expert, Some(Expert::Routed(_))) {
                let width = *routed.get_or_insert(units.len());
                check.same("hidden units of a routed expert", units.len(), width)?;
            }
        }
        Ok(())
    }
}

/// Checks the units of one block.
struct Check {
    block: usize,
}

impl Check {
    fn wrong(
        &self,
        unit: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> PruneError {
        let (expected, found) = (expected.into(), found.into());
        PruneError::Kept { block: self.block, unit, expected, found }
    }

    /// Ascending indices below `count`, at least one.
    fn units(&self, unit: &'static str, units: &[usize], count: usize) -> Result<(), PruneError> {
        let ascending = units.is_sorted_by(|a, b| a < b);
        if ascending && units.last().is_some_and(|last| *last < count) {
            return Ok(());
        }
        let found = match units.iter().find(|unit| **unit >= count) {
            Some(unit) => unit.to_string(),
            None if units.is_empty() => "none".to_owned(),
            None => "another order".to_owned(),
        };
        Err(self.wrong(unit, format!("ascending numbers below {count}"), found))
    }

    fn same(&self, unit: &'static str, found: usize, expected: usize) -> Result<(), PruneError> {
        if found == expected {
            return Ok(());
        }
        Err(self.wrong(unit, expected.to_string(), found.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mlp, Op};
    use ndarray::array;

    fn block() -> Block {
        let mlp = Mlp::Dense { width: 6 };
        Block { heads: 4, kv_heads: 2, head_dim: 4, window: None, mlp, ops: [vec![], vec![]] }
    }

    #[test]
    fn all_is_a_part_and_has_the_shape_of_the_block() {
        let kept = Kept::all(&block());
        kept.check(0, &block()).unwrap();
        assert_eq!(kept.shape(), BlockShape::of(&block()));
        assert_eq!(kept.kv_heads[1].pairs, [0, 1]);
    }

    #[test]
    fn what_no_model_can_consist_of_is_refused() {
        type Change = fn(&mut Kept);
        let wrong: [(&str, Change); 9] = [
            ("key/value heads", |k| k.kv_heads.clear()),
            ("key/value heads", |k| k.kv_heads[1].kv_head = 0),
            ("query heads", |k| k.kv_heads[1].queries = vec![0]),
            ("rotary pairs", |k| k.kv_heads[0].pairs = vec![1, 2]),
            ("value channels", |k| k.kv_heads[0].values = Values::Channels(vec![0, 1])),
            ("columns of `down`", |k| {
                k.kv_heads[0].pairs = vec![0];
                k.kv_heads[1].pairs = vec![1];
                let (down, up) = (array![[1.0], [0.0]], array![[1.0, 0.0]]);
                k.kv_heads[0].values = Values::Map { down, up };
            }),
            ("hidden units", |k| *k.mlp.get_mut(&None).unwrap() = vec![2, 1]),
            ("hidden units", |k| *k.mlp.get_mut(&None).unwrap() = vec![6]),
            ("MLPs", |k| k.mlp.clear()),
        ];
        for (unit, change) in wrong {
            let mut kept = Kept::all(&block());
            change(&mut kept);
            let error = kept.check(3, &block()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("block 3: kept {unit}")), "{unit}: {error}");
        }
        let mut kept = Kept::all(&block());
        for (head, pair) in kept.kv_heads.iter_mut().zip([0, 1]) {
            (head.pairs, head.values) = (vec![pair], Values::Channels(vec![0, 3]));
        }
        kept.check(0, &block()).unwrap();
        let normed = Block { ops: [vec![Op::HeadNorms], vec![]], ..block() };
        assert!(matches!(kept.check(0, &normed), Err(PruneError::PairsOfNorm { block: 0 })));
    }
}
