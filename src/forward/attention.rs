//! Causal attention with grouped heads, a window, and a cache.
use super::{
    kv_cache::{Branch, KvCache, Memory},
    points::Point,
    projection::{Loader, Projection, each_row},
    rotary::Rotary,
    scratch::Run,
    tap::Site,
};
use crate::linalg::{Hadamard, Team, matmul, rms_norm, softmax};
use crate::model::{Block, Role, WeightError};
use crate::scheme::KvPrecision;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use std::ops::Range;

/// Queries that one task takes.
const QUERIES: usize = 64;

/// Attention of one block.
pub(super) struct Attention {
    qkv: Projection,
    o: Projection,
    /// Gains of queries and keys, where they are normalized per head.
    qk_gains: Option<[Vec<f32>; 2]>,
    /// What queries and keys are multiplied by after RoPE.
    rotation: Option<Hadamard>,
    kv_cache: KvPrecision,
    sizes: Block,
    eps: f32,
}

impl Attention {
    pub(super) fn load(loader: &Loader<'_>, sizes: &Block) -> Result<Self, WeightError> {
        let gains = || Ok([loader.gain(Role::QNorm)?, loader.gain(Role::KNorm)?]);
        Ok(Self {
            qkv: loader.projection(&[Role::Q, Role::K, Role::V])?,
            o: loader.projection(&[Role::O])?,
            rotation: loader.hadamard(sizes.head_dim, |transformed| transformed.keys),
            qk_gains: sizes.qk_norm.then(gains).transpose()?,
            kv_cache: loader.model.spec.kv_cache,
            sizes: sizes.clone(),
            eps: loader.model.spec.norm_eps,
        })
    }

    /// `y ← O(attention(x))`: `x` is the normed `[tokens, hidden]`, `y` alike. Appends the tokens
    /// to the cache; row `t` of `rotary` belongs to token `t` of `x`.
    pub(super) fn forward(
        &self,
        x: ArrayView2<'_, f32>,
        y: ArrayViewMut2<'_, f32>,
        place: (Memory<'_>, &Rotary),
        run: &mut Run<'_>,
    ) {
        let mut buffer = std::mem::take(&mut run.scratch.mixed);
        let mut mixed = buffer.take(x.nrows(), self.mixed_width());
        self.mix(x, mixed.view_mut(), place, run);
        self.project(mixed.view(), y, run);
        run.scratch.mixed = buffer;
    }

    /// An empty cache with room for `capacity` tokens.
    pub(super) fn cache(&self, capacity: usize) -> KvCache {
        KvCache::new(self.sizes.kv_heads, self.sizes.head_dim, capacity, self.kv_cache)
    }

    /// Columns of the input of the output projection.
    pub(super) fn mixed_width(&self) -> usize {
        self.sizes.heads * self.sizes.head_dim
    }

    /// `y ← O(mixed)`.
    pub(super) fn project(
        &self,
        mixed: ArrayView2<'_, f32>,
        mut y: ArrayViewMut2<'_, f32>,
        run: &mut Run<'_>,
    ) {
        run.tap.see(Site::Input(Role::O, None), mixed.view());
        self.o.forward(mixed, y.view_mut(), run.by());
        run.tap.see(Site::Output(Role::O), y.view());
        run.tap.alter((Point::O, None), y);
    }

    /// `mixed ← attention(x)`, all query heads side by side.
    pub(super) fn mix(
        &self,
        x: ArrayView2<'_, f32>,
        mut mixed: ArrayViewMut2<'_, f32>,
        (memory, rotary): (Memory<'_>, &Rotary),
        run: &mut Run<'_>,
    ) {
        let (tokens, by) = (x.nrows(), run.by());
        let Block { heads, kv_heads, head_dim: width, .. } = self.sizes;
        let Run { team, scratch, tap, .. } = run;
        tap.see(Site::Input(Role::Q, None), x);
        let mut qkv = scratch.qkv.take(tokens, self.qkv.out_features());
        self.qkv.forward(x, qkv.view_mut(), by);
        let (q, k) = (heads * width, (heads + kv_heads) * width);
        for (point, columns) in [(Point::Q, s![.., ..q]), (Point::K, s![.., q..k])] {
            tap.alter((point, None), qkv.slice_mut(columns));
        }
        tap.alter((Point::V, None), qkv.slice_mut(s![.., k..]));
        each_row(qkv.view_mut(), team, |t, row| self.turn(t, row, rotary));
        tap.see(Site::Queries, qkv.slice(s![.., ..heads * width]));
        tap.see(Site::Keys, qkv.slice(s![.., heads * width..(heads + kv_heads) * width]));
        match memory {
            Memory::One(cache) => self.look_back(qkv.view(), mixed.view_mut(), cache, team),
            Memory::Each(caches) => self.look_apart(qkv.view(), mixed.view_mut(), caches, team),
        }
        tap.alter((Point::Mixed, None), mixed);
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

    /// Norm and rotation of the query and key heads of one token.
    fn turn(&self, token: usize, row: &mut [f32], rotary: &Rotary) {
        let Block { heads, kv_heads, head_dim, .. } = self.sizes;
        let repeat = self.sizes.kv_repeat();
        let turned = &mut row[..(heads + kv_heads) * head_dim];
        for (index, head) in turned.chunks_mut(head_dim).enumerate() {
            if let Some([q, k]) = &self.qk_gains {
                let plain = head.to_vec();
                rms_norm(&plain, if index < heads { q } else { k }, self.eps, head);
            }
            let kv_head = if index < heads { index / repeat } else { index - heads };
            rotary.turn(token, kv_head, head);
            if let Some(rotation) = &self.rotation {
                rotation.apply(head);
            }
        }
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
        let scale = 1.0 / (width as f32).sqrt();
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
