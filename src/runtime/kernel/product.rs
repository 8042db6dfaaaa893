//! Whole products: panels and tokens shared out among threads.
use super::Isa;
use super::activations::{Int8Rows, TOKENS, pad};
use super::packed::{PackedLinear, ROWS};
use crate::linalg::{Team, matmul};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};

/// Bytes of int8 activations that one sweep over the panels keeps in a core's cache.
const SWEEP: usize = 384 << 10;
/// Parts of a product per thread: enough to even out threads that are held up.
const PARTS: usize = 4;
/// Fewer tokens are multiplied one by one with float activations, more as float matrices.
const FEW: usize = 4;
/// Panels that are dequantized together for a float product.
const WIDE: usize = 3;

impl PackedLinear {
    /// `y ← x·Wᵀ` with activations in 8 bits: `x` is `[tokens, in]`, `y` `[tokens, out]`; `scale` is
    /// that of static activations.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn forward_int8(
        &self,
        x: ArrayView2<'_, f32>,
        y: ArrayViewMut2<'_, f32>,
        team: &Team,
        (isa, scale): (Isa, Option<f32>),
    ) {
        assert_eq!(y.dim(), (x.nrows(), self.rows()), "output of a linear layer");
        let x = Int8Rows::new(x, (self.form(), scale), team);
        let sweep = (SWEEP / self.form().width().max(1) / TOKENS).max(1);
        self.each_part(y, 1, team, |first, mut y| {
            for (start, mut y) in y.axis_chunks_iter_mut(Axis(0), sweep * TOKENS).enumerate() {
                for (i, mut y) in y.axis_chunks_iter_mut(Axis(1), ROWS).enumerate() {
                    let panel = self.panel(first + i);
                    for (block, y) in y.axis_chunks_iter_mut(Axis(0), TOKENS).enumerate() {
                        isa.integer(&panel, x.block(start * sweep + block), y);
                    }
                }
            }
        });
    }

    /// `y ← x·Wᵀ` with float activations: `x` is `[tokens, in]`, `y` is `[tokens, out]`.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn forward_float(
        &self,
        x: ArrayView2<'_, f32>,
        y: ArrayViewMut2<'_, f32>,
        team: &Team,
        isa: Isa,
    ) {
        assert_eq!(x.ncols(), self.form().columns, "columns of a linear layer");
        assert_eq!(y.dim(), (x.nrows(), self.rows()), "output of a linear layer");
        if x.nrows() >= FEW {
            return self.forward_wide(x, y, team, isa);
        }
        let padded: Vec<_> = x.rows().into_iter().map(|x| pad(x, self.form())).collect();
        self.each_part(y, 1, team, |first, mut y| {
            for (i, mut y) in y.axis_chunks_iter_mut(Axis(1), ROWS).enumerate() {
                let panel = self.panel(first + i);
                for ((x, padded), mut y) in x.rows().into_iter().zip(&padded).zip(y.rows_mut()) {
                    let x = padded.as_deref().or(x.to_slice()).expect("read in place or padded");
                    let mut all = [0.0; ROWS];
                    isa.float(&panel, x, &mut all);
                    y.iter_mut().zip(all).for_each(|(y, value)| *y = value);
                }
            }
        });
    }

    /// Each row of `x` as [`Self::forward_float`] of it alone, bit for bit; the weights are read
    /// once.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn forward_float_apart(
        &self,
        x: ArrayView2<'_, f32>,
        y: ArrayViewMut2<'_, f32>,
        team: &Team,
        isa: Isa,
    ) {
        assert_eq!(x.ncols(), self.form().columns, "columns of a linear layer");
        assert_eq!(y.dim(), (x.nrows(), self.rows()), "output of a linear layer");
        let blocks: Vec<Vec<f32>> = x
            .axis_chunks_iter(Axis(0), TOKENS)
            .map(|x| {
                let tokens = x.nrows();
                let mut values = vec![0.0; tokens * self.form().width()];
                for (token, x) in x.rows().into_iter().enumerate() {
                    let padded = pad(x, self.form());
                    let x = padded.as_deref().or(x.to_slice()).expect("read in place or padded");
                    let places = values[token..].iter_mut().step_by(tokens);
                    places.zip(x).for_each(|(place, x)| *place = *x);
                }
                values
            })
            .collect();
        self.each_part(y, 1, team, |first, mut y| {
            for (i, mut y) in y.axis_chunks_iter_mut(Axis(1), ROWS).enumerate() {
                let panel = self.panel(first + i);
                for (x, mut y) in blocks.iter().zip(y.axis_chunks_iter_mut(Axis(0), TOKENS)) {
                    let mut all = [[0.0; ROWS]; TOKENS];
                    let all = &mut all[..y.nrows()];
                    isa.floats(&panel, x, all);
                    for (mut y, all) in y.rows_mut().into_iter().zip(all) {
                        y.iter_mut().zip(all).for_each(|(y, value)| *y = *value);
                    }
                }
            }
        });
    }

    /// Many tokens: a few panels at a time in float32.
    fn forward_wide(
        &self,
        x: ArrayView2<'_, f32>,
        y: ArrayViewMut2<'_, f32>,
        team: &Team,
        isa: Isa,
    ) {
        self.each_part(y, WIDE, team, |first, mut y| {
            let stride = WIDE * ROWS;
            let mut w = Array2::zeros((self.form().columns, stride));
            for (i, y) in y.axis_chunks_iter_mut(Axis(1), stride).enumerate() {
                let out = w.as_slice_mut().expect("row-major");
                for panel in 0..y.ncols().div_ceil(ROWS) {
                    let at = (panel * ROWS).min(out.len());
                    isa.dequantize(&self.panel(first + i * WIDE + panel), &mut out[at..], stride);
                }
                matmul(x, w.slice(s![.., ..y.ncols()]), y);
            }
        });
    }

    /// Calls `task(first panel, columns of y)` for parts of whole panels, a multiple of `unit`.
    fn each_part(
        &self,
        mut y: ArrayViewMut2<'_, f32>,
        unit: usize,
        team: &Team,
        task: impl Fn(usize, ArrayViewMut2<'_, f32>) + Sync,
    ) {
        let parts = if team.threads() == 1 { 1 } else { team.threads() * PARTS };
        let panels = self.rows().div_ceil(ROWS).div_ceil(parts).next_multiple_of(unit).max(unit);
        let columns = y.axis_chunks_iter_mut(Axis(1), panels * ROWS).collect();
        team.each(columns, |i, y| task(i * panels, y));
    }
}
