//! Causal attention with grouped heads, a window, and a cache.
use super::{
    kv_cache::{Branch, KvCache, Memory},
    points::Point,
    scratch::{Run, Slot, Value},
    tap::Site,
};
use crate::linalg::{Team, matmul, softmax};
use crate::model::Block;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use std::ops::Range;

/// Queries that one task takes.
const QUERIES: usize = 64;

/// What queries find among keys and values.
pub(super) struct Attend {
    sizes: Block,
    scale: f32,
}

impl Attend {
    /// Of a block; `width` is that of [`Op::Attend`](crate::model::Op::Attend).
    pub(super) fn new(sizes: &Block, width: Option<usize>) -> Self {
        Self { sizes: sizes.clone(), scale: sizes.score_scale(width) }
    }

    /// All query heads side by side, of queries, keys and values side by side. Appends the tokens
    /// to the cache.
    pub(super) fn forward(
        &self,
        qkv: ArrayView2<'_, f32>,
        memory: Memory<'_>,
        run: &mut Run<'_>,
    ) -> Value {
        let Block { heads, kv_heads, head_dim: width, .. } = self.sizes;
        let mut value = run.scratch.value(Slot::Mixed, qkv.nrows(), heads * width);
        let mut mixed = value.view_mut();
        let Run { team, tap, .. } = run;
        tap.see(Site::Queries, qkv.slice(s![.., ..heads * width]));
        tap.see(Site::Keys, qkv.slice(s![.., heads * width..(heads + kv_heads) * width]));
        match memory {
            Memory::One(cache) => self.look_back(qkv, mixed.view_mut(), cache, team),
            Memory::Each(caches) => self.look_apart(qkv, mixed.view_mut(), caches, team),
        }
        tap.alter((Point::Mixed, None), mixed);
        value
    }

    /// Attention of tokens that follow those of a cache.
    fn look_back(
        &self,
        qkv: ArrayView2<'_, f32>,
        mixed: ArrayViewMut2<'_, f32>,
        cache: &mut KvCache,
        team: &Team,
    ) {
        let branches = cache.take_branches(qkv.nrows());
        let past = self.remember(qkv, cache);
        let cache = &*cache;
        let tasks = tiles(mixed, &branches, self.sizes.kv_repeat() * self.sizes.head_dim);
        team.each(tasks, |_, (branch, first, (kv_head, out))| {
            let rows = first..first + out.nrows();
            let columns = kv_head * out.ncols()..(kv_head + 1) * out.ncols();
            let queries = qkv.slice(s![rows.clone(), columns]);
            let first = branch.depth() + first - branch.rows.start;
            let seen = branch.seen(rows.end - 1, past);
            self.group(queries, (cache, kv_head, seen), first, out);
        });
    }

    /// Attention of tokens that follow caches of their own, some each; every row has the bits of a
    /// run of it alone.
    fn look_apart(
        &self,
        qkv: ArrayView2<'_, f32>,
        mixed: ArrayViewMut2<'_, f32>,
        mut caches: Vec<(&mut KvCache, usize)>,
        team: &Team,
    ) {
        let (mut branches, mut owners) = (Vec::new(), Vec::new());
        for (owner, (cache, rows)) in caches.iter_mut().enumerate() {
            let first = branches.len();
            let past = self.remember(qkv.slice(s![first..first + *rows, ..]), cache);
            owners.extend(std::iter::repeat_n(owner, *rows));
            branches.extend((0..*rows).map(|t| Branch {
                rows: first + t..first + t + 1,
                past: std::iter::once(0..past + t).collect(),
            }));
        }
        let caches: Vec<&KvCache> = caches.into_iter().map(|(cache, _)| &*cache).collect();
        let tasks = tiles(mixed, &branches, self.sizes.kv_repeat() * self.sizes.head_dim);
        team.each(tasks, |_, (branch, row, (kv_head, out))| {
            let columns = kv_head * out.ncols()..(kv_head + 1) * out.ncols();
            let (depth, queries) = (branch.depth(), qkv.slice(s![row..=row, columns]));
            let seen = std::iter::once(0..depth + 1).collect();
            self.group(queries, (caches[owners[row]], kv_head, seen), depth, out);
        });
    }

