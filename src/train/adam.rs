//! `AdamW` (arXiv 1711.05101), and how its rate moves.
use super::parameters::{Parameters, from_raw, to_raw};
use crate::{
    linalg::Team,
    tensor::{Bytes, Dtype, RawTensor},
};
use ndarray::Array2;
use std::collections::BTreeMap;

/// Numbers that a task takes.
const CHUNK: usize = 1 << 16;

/// Shares of the past in the means of gradients and of their squares.
const BETA: [f64; 2] = [0.9, 0.95];

/// Keeps steps finite where gradients have been 0.
const EPSILON: f32 = 1e-8;

/// Means of the gradients and of their squares, of everything that learns.
#[derive(Clone, Debug, Default)]
pub struct Adam {
    steps: i32,
    moments: Vec<[Array2<f32>; 2]>,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// How far.
    pub rate: f32,
    /// What the gradients are multiplied by before.
    pub scale: f32,
    /// Share of the rate that matrices lose towards 0.
    pub decay: f32,
}

impl Adam {
    /// Takes a step against the gradients; parameters are those of the first step, in their order.
    pub fn step(&mut self, parameters: &mut Parameters, step: Step, team: &Team) {
        let learns = parameters.list.iter_mut().filter(|it| it.learns());
        let learns: Vec<_> = learns.collect();
        let shape = |it: &Array2<f32>| [Array2::zeros(it.dim()), Array2::zeros(it.dim())];
        if self.moments.is_empty() {
            self.moments = learns.iter().map(|it| shape(&it.gradient)).collect();
        }
        self.steps += 1;
        let corrected = BETA.map(|beta| (1.0 / (1.0 - beta.powi(self.steps))) as f32);
        for (parameter, [mean, square]) in learns.into_iter().zip(&mut self.moments) {
            let decay = if parameter.decays() { step.decay * step.rate } else { 0.0 };
            parameter.change(|values, gradient| {
                let slice = "in standard layout";
                let values = values.as_slice_mut().expect(slice).chunks_mut(CHUNK);
                let gradients = gradient.as_slice().expect(slice).chunks(CHUNK);
                let means = mean.as_slice_mut().expect(slice).chunks_mut(CHUNK);
                let squares = square.as_slice_mut().expect(slice).chunks_mut(CHUNK);
                let parts = values.zip(gradients).zip(means.zip(squares)).collect();
                team.each(parts, |_, ((values, gradients), (means, squares))| {
                    let [b1, b2] = BETA.map(|beta| beta as f32);
                    let moments = means.iter_mut().zip(squares);
                    for ((x, g), (m, v)) in values.iter_mut().zip(gradients).zip(moments) {
                        let g = g * step.scale;
                        *m = b1 * *m + (1.0 - b1) * g;
                        *v = b2 * *v + (1.0 - b2) * g * g;
                        let towards = *m * corrected[0] / ((*v * corrected[1]).sqrt() + EPSILON);
                        *x -= step.rate * towards + decay * *x;
                    }
                });
            });
        }
    }

    /// As tensors, to be kept.
    pub fn to_tensors(&self) -> BTreeMap<String, RawTensor> {
        let steps = self.steps.to_le_bytes().to_vec();
        let raw = RawTensor { dtype: Dtype::U8, shape: vec![4], bytes: Bytes::owned(steps) };
        let mut all = BTreeMap::from([("steps".to_owned(), raw)]);
        for (i, moments) in self.moments.iter().enumerate() {
            for (j, moment) in moments.iter().enumerate() {
                all.insert(format!("{i}.{j}"), to_raw(moment));
            }
        }
        all
    }

    /// What [`Self::to_tensors`] was called on; `None` where something is missing.
    pub fn from_tensors(tensors: &BTreeMap<String, RawTensor>) -> Option<Self> {
        let steps = i32::from_le_bytes((*tensors.get("steps")?.bytes).try_into().ok()?);
        let moment = |i: usize, j: usize| from_raw(tensors.get(&format!("{i}.{j}"))?);
        let count = tensors.len() / 2;
        let moments = (0..count).map(|i| Some([moment(i, 0)?, moment(i, 1)?]));
        Some(Self { steps, moments: moments.collect::<Option<_>>()? })
    }
}

/// The rate of step `step` of `steps`, from 0: it rises over the first `warm_up` steps and falls as a half
/// cosine to a tenth (arXiv 1608.03983), or stays.
pub fn rate(peak: f64, (step, steps): (usize, usize), warm_up: usize, schedule: Schedule) -> f64 {
    if step < warm_up {
        return peak * (step + 1) as f64 / (warm_up + 1) as f64;
    }
    let along = (step - warm_up) as f64 / (steps - warm_up).max(1) as f64;
    match schedule {
        Schedule::Constant => peak,
        Schedule::Cosine => peak * (0.1 + 0.45 * (1.0 + (std::f64::consts::PI * along).cos())),
    }
}

/// How the rate of learning moves.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// It falls as a half cosine to a tenth
    #[default]
    Cosine,
    /// It stays
    Constant,
}

/// What gradients are multiplied by so that their norm over all parameters is at most `most`; and the norm.
pub fn clip<'a>(parameters: impl Iterator<Item = &'a Parameters>, most: f64) -> (f32, f64) {
    let mut squares = 0.0;
    for parameter in parameters.flat_map(|it| &it.list) {
        for chunk in parameter.gradient.as_slice().unwrap_or_default().chunks(CHUNK) {
            squares += chunk.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
        }
    }
    let norm = squares.sqrt();
    (if norm > most { (most / norm) as f32 } else { 1.0 }, norm)
}
