//! Keys and values of past tokens.
use crate::linalg::{scaled_dots, weighted_sum};
use crate::scheme::{
    KvPrecision,
    kv::{Layout, RowMut, Rows, decode_rows, encode_row, row_dots, row_sum},
};
use ndarray::{Array2, ArrayView2, CowArray, Ix2, s};
use std::ops::Range;

/// Keys and values of one block. What is read is what was stored: with integers, of the tokens of
/// the current run too.
#[derive(Clone, Debug)]
pub struct KvCache {
    keys: Side,
    values: Side,
    heads: usize,
    width: usize,
    capacity: usize,
    len: usize,
    /// Of the next run only; none: its tokens follow one another and all stored ones.
    branches: Vec<Branch>,
}

/// Some tokens of a run that follow one another, and what comes before them. A run of several
/// branches goes over a tree of texts whose common beginnings are read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Rows of the run.
    pub rows: Range<usize>,
    /// Stored tokens that come before, in the order of their positions; tokens of the run count
    /// as stored behind those that were there, and must stand in it before this branch.
    pub past: Vec<Range<usize>>,
}

impl Branch {
    /// Tokens before row `row` of the run, itself included: the place of each, with `stored`
    /// tokens before the run.
    pub(super) fn seen(&self, row: usize, stored: usize) -> Vec<Range<usize>> {
        let own = stored + self.rows.start..stored + row + 1;
        let mut seen: Vec<Range<usize>> = Vec::with_capacity(self.past.len() + 1);
        for part in self.past.iter().cloned().chain([own]).filter(|it| !it.is_empty()) {
            match seen.last_mut() {
                Some(last) if last.end == part.start => last.end = part.end,
                _ => seen.push(part),
            }
        }
        seen
    }

    /// Tokens before the first row.
    pub(super) fn depth(&self) -> usize {
        self.past.iter().map(ExactSizeIterator::len).sum()
    }
}

