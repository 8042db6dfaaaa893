//! Causal attention inside windows. Nothing but its input is kept: probabilities are computed again on the
//! way back, tile by tile (`FlashAttention`, arXiv 2205.14135).
use super::run::Run;
use crate::{
    linalg::{matmul, matmul_add, softmax, softmax_gradient},
    model::Block,
};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};

/// Queries of a tile.
const QUERIES: usize = 128;

/// What queries find among keys and values.
#[derive(Clone, Debug)]
pub(super) struct Attend {
    pub(super) sizes: Block,
    pub(super) scale: f32,
}

/// Queries of a tile and the keys that some of them see: both as tokens of a window.
struct Tile {
    queries: std::ops::Range<usize>,
    keys: std::ops::Range<usize>,
}

/// The query heads, the key and the value head of a group in a window, `[tokens, head_dim]` each.
struct Group<'a> {
    queries: Vec<ArrayView2<'a, f32>>,
    keys: ArrayView2<'a, f32>,
    values: ArrayView2<'a, f32>,
}

impl Attend {
    /// All query heads side by side, of queries, keys and values side by side.
    pub(super) fn forward(&self, qkv: &Array2<f32>, run: &Run<'_>) -> Array2<f32> {
        let Block { heads, head_dim, .. } = self.sizes;
        let mut mixed = Array2::zeros((qkv.nrows(), heads * head_dim));
        let tasks = self.split(mixed.view_mut(), run.window);
        run.team.each(tasks, |_, (window, kv_head, mut out)| {
            let group = self.group(qkv, window * run.window..(window + 1) * run.window, kv_head);
            for (queries, mut out) in
                group.queries.iter().zip(out.axis_chunks_iter_mut(Axis(1), head_dim))
            {
                for tile in self.tiles(run.window) {
                    let p = self.probabilities(queries, &group.keys, &tile);
                    let values = group.values.slice(s![tile.keys.clone(), ..]);
                    matmul(p.view(), values, out.slice_mut(s![tile.queries.clone(), ..]));
                }
            }
        });
        mixed
    }

    /// What `dmixed` means for queries, keys and values side by side.
    pub(super) fn backward(
        &self,
        qkv: &Array2<f32>,
        dmixed: &Array2<f32>,
        run: &Run<'_>,
    ) -> Array2<f32> {
        let Block { heads, kv_heads, head_dim, .. } = self.sizes;
        let mut dqkv = Array2::zeros(qkv.dim());
        let repeat = self.sizes.kv_repeat();
        let windows = qkv.nrows() / run.window;
        let mut done: Vec<Option<[Array2<f32>; 3]>> = vec![None; windows * kv_heads];
        run.team.each(done.iter_mut().collect(), |task, done| {
            let (window, kv_head) = (task / kv_heads, task % kv_heads);
            let tokens = window * run.window..(window + 1) * run.window;
            let group = self.group(qkv, tokens.clone(), kv_head);
            let columns = kv_head * repeat * head_dim..(kv_head + 1) * repeat * head_dim;
            *done = Some(self.group_back(&group, dmixed.slice(s![tokens, columns])));
        });
        for (task, [dq, dk, dv]) in done.into_iter().flatten().enumerate() {
            let (window, kv_head) = (task / kv_heads, task % kv_heads);
            let tokens = window * run.window..(window + 1) * run.window;
            let mut put = |first: usize, part: &Array2<f32>| {
                let columns = first * head_dim..first * head_dim + part.ncols();
                dqkv.slice_mut(s![tokens.clone(), columns]).assign(part);
            };
            put(kv_head * repeat, &dq);
            put(heads + kv_head, &dk);
            put(heads + kv_heads + kv_head, &dv);
        }
        dqkv
    }

