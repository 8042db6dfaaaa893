//! What logits should be, and how far they are from it.
use super::{linear::Linear, parameters::Parameters, rows};
use crate::{
    forward,
    linalg::{Team, divergence, log_sum_exp, softmax},
};
use ndarray::{Array2, ArrayView2, Axis, s};
use std::ops::Range;

/// What the logits of some rows should be.
pub trait Target {
    /// Replaces logits `[rows, vocab]` of the rows `rows` by the gradient of their losses; gives the sum of the
    /// losses.
    fn gradient(&self, rows: Range<usize>, logits: &mut Array2<f32>, team: &Team) -> f64;
}

/// Rows of logits that are in memory at a time.
const ROWS: usize = 128;

/// The sum of the losses of logits `x·Wᵀ`, `[tokens, hidden]`. Logits are made [`ROWS`] rows at a time.
pub(super) fn loss(
    (linear, parameters): (Linear, &Parameters),
    x: ArrayView2<'_, f32>,
    target: &dyn Target,
    team: &Team,
) -> f64 {
    let parts = x.axis_chunks_iter(Axis(0), ROWS).enumerate().map(|(part, x)| {
        let rows = part * ROWS..part * ROWS + x.nrows();
        target.gradient(rows, &mut linear.of(x, parameters, team), team)
    });
    parts.sum()
}

/// As [`loss`], and its gradient by `x` times `scale`; the sums of the layer's gradients grow.
pub(super) fn learn(
    (linear, parameters): (Linear, &mut Parameters),
    x: ArrayView2<'_, f32>,
    (target, scale): (&dyn Target, f32),
    team: &Team,
) -> (f64, Array2<f32>) {
    let mut dx = Array2::zeros(x.dim());
    let mut loss = 0.0;
    for (part, mut dx) in dx.axis_chunks_iter_mut(Axis(0), ROWS).enumerate() {
        let rows = part * ROWS..part * ROWS + dx.nrows();
        let x = x.slice(s![rows.clone(), ..]);
        let mut logits = linear.of(x, parameters, team);
        loss += target.gradient(rows, &mut logits, team);
        logits *= scale;
        linear.backward(x, logits.view(), dx.view_mut(), parameters, team);
    }
    (loss, dx)
}

/// The token that follows each row; the loss is the cross-entropy, −log q(token). A row whose token is
/// [`NO_LABEL`] has none.
pub struct Labels<'a>(pub &'a [u32]);

/// Stands for a token that is not learnt.
pub const NO_LABEL: u32 = u32::MAX;

impl Target for Labels<'_> {
    fn gradient(&self, rows: Range<usize>, logits: &mut Array2<f32>, team: &Team) -> f64 {
        let labels = &self.0[rows];
        let losses = rows::summed(logits.view_mut(), 1, team, |t, z, loss| {
            if labels[t] == NO_LABEL {
                return z.fill(0.0);
            }
            let label = labels[t] as usize;
            loss[0] += (log_sum_exp(z) - f64::from(z[label])) as f32;
            softmax(z);
            z[label] -= 1.0;
        });
        f64::from(losses[0])
    }
}

/// The distribution of a parent, by its head over its last stream `[rows, hidden]`; the loss is
/// KL(parent ‖ model), of logits over the temperature on both sides, times its square
/// (arXiv 1503.02531).
pub struct Parent<'a> {
    /// Head of the parent.
    pub head: &'a forward::Head,
    /// Its stream behind the last block.
    pub stream: ArrayView2<'a, f32>,
    /// Temperature T, above 0.
    pub temperature: f32,
}

impl Target for Parent<'_> {
    fn gradient(&self, rows: Range<usize>, logits: &mut Array2<f32>, team: &Team) -> f64 {
        let wanted = self.head.logits(self.stream.slice(s![rows, ..]), team);
        let t = self.temperature;
        let losses = rows::summed(logits.view_mut(), 1, team, |row, z, loss| {
            let mut p = wanted.row(row).to_vec();
            z.iter_mut().chain(&mut p).for_each(|x| *x /= t);
            let kl = divergence((&p, log_sum_exp(&p)), (z, log_sum_exp(z)));
            loss[0] += (kl * f64::from(t * t)) as f32;
            softmax(&mut p);
            softmax(z);
            z.iter_mut().zip(&p).for_each(|(z, p)| *z = (*z - p) * t);
        });
        f64::from(losses[0])
    }
}