/// Where the tokens of a run are kept.
pub enum Memory<'a> {
    /// All behind the tokens of one sequence.
    One(&'a mut KvCache),
    /// Some behind the tokens of one sequence, the next behind those of another, and so on: how many
    /// stands beside each. Every row looks back alone.
    Each(Vec<(&'a mut KvCache, usize)>),
}

/// Rows of `[heads, capacity]`, as numbers or on grids.
#[derive(Clone, Debug)]
enum Side {
    Numbers(Vec<f32>),
    Codes(Codes),
}

#[derive(Clone, Debug)]
struct Codes {
    layout: Layout,
    bytes: Vec<u8>,
    scales: Vec<u16>,
    zeros: Vec<u8>,
}

impl KvCache {
    /// An empty cache with room for `capacity` tokens of `heads` heads of `width` channels; it
    /// grows when more come.
    pub fn new(heads: usize, width: usize, capacity: usize, precision: KvPrecision) -> Self {
        let capacity = capacity.max(1);
        let rows = heads * capacity;
        let side = match precision {
            KvPrecision::Float => Side::Numbers(vec![0.0; rows * width]),
            KvPrecision::Int8 | KvPrecision::Int4 => {
                Side::Codes(Codes::new(Layout { precision, width }, rows))
            }
        };
        Self { keys: side.clone(), values: side, heads, width, capacity, len: 0, branches: vec![] }
    }

    /// Tokens stored.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is stored.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that the keys and values of `tokens` tokens take.
    pub fn bytes_of(&self, tokens: usize) -> usize {
        let rows = self.heads * tokens;
        [&self.keys, &self.values].into_iter().map(|side| side.bytes_of(rows, self.width)).sum()
    }

    /// Makes room for `tokens` tokens altogether, and no more than that.
    pub fn reserve(&mut self, tokens: usize) {
        if tokens > self.capacity {
            self.grow(tokens);
        }
    }

    /// The first `len` tokens are those of `other`, a cache of the same block.
    pub fn copy_from(&mut self, other: &Self, len: usize) {
        self.truncate(0);
        self.reserve(len);
        self.len = len.min(other.len);
        let rows = |from: usize, capacity: usize| from * capacity..from * capacity + self.len;
        for head in 0..self.heads {
            let (from, to) = (rows(head, other.capacity), rows(head, self.capacity));
            self.keys.copy(&other.keys, (from.clone(), to.clone()), self.width);
            self.values.copy(&other.values, (from, to), self.width);
        }
    }

    /// Forgets all tokens but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// How the tokens of the next run hang together. Their rotary positions are the caller's.
    pub fn plant(&mut self, branches: &[Branch]) {
        self.branches = branches.to_vec();
    }

    /// The branches of this run of `tokens` tokens, before they are stored.
    pub(super) fn take_branches(&mut self, tokens: usize) -> Vec<Branch> {
        let planted = std::mem::take(&mut self.branches);
        if planted.is_empty() {
            return vec![Branch { rows: 0..tokens, past: std::iter::once(0..self.len).collect() }];
        }
        planted
    }

    /// Makes room for `tokens` more and counts them as stored; returns the index of the first.
    pub(super) fn extend(&mut self, tokens: usize) -> usize {
        let first = self.len;
        self.len += tokens;
        if self.len > self.capacity {
            self.grow(self.len.max(2 * self.capacity));
        }
        first
    }

    fn grow(&mut self, capacity: usize) {
        for side in [&mut self.keys, &mut self.values] {
            side.grow(self.heads, self.capacity..capacity);
        }
        self.capacity = capacity;
    }

    /// Writes key and value of one head of the token at `position`.
    pub(super) fn put(&mut self, head: usize, position: usize, key: &[f32], value: &[f32]) {
        let row = head * self.capacity + position;
        self.keys.put(row, key);
        self.values.put(row, value);
    }

    /// Keys of a head for some tokens, `[tokens, head_dim]`.
    pub(super) fn keys(&self, head: usize, tokens: Range<usize>) -> CowArray<'_, f32, Ix2> {
        self.keys.numbers(self.rows(head, tokens), self.width)
    }

    /// Values of a head for some tokens, `[tokens, head_dim]`.
    pub(super) fn values(&self, head: usize, tokens: Range<usize>) -> CowArray<'_, f32, Ix2> {
        self.values.numbers(self.rows(head, tokens), self.width)
    }

    /// Keys and values of a head for some runs of tokens, `[tokens, head_dim]` each.
    pub(super) fn sides(
        &self,
        head: usize,
        tokens: &[Range<usize>],
    ) -> [CowArray<'_, f32, Ix2>; 2] {
        if let [tokens] = tokens {
            return [self.keys(head, tokens.clone()), self.values(head, tokens.clone())];
        }
        let count = tokens.iter().map(ExactSizeIterator::len).sum();
        let mut sides = [(); 2].map(|()| Array2::zeros((count, self.width)));
        let mut first = 0;
        for part in tokens {
            let place = s![first..first + part.len(), ..];
            sides[0].slice_mut(place).assign(&self.keys(head, part.clone()));
            sides[1].slice_mut(place).assign(&self.values(head, part.clone()));
            first += part.len();
        }
        sides.map(Into::into)
    }

    /// `y ← scale · keys · x` for some tokens: `x` `[head_dim]`, `y` `[tokens]`.
    pub(super) fn dots(
        &self,
        (head, tokens): (usize, Range<usize>),
        x: &[f32],
        scale: f32,
        y: &mut [f32],
    ) {
        let rows = self.rows(head, tokens);
        match &self.keys {
            Side::Numbers(all) => {
                scaled_dots(x, &all[rows.start * self.width..rows.end * self.width], scale, y);
            }
            Side::Codes(all) => row_dots(x, all.rows(rows), scale, y),
        }
    }

    /// `y ← weightsᵀ · values` for some tokens: `weights` `[tokens]`, `y` `[head_dim]`.
    pub(super) fn mix(
        &self,
        (head, tokens): (usize, Range<usize>),
        weights: &[f32],
        y: &mut [f32],
    ) {
        let rows = self.rows(head, tokens);
        match &self.values {
            Side::Numbers(all) => {
                weighted_sum(weights, &all[rows.start * self.width..rows.end * self.width], y);
            }
            Side::Codes(all) => row_sum(weights, all.rows(rows), y),
        }
    }

    fn rows(&self, head: usize, tokens: Range<usize>) -> Range<usize> {
        let first = head * self.capacity;
        first + tokens.start..first + tokens.end
    }
}

impl Side {
    fn put(&mut self, row: usize, x: &[f32]) {
        match self {
            Self::Numbers(all) => all[row * x.len()..(row + 1) * x.len()].copy_from_slice(x),
            Self::Codes(all) => encode_row(x, all.row_mut(row)),
        }
    }

