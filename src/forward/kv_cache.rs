//! Keys and values of past tokens.
use ndarray::{Array3, ArrayView2, s};

/// Keys and values of one block, float32, `[kv_heads, capacity, head_dim]` each.
#[derive(Clone, Debug)]
pub struct KvCache {
    keys: Array3<f32>,
    values: Array3<f32>,
    len: usize,
}

impl KvCache {
    /// An empty cache with room for `capacity` tokens; it grows when more come.
    pub fn new(kv_heads: usize, head_dim: usize, capacity: usize) -> Self {
        let empty = Array3::zeros((kv_heads, capacity, head_dim));
        Self { keys: empty.clone(), values: empty, len: 0 }
    }

    /// Tokens stored.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is stored.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all tokens but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for `tokens` more and counts them as stored; returns the index of the first.
    pub(super) fn extend(&mut self, tokens: usize) -> usize {
        let first = self.len;
        self.len += tokens;
        let (heads, capacity, width) = self.keys.dim();
        if self.len > capacity {
            let larger = self.len.max(2 * capacity);
            for side in [&mut self.keys, &mut self.values] {
                let mut grown = Array3::zeros((heads, larger, width));
                grown.slice_mut(s![.., ..first, ..]).assign(&side.slice(s![.., ..first, ..]));
                *side = grown;
            }
        }
        first
    }

    /// Writes key and value of one head of the token at `position`.
    pub(super) fn put(&mut self, head: usize, position: usize, key: &[f32], value: &[f32]) {
        for (side, row) in [(&mut self.keys, key), (&mut self.values, value)] {
            let mut place = side.slice_mut(s![head, position, ..]);
            place.as_slice_mut().expect("rows are contiguous").copy_from_slice(row);
        }
    }

    /// Keys of a head for the first `len` tokens, `[len, head_dim]`.
    pub(super) fn keys(&self, head: usize, len: usize) -> ArrayView2<'_, f32> {
        self.keys.slice(s![head, ..len, ..])
    }

    /// Values of a head for the first `len` tokens, `[len, head_dim]`.
    pub(super) fn values(&self, head: usize, len: usize) -> ArrayView2<'_, f32> {
        self.values.slice(s![head, ..len, ..])
    }
}
