//! Cosines and sines of rotary positions, computed once for all blocks that turn alike.
use crate::model::{ModelSpec, Rope};
use ndarray::Array2;
use std::ops::Range;

/// Tables for a run of positions: `[tokens, head_dim / 2]`, from float64 angles; one for all
/// heads, or one per key/value head.
#[derive(Clone, Debug)]
pub struct Rotary {
    tables: Vec<Table>,
}

#[derive(Clone, Debug)]
struct Table {
    cos: Array2<f32>,
    sin: Array2<f32>,
}

impl Rotary {
    /// Tables for some positions of the heads of block `block` of a model; `total` is the length
    /// of the whole sequence, which some ways of stretching depend on.
    pub fn new(spec: &ModelSpec, block: usize, positions: Range<usize>, total: usize) -> Self {
        Self::at(spec, block, &positions.collect::<Vec<_>>(), total)
    }

    /// As [`Self::new`], of any positions.
    pub fn at(spec: &ModelSpec, block: usize, positions: &[usize], total: usize) -> Self {
        let sizes = &spec.blocks[block];
        let rope = spec.rope_of(block);
        let tables = if rope.kept.is_some() { sizes.kv_heads } else { 1 };
        let table = |kv_head| {
            let of = rope.head_frequencies((block, kv_head), sizes.head_dim, total);
            Table::new(rope, &of, positions)
        };
        Self { tables: (0..tables).map(table).collect() }
    }

    /// Turns one head of the token in row `token`: pair `i` is `(x[i], x[i + head_dim / 2])`.
    /// `kv_head` is the head itself, or that which a query head belongs to.
    pub fn turn(&self, token: usize, kv_head: usize, head: &mut [f32]) {
        self.each_pair((token, kv_head), head, |x, y, c, s| (x * c - y * s, y * c + x * s));
    }

    /// Turns a head by the opposite angles, scaled as [`Self::turn`] does: the transposed map.
    pub fn turn_back(&self, token: usize, kv_head: usize, head: &mut [f32]) {
        self.each_pair((token, kv_head), head, |x, y, c, s| (x * c + y * s, y * c - x * s));
    }

    #[inline(always)]
    fn each_pair(
        &self,
        (token, kv_head): (usize, usize),
        head: &mut [f32],
        f: impl Fn(f32, f32, f32, f32) -> (f32, f32),
    ) {
        let (first, second) = head.split_at_mut(head.len() / 2);
        let Table { cos, sin } = &self.tables[kv_head.min(self.tables.len() - 1)];
        let (cos, sin) = (cos.row(token), sin.row(token));
        for (((x, y), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            (*x, *y) = f(*x, *y, *c, *s);
        }
    }
}

impl Table {
    fn new(rope: &Rope, frequencies: &[f64], positions: &[usize]) -> Self {
        let factor = rope.attention_factor();
        let table = |f: fn(f64) -> f64| {
            Array2::from_shape_fn((positions.len(), frequencies.len()), |(t, pair)| {
                (f(positions[t] as f64 * frequencies[pair]) * factor) as f32
            })
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }
}

/// The tables that were used last, of either rope: blocks that turn alike share them.
#[derive(Clone, Debug, Default)]
pub struct RotaryCache {
    last: [Option<(Key, Rotary)>; 2],
}

#[derive(Clone, Debug, PartialEq)]
struct Key {
    /// The block, where blocks differ.
    block: Option<usize>,
    head_dim: usize,
    positions: Vec<usize>,
    total: usize,
}

impl RotaryCache {
    /// [`Rotary::new`], unless the last call was for the same tables. For one model only.
    pub fn get(
        &mut self,
        spec: &ModelSpec,
        block: usize,
        positions: Range<usize>,
        total: usize,
    ) -> &Rotary {
        self.at(spec, block, &positions.collect::<Vec<_>>(), total)
    }

    /// As [`Self::get`], of any positions.
    pub fn at(
        &mut self,
        spec: &ModelSpec,
        block: usize,
        positions: &[usize],
        total: usize,
    ) -> &Rotary {
        let own = spec.rope_of(block).kept.is_some().then_some(block);
        let slot = &mut self.last[usize::from(spec.is_local(block))];
        let head_dim = spec.blocks[block].head_dim;
        let key = Key { block: own, head_dim, positions: positions.to_vec(), total };
        let (_, rotary) = match slot.take() {
            Some((last, rotary)) if last == key => slot.insert((last, rotary)),
            _ => {
                let rotary = Rotary::at(spec, block, positions, total);
                slot.insert((key, rotary))
            }
        };
        rotary
    }
}
