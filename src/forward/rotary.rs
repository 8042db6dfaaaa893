//! Cosines and sines of rotary positions, computed once for all blocks.
use crate::model::Rope;
use ndarray::Array2;
use std::ops::Range;

/// Tables for a run of positions: `[tokens, head_dim / 2]`, from float64 angles.
#[derive(Clone, Debug)]
pub struct Rotary {
    cos: Array2<f32>,
    sin: Array2<f32>,
}

impl Rotary {
    /// Tables for some positions of heads of width `head_dim`; `total` is the length of the
    /// whole sequence, which some ways of stretching depend on.
    pub fn new(rope: &Rope, head_dim: usize, positions: Range<usize>, total: usize) -> Self {
        let frequencies = rope.frequencies(head_dim, total);
        let (start, tokens) = (positions.start, positions.len());
        let factor = rope.attention_factor();
        let table = |f: fn(f64) -> f64| {
            Array2::from_shape_fn((tokens, frequencies.len()), |(t, pair)| {
                (f((start + t) as f64 * frequencies[pair]) * factor) as f32
            })
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Turns one head of the token in row `token`: pair `i` is `(x[i], x[i + head_dim / 2])`.
    pub fn turn(&self, token: usize, head: &mut [f32]) {
        let (first, second) = head.split_at_mut(head.len() / 2);
        let (cos, sin) = (self.cos.row(token), self.sin.row(token));
        for (((x, y), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            (*x, *y) = (*x * c - *y * s, *y * c + *x * s);
        }
    }
}
