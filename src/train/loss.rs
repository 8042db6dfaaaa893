//! What logits should be, and how far they are from it.
use super::rows;
use crate::{
    forward,
    linalg::{Team, log_sum_exp, softmax},
};
use ndarray::{Array2, ArrayView2, s};
use std::ops::Range;

/// What the logits of some rows should be.
pub trait Target {
    /// Replaces logits `[rows, vocab]` of the rows `rows` by the gradient of their losses; gives the sum of the
    /// losses.
    fn gradient(&self, rows: Range<usize>, logits: &mut Array2<f32>, team: &Team) -> f64;
}

/// The token that follows each row; the loss is the cross-entropy, −log q(token).
pub struct Labels<'a>(pub &'a [u32]);

impl Target for Labels<'_> {
    fn gradient(&self, rows: Range<usize>, logits: &mut Array2<f32>, team: &Team) -> f64 {
        let labels = &self.0[rows];
        let losses = rows::summed(logits.view_mut(), 1, team, |t, z, loss| {
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
            let (below, above) = (log_sum_exp(&p), log_sum_exp(z));
            let mut kl = 0.0;
            for (p, z) in p.iter().zip(&*z) {
                let log_p = f64::from(*p) - below;
                kl += log_p.exp() * (log_p - (f64::from(*z) - above));
            }
            loss[0] += (kl * f64::from(t * t)) as f32;
            softmax(&mut p);
            softmax(z);
            z.iter_mut().zip(&p).for_each(|(z, p)| *z = (*z - p) * t);
        });
        f64::from(losses[0])
    }
}