    /// Stores keys and values; returns the number of tokens before them.
    fn remember(&self, qkv: ArrayView2<'_, f32>, cache: &mut KvCache) -> usize {
        let Block { heads, kv_heads, head_dim, .. } = self.sizes;
        let past = cache.extend(qkv.nrows());
        for (t, row) in qkv.outer_iter().enumerate() {
            let row = row.to_slice().expect("rows are contiguous");
            let (keys, values) = row[heads * head_dim..].split_at(kv_heads * head_dim);
            let pairs = keys.chunks(head_dim).zip(values.chunks(head_dim));
            for (head, (key, value)) in pairs.enumerate() {
                cache.put(head, past + t, key, value);
            }
        }
        past
    }

    /// The query heads of one key/value head for a run of tokens from position `first` on, over
    /// the stored tokens `seen`, which are the positions from 0 to the run's last.
    fn group(
        &self,
        queries: ArrayView2<'_, f32>,
        (cache, kv_head, seen): (&KvCache, usize, Vec<Range<usize>>),
        first: usize,
        mut out: ArrayViewMut2<'_, f32>,
    ) {
        let (tokens, width) = (queries.nrows(), self.sizes.head_dim);
        let start = self.sizes.window.map_or(0, |w| (first + 1).saturating_sub(w));
        let seen = behind(seen, start);
        let scale = self.scale;
        let mut scores = Array2::zeros((tokens, first + tokens - start));
        let heads = queries.axis_chunks_iter(Axis(1), width);
        let heads = heads.zip(out.axis_chunks_iter_mut(Axis(1), width));
        if let (1, [seen]) = (tokens, seen.as_slice()) {
            for (query, out) in heads {
                one_query(query, (cache, kv_head, seen.clone()), &mut scores, scale, out);
            }
            return;
        }
        let [keys, values] = cache.sides(kv_head, &seen);
        for (queries, mut out) in heads {
            matmul(queries, keys.t(), scores.view_mut());
            for (t, mut row) in scores.outer_iter_mut().enumerate() {
                let row = row.as_slice_mut().expect("rows are contiguous");
                let last = first + t - start;
                let from = self.sizes.window.map_or(0, |w| (last + 1).saturating_sub(w));
                let seen = &mut row[from..=last];
                for x in &mut *seen {
                    *x *= scale;
                }
                softmax(seen);
                row[..from].fill(0.0);
                row[last + 1..].fill(0.0);
            }
            matmul(scores.view(), values.view(), out.view_mut());
        }
    }
}

/// Attention of a single query, without the set-up of a matrix product.
fn one_query(
    query: ArrayView2<'_, f32>,
    (cache, kv_head, seen): (&KvCache, usize, Range<usize>),
    scores: &mut Array2<f32>,
    scale: f32,
    mut out: ArrayViewMut2<'_, f32>,
) {
    let slice = "rows are contiguous";
    let (query, mut out) = (query.row(0), out.row_mut(0));
    let scores = scores.as_slice_mut().expect(slice);
    cache.dots((kv_head, seen.clone()), query.to_slice().expect(slice), scale, scores);
    softmax(scores);
    cache.mix((kv_head, seen), scores, out.as_slice_mut().expect(slice));
}

/// Runs of tokens without the first `count` of them all.
fn behind(runs: Vec<Range<usize>>, mut count: usize) -> Vec<Range<usize>> {
    let cut = runs.into_iter().map(|run| {
        let gone = count.min(run.len());
        count -= gone;
        run.start + gone..run.end
    });
    cut.filter(|run| !run.is_empty()).collect()
}

/// Where a tile belongs to: its branch, its first row, its column of tiles; and the tile.
type Tile<'a> = (&'a Branch, usize, (usize, ArrayViewMut2<'a, f32>));

/// Splits a matrix into tiles of at most [`QUERIES`] rows of one branch × `columns`.
fn tiles<'a>(
    mut whole: ArrayViewMut2<'a, f32>,
    branches: &'a [Branch],
    columns: usize,
) -> Vec<Tile<'a>> {
    let mut tiles = Vec::new();
    for branch in branches {
        let mut first = branch.rows.start;
        while first < branch.rows.end {
            let height = QUERIES.min(branch.rows.end - first);
            let (mut band, rest) = whole.split_at(Axis(0), height);
            for column in 0..band.ncols() / columns {
                let (tile, right) = band.split_at(Axis(1), columns);
                tiles.push((branch, first, (column, tile)));
                band = right;
            }
            first += height;
            whole = rest;
        }
    }
    tiles
}