    fn numbers(&self, rows: Range<usize>, width: usize) -> CowArray<'_, f32, Ix2> {
        let shape = (rows.len(), width);
        match self {
            Self::Numbers(all) => {
                let stored = &all[rows.start * width..rows.end * width];
                ArrayView2::from_shape(shape, stored).expect("rows of one width").into()
            }
            Self::Codes(all) => {
                let mut numbers = Array2::zeros(shape);
                let out = numbers.as_slice_mut().expect("a new array is contiguous");
                decode_rows(all.rows(rows), out);
                numbers.into()
            }
        }
    }

    /// Bytes of some rows of `width` channels.
    fn bytes_of(&self, rows: usize, width: usize) -> usize {
        rows * match self {
            Self::Numbers(_) => width * size_of::<f32>(),
            Self::Codes(Codes { layout, .. }) => {
                layout.code_bytes() + layout.scales() * size_of::<u16>() + layout.zeros()
            }
        }
    }

    /// Copies rows of a side of the same form.
    fn copy(&mut self, other: &Self, (from, to): (Range<usize>, Range<usize>), width: usize) {
        let times = |rows: &Range<usize>, per: usize| rows.start * per..rows.end * per;
        match (self, other) {
            (Self::Numbers(all), Self::Numbers(other)) => {
                all[times(&to, width)].copy_from_slice(&other[times(&from, width)]);
            }
            (Self::Codes(all), Self::Codes(other)) => {
                let rows = other.rows(from);
                let at = |per: usize| times(&to, per);
                all.bytes[at(rows.layout.code_bytes())].copy_from_slice(rows.codes);
                all.scales[at(rows.layout.scales())].copy_from_slice(rows.scales);
                all.zeros[at(rows.layout.zeros())].copy_from_slice(rows.zeros);
            }
            _ => unreachable!("caches of one block have one form"),
        }
    }

    fn grow(&mut self, heads: usize, capacity: Range<usize>) {
        match self {
            Self::Numbers(all) => spread(all, heads, capacity),
            Self::Codes(all) => {
                spread(&mut all.bytes, heads, capacity.clone());
                spread(&mut all.scales, heads, capacity.clone());
                spread(&mut all.zeros, heads, capacity);
            }
        }
    }
}

/// Makes room for more rows behind those of each head.
fn spread<T: Copy + Default>(all: &mut Vec<T>, heads: usize, capacity: Range<usize>) {
    let old = all.len() / heads.max(1);
    let new = old / capacity.start * capacity.end;
    let mut grown = vec![T::default(); heads * new];
    for (from, to) in all.chunks(old.max(1)).zip(grown.chunks_mut(new.max(1))) {
        to[..from.len()].copy_from_slice(from);
    }
    *all = grown;
}

impl Codes {
    fn new(layout: Layout, rows: usize) -> Self {
        Self {
            layout,
            bytes: vec![0; rows * layout.code_bytes()],
            scales: vec![0; rows * layout.scales()],
            zeros: vec![0; rows * layout.zeros()],
        }
    }