    /// Gradients of the queries side by side, the keys and the values of a group.
    fn group_back(&self, group: &Group<'_>, dmixed: ArrayView2<'_, f32>) -> [Array2<f32>; 3] {
        let (tokens, width) = group.keys.dim();
        let mut dq = Array2::zeros(dmixed.dim());
        let (mut dk, mut dv) = (Array2::zeros((tokens, width)), Array2::zeros((tokens, width)));
        let heads =
            dmixed.axis_chunks_iter(Axis(1), width).zip(dq.axis_chunks_iter_mut(Axis(1), width));
        for (queries, (dmixed, mut dq)) in group.queries.iter().zip(heads) {
            for tile in self.tiles(tokens) {
                let p = self.probabilities(queries, &group.keys, &tile);
                let Tile { queries: rows, keys } = tile;
                let dout = dmixed.slice(s![rows.clone(), ..]);
                let seen = |side: &ArrayView2<'_, f32>| side.slice(s![keys.clone(), ..]).to_owned();
                matmul_add(p.t(), dout, dv.slice_mut(s![keys.clone(), ..]));
                let mut ds = Array2::zeros(p.dim());
                matmul(dout, seen(&group.values).t(), ds.view_mut());
                for (p, mut ds) in p.outer_iter().zip(ds.outer_iter_mut()) {
                    let ds = ds.as_slice_mut().expect("rows are contiguous");
                    softmax_gradient(p.to_slice().expect("rows are contiguous"), ds);
                    for ds in ds.iter_mut() {
                        *ds *= self.scale;
                    }
                }
                matmul(ds.view(), seen(&group.keys).view(), dq.slice_mut(s![rows.clone(), ..]));
                matmul_add(ds.t(), queries.slice(s![rows, ..]), dk.slice_mut(s![keys.clone(), ..]));
            }
        }
        [dq, dk, dv]
    }

    /// Probabilities `[queries, keys]` of a tile; 0 where a query does not look.
    fn probabilities(
        &self,
        queries: &ArrayView2<'_, f32>,
        keys: &ArrayView2<'_, f32>,
        tile: &Tile,
    ) -> Array2<f32> {
        let mut scores = Array2::zeros((tile.queries.len(), tile.keys.len()));
        let (q, k) =
            (queries.slice(s![tile.queries.clone(), ..]), keys.slice(s![tile.keys.clone(), ..]));
        matmul(q, k.t(), scores.view_mut());
        for (token, mut row) in tile.queries.clone().zip(scores.outer_iter_mut()) {
            let row = row.as_slice_mut().expect("rows are contiguous");
            let (first, end) = (self.first(token) - tile.keys.start, token + 1 - tile.keys.start);
            for x in &mut row[first..end] {
                *x *= self.scale;
            }
            softmax(&mut row[first..end]);
            row[..first].fill(0.0);
            row[end..].fill(0.0);
        }
        scores
    }

    /// The first key that a token sees.
    fn first(&self, token: usize) -> usize {
        self.sizes.window.map_or(0, |window| (token + 1).saturating_sub(window))
    }

    fn tiles(&self, tokens: usize) -> impl Iterator<Item = Tile> + '_ {
        (0..tokens).step_by(QUERIES).map(move |start| {
            let end = tokens.min(start + QUERIES);
            Tile { queries: start..end, keys: self.first(start)..end }
        })
    }

    fn group<'a>(
        &self,
        qkv: &'a Array2<f32>,
        tokens: std::ops::Range<usize>,
        kv_head: usize,
    ) -> Group<'a> {
        let Block { heads, kv_heads, head_dim, .. } = self.sizes;
        let repeat = self.sizes.kv_repeat();
        let head = |at: usize| qkv.slice(s![tokens.clone(), at * head_dim..(at + 1) * head_dim]);
        Group {
            queries: (kv_head * repeat..(kv_head + 1) * repeat).map(head).collect(),
            keys: head(heads + kv_head),
            values: head(heads + kv_heads + kv_head),
        }
    }

    /// Splits the outputs by windows and groups of heads: window, group, `[tokens, its columns]`.
    fn split<'a>(
        &self,
        mut mixed: ArrayViewMut2<'a, f32>,
        window: usize,
    ) -> Vec<(usize, usize, ArrayViewMut2<'a, f32>)> {
        let columns = self.sizes.kv_repeat() * self.sizes.head_dim;
        let mut tasks = Vec::new();
        for index in 0..mixed.nrows() / window.max(1) {
            let (mut band, rest) = mixed.split_at(Axis(0), window);
            for kv_head in 0..self.sizes.kv_heads {
                let (tile, right) = band.split_at(Axis(1), columns);
                tasks.push((index, kv_head, tile));
                band = right;
            }
            mixed = rest;
        }
        tasks
    }
}
