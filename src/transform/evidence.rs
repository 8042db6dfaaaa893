//! Calibration activations that rotations are made of.
use super::TransformError;
use crate::{
    calibrate::{BlockStatistics, Request, Walk},
    forward::Reference,
    linalg::Team,
    model::{Mlp, Model, ModelSpec, Part, Role},
    progress::Progress,
};
use ndarray::{Array2, s};
use std::collections::BTreeSet;

/// Normalized tokens that are kept of each block.
const SAMPLES_OF_BLOCK: usize = 256;
/// Gains below this share of the largest do not let their channel be known.
const SMALL_GAIN: f32 = 1e-6;

/// What is known of a model's activations.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Second moments of what norms give before their gains, each norm's divided by its tokens
    /// and all summed, `[hidden, hidden]`.
    pub residual: Array2<f64>,
    /// Such rows of some tokens of all blocks, `[tokens, hidden]`.
    pub samples: Option<Array2<f32>>,
    /// Second moments of what each key/value head gives to the output projection,
    /// `[block][kv_head]` of `[head_dim, head_dim]`.
    pub values: Vec<Vec<Array2<f64>>>,
}

impl Evidence {
    /// Runs a float model over windows of text.
    pub fn collect(
        model: &Model,
        windows: &[Vec<u32>],
        aids: (&Team, &dyn Progress),
    ) -> Result<Self, TransformError> {
        let spec = &model.spec;
        let mut walk = Walk::new(model, &Reference, windows, aids)?;
        let mut residual = Array2::zeros((spec.hidden, spec.hidden));
        let (mut samples, mut values) = (Vec::new(), Vec::new());
        for (b, block) in spec.blocks.iter().enumerate() {
            sample(&walk, (b, spec.norm_eps), &mut samples);
            let mlp = match block.mlp {
                Mlp::Dense { .. } => Role::Gate,
                Mlp::Experts { .. } => Role::Router,
            };
            let covariance = BTreeSet::from([Role::Q, mlp]);
            let request = Request { covariance, heads: true, cross: false };
            let seen = walk.observe(&request)?;
            for (role, norm) in [(Role::Q, Role::AttnNorm), (mlp, Role::MlpNorm)] {
                let gain = gain(model, b, norm)?;
                add_normalized(&seen, role, &gain, &mut residual);
            }
            values.push(head_moments(&seen, block.kv_heads));
        }
        let rows = samples.len() / spec.hidden.max(1);
        let samples = Array2::from_shape_vec((rows, spec.hidden), samples).ok();
        Ok(Self { residual, samples, values })
    }

    /// Itself, if it is of a model of this shape.
    pub(super) fn fitting(&self, spec: &ModelSpec) -> Result<&Self, TransformError> {
        let width = |head: &Array2<f64>| head.nrows();
        let heads: usize = spec.blocks.iter().map(|block| block.kv_heads * block.head_dim).sum();
        let samples = self.samples.as_ref().map_or(spec.hidden, Array2::ncols);
        for (what, expected, found) in [
            ("width", spec.hidden, self.residual.nrows()),
            ("width", spec.hidden, self.residual.ncols()),
            ("width of tokens", spec.hidden, samples),
            ("blocks", spec.blocks.len(), self.values.len()),
            ("width of all heads", heads, self.values.iter().flatten().map(width).sum()),
        ] {
            if expected != found {
                return Err(TransformError::Evidence { what, expected, found });
            }
        }
        for (block, heads) in spec.blocks.iter().zip(&self.values) {
            let found = heads.len();
            if found != block.kv_heads || heads.iter().any(|it| width(it) != block.head_dim) {
                let (what, expected) = ("heads of a block", block.kv_heads);
                return Err(TransformError::Evidence { what, expected, found });
            }
        }
        Ok(self)
    }
}

/// Rows of the stream before a block, divided by their root mean square: the first token of the
/// first window, which often carries massive activations, and others evenly spread.
fn sample(walk: &Walk<'_>, (block, eps): (usize, f32), out: &mut Vec<f32>) {
    let states = walk.states();
    let stride = (states.tokens() / SAMPLES_OF_BLOCK).max(1);
    let mut at = 0;
    for window in 0..states.len() {
        let x = states.load(window);
        for (t, row) in x.outer_iter().enumerate() {
            if at == 0 && t == 0 || (at + t) % stride == block % stride {
                let square = row.iter().map(|x| x * x).sum::<f32>() / row.len().max(1) as f32;
                let scale = 1.0 / (square + eps).sqrt();
                out.extend(row.iter().map(|x| x * scale));
            }
        }
        at += x.nrows();
    }
}

fn gain(model: &Model, block: usize, norm: Role) -> Result<Vec<f32>, TransformError> {
    match model.spec.find(Some(block), norm, None, Part::Weight) {
        Some(spec) => {
            let gain = model.weights.get(&spec.name)?.to_f32();
            Ok(gain.into_iter().map(|gain| gain + model.spec.gain_offset).collect())
        }
        None => Ok(vec![]),
    }
}

/// Adds the second moments of a layer's input, its gain divided out, per token.
fn add_normalized(seen: &BlockStatistics, role: Role, gain: &[f32], sum: &mut Array2<f64>) {
    let Some(input) = seen.inputs.get(&(role, None)) else { return };
    let Some(moments) = &input.covariance else { return };
    let largest = gain.iter().fold(0.0_f32, |max, g| max.max(g.abs()));
    let inverse = |g: &f32| {
        if g.abs() > SMALL_GAIN * largest { 1.0 / f64::from(*g) } else { 0.0 }
    };
    let inverse: Vec<f64> = gain.iter().map(inverse).collect();
    let tokens = input.moments.tokens.max(1) as f64;
    for i in 0..inverse.len() {
        for j in i..inverse.len() {
            let value = f64::from(moments[[i, j]]) * inverse[i] * inverse[j] / tokens;
            sum[[i, j]] += value;
            if i != j {
                sum[[j, i]] += value;
            }
        }
    }
}

/// Second moments of each key/value head: those of its query heads together.
fn head_moments(seen: &BlockStatistics, kv_heads: usize) -> Vec<Array2<f64>> {
    let Some(heads) = &seen.heads else { return vec![] };
    let (count, width, _) = heads.dim();
    let repeat = count / kv_heads.max(1);
    let of = |head: usize| {
        let mut sum = Array2::<f64>::zeros((width, width));
        for copy in head * repeat..(head + 1) * repeat {
            sum += &heads.slice(s![copy, .., ..]).mapv(f64::from);
        }
        sum / seen.tokens.max(1) as f64
    };
    (0..kv_heads).map(of).collect()
}