    fn rows(&self, rows: Range<usize>) -> Rows<'_> {
        let of = |per: usize| rows.start * per..rows.end * per;
        let layout = self.layout;
        Rows {
            layout,
            codes: &self.bytes[of(layout.code_bytes())],
            scales: &self.scales[of(layout.scales())],
            zeros: &self.zeros[of(layout.zeros())],
        }
    }

    fn row_mut(&mut self, row: usize) -> RowMut<'_> {
        let layout = self.layout;
        let of = |per: usize| row * per..(row + 1) * per;
        RowMut {
            layout,
            codes: &mut self.bytes[of(layout.code_bytes())],
            scales: &mut self.scales[of(layout.scales())],
            zeros: &mut self.zeros[of(layout.zeros())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [KvPrecision; 3] = [KvPrecision::Float, KvPrecision::Int8, KvPrecision::Int4];
    const HEADS: usize = 3;
    const WIDTH: usize = 40;

    /// A row that no other token or head has.
    fn row(token: usize, head: usize, side: usize) -> Vec<f32> {
        let at = |i| ((token * 31 + head * 17 + side * 7 + i * 3) % 97) as f32 / 48.0 - 1.0;
        (0..WIDTH).map(at).collect()
    }

    fn fill(cache: &mut KvCache, tokens: Range<usize>) {
        assert_eq!(cache.extend(tokens.len()), tokens.start);
        for token in tokens {
            for head in 0..HEADS {
                cache.put(head, token, &row(token, head, 0), &row(token, head, 1));
            }
        }
    }

    /// Everything that is read of the first `len` tokens.
    fn read(cache: &KvCache, len: usize) -> Vec<f32> {
        let sides = (0..HEADS).map(|head| [cache.keys(head, 0..len), cache.values(head, 0..len)]);
        sides.flatten().flat_map(|side| side.iter().copied().collect::<Vec<_>>()).collect()
    }

    #[test]
    fn growing_changes_nothing_that_is_stored() {
        for precision in ALL {
            let mut roomy = KvCache::new(HEADS, WIDTH, 50, precision);
            fill(&mut roomy, 0..50);
            for capacity in [0, 1, 7] {
                let mut tight = KvCache::new(HEADS, WIDTH, capacity, precision);
                fill(&mut tight, 0..5);
                fill(&mut tight, 5..6);
                fill(&mut tight, 6..50);
                assert_eq!(read(&tight, 50), read(&roomy, 50), "{precision:?} {capacity}");
            }
        }
    }

    #[test]
    fn forgotten_tokens_are_replaced() {
        for precision in ALL {
            let mut cache = KvCache::new(HEADS, WIDTH, 8, precision);
            fill(&mut cache, 0..8);
            let before = read(&cache, 8);
            cache.truncate(9);
            assert_eq!(cache.len(), 8);
            cache.truncate(3);
            assert_eq!((cache.len(), cache.is_empty()), (3, false));
            fill(&mut cache, 3..8);
            assert_eq!(read(&cache, 8), before, "{precision:?}");
            cache.truncate(0);
            assert!(cache.is_empty());
            assert_eq!(cache.extend(1), 0);
            cache.put(0, 0, &row(9, 0, 0), &row(9, 0, 1));
            assert_ne!(
                cache.keys(0, 0..1),
                ArrayView2::from_shape((1, WIDTH), &before[..WIDTH]).unwrap()
            );
        }
    }

    #[test]
    fn a_copy_holds_the_first_tokens() {
        for precision in ALL {
            let mut from = KvCache::new(HEADS, WIDTH, 20, precision);
            fill(&mut from, 0..9);
            let mut to = KvCache::new(HEADS, WIDTH, 2, precision);
            fill(&mut to, 0..1);
            to.copy_from(&from, 6);
            assert_eq!((to.len(), read(&to, 6)), (6, read(&from, 6)), "{precision:?}");
            assert_ne!(
                read(&to, 6),
                read(&from, 9)[..6 * 2 * HEADS * WIDTH],
                "the twin: rows lie by head"
            );
            fill(&mut to, 6..9);
            assert_eq!(read(&to, 9), read(&from, 9), "{precision:?}");
            to.reserve(100);
            assert_eq!((to.len(), read(&to, 9)), (9, read(&from, 9)), "{precision:?}");
        }
        let bytes = ALL.map(|it| KvCache::new(HEADS, WIDTH, 1, it).bytes_of(10));
        // Two sides of 10 tokens, 3 heads, 40 channels; codes have scales, 4 bits a zero point too.
        assert_eq!(bytes[0], 2 * 10 * HEADS * WIDTH * 4);
        assert!(bytes[1] > bytes[0] / 4 && bytes[1] < bytes[0] / 3, "{bytes:?}");
        assert!(bytes[2] > bytes[0] / 8 && bytes[2] < bytes[0] / 6, "{bytes:?}");
    }

    #[test]
    fn a_range_of_tokens_is_read_alone() {
        for precision in ALL {
            let mut cache = KvCache::new(HEADS, WIDTH, 8, precision);
            fill(&mut cache, 0..8);
            let (all, part) = (cache.keys(1, 0..8), cache.keys(1, 3..5));
            assert_eq!(all.slice(ndarray::s![3..5, ..]), part, "{precision:?}");
            let mut scores = [0.0; 2];
            cache.dots((1, 3..5), &row(0, 0, 0), 0.25, &mut scores);
            for (score, key) in scores.iter().zip(part.outer_iter()) {
                let want: f32 = key.iter().zip(row(0, 0, 0)).map(|(a, b)| a * b).sum();
                // 40 terms of at most 1, in another order.
                assert!((score - 0.25 * want).abs() < 40.0 * f32::EPSILON);
            }
            let mut mixed = [0.0; WIDTH];
            cache.mix((1, 3..5), &[2.0, -1.0], &mut mixed);
            let values = cache.values(1, 3..5);
            for (i, mixed) in mixed.iter().enumerate() {
                let want = 2.0 * values[[0, i]] - values[[1, i]];
                assert!((mixed - want).abs() < 4.0 * f32::EPSILON);
            }
        }
    }
}
