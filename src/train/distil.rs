//! A whole model learns the distributions of its parent.
use super::{
    Adam, Parameter, Parent, Settings, Step, Student, TrainError, clip,
    parameters::{from_raw, to_raw},
    regress::{batch, order},
};
use crate::{calibrate::HiddenStates, forward, linalg::Team, tensor::RawTensor};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Times that the losses are noted in a run, at least.
const NOTES: usize = 10;

/// A text and what a parent makes of it.
#[derive(Clone, Copy)]
pub struct Lessons<'a> {
    /// Windows of equal length; those behind the first `learnt` are only measured on.
    pub windows: &'a [Vec<u32>],
    /// Windows to learn from.
    pub learnt: usize,
    /// The parent's streams behind its last block.
    pub streams: &'a HiddenStates,
    /// Its head.
    pub head: &'a forward::Head,
}

/// Losses at one time: means of KL(parent ‖ model) per token, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noted {
    /// Tokens learnt from so far.
    pub tokens: u64,
    /// Over the steps since the last note; `None` before the first step.
    pub learnt: Option<f64>,
    /// Over the windows that are measured on.
    pub measured: f64,
}

/// A run: how far it is and what is known.
pub struct Distillation<'a> {
    /// What learns.
    pub student: Student,
    lessons: Lessons<'a>,
    settings: &'a Settings,
    seed: u64,
    team: &'a Team,
    adams: Vec<Adam>,
    /// The next step.
    step: usize,
    /// Losses so far.
    pub notes: Vec<Noted>,
    /// The parameters as they were best.
    best: Vec<Array2<f32>>,
    /// Sum of the losses and tokens since the last note.
    since: (f64, u64),
}

impl<'a> Distillation<'a> {
    /// Before the first step.
    pub fn begin(
        student: Student,
        lessons: Lessons<'a>,
        (settings, seed): (&'a Settings, u64),
        team: &'a Team,
    ) -> Result<Self, TrainError> {
        let adams = student.parameters().map(|_| Adam::default()).collect();
        let mut run = Self {
            student,
            lessons,
            settings,
            seed,
            team,
            adams,
            step: 0,
            notes: Vec::new(),
            best: Vec::new(),
            since: (0.0, 0),
        };
        run.note()?;
        Ok(run)
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> usize {
        self.settings.steps(self.lessons.learnt) * self.settings.epochs
    }

    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        self.step >= self.steps()
    }

    /// Takes the steps up to the next note; `told` hears of the tokens of each.
    pub fn go_on(&mut self, told: &mut dyn FnMut(u64)) -> Result<(), TrainError> {
        let steps = self.steps();
        let every = steps.div_ceil(NOTES).max(1);
        while self.step < steps {
            let tokens = self.take_step()?;
            told(tokens);
            if self.step.is_multiple_of(every) || self.step == steps {
                return self.note();
            }
        }
        Ok(())
    }

    fn take_step(&mut self) -> Result<u64, TrainError> {
        let pass = self.step / self.settings.steps(self.lessons.learnt);
        let at = self.step % self.settings.steps(self.lessons.learnt);
        let order = order(self.lessons.learnt, (self.seed, pass));
        let windows = order.chunks(self.settings.step_windows).nth(at).unwrap_or_default();
        self.student.parameters_mut().for_each(super::Parameters::clear);
        let (loss, tokens) = self.losses(windows, true)?;
        if !loss.is_finite() {
            return Err(TrainError::Loss { step: self.step, block: None });
        }
        self.since = (self.since.0 + loss, self.since.1 + tokens);
        let (scale, _) = clip(self.student.parameters(), self.settings.gradient_clip);
        let rate = self.settings.rate(self.settings.learning_rate, self.step, self.steps());
        let step = Step { rate, scale, decay: self.settings.weight_decay as f32 };
        for (parameters, adam) in self.student.parameters_mut().zip(&mut self.adams) {
            adam.step(parameters, step, self.team);
        }
        self.step += 1;
        Ok(tokens)
    }

    /// The sum of the losses of some windows, and their tokens.
    fn losses(&mut self, windows: &[usize], learn: bool) -> Result<(f64, u64), TrainError> {
        let Lessons { streams, head, .. } = self.lessons;
        let stream = batch(streams, windows);
        let target = Parent {
            head,
            stream: stream.view(),
            temperature: self.settings.distill_temperature as f32,
        };
        let ids: Vec<&[u32]> =
            windows.iter().map(|window| self.lessons.windows[*window].as_slice()).collect();
        let tokens = stream.nrows();
        let loss = if learn {
            self.student.learn(&ids, &target, 1.0 / tokens as f32, self.team)?
        } else {
            self.student.loss(&ids, &target, self.team)?
        };
        Ok((loss, tokens as u64))
    }

    /// Measures, and keeps the parameters where they are the best so far.
    fn note(&mut self) -> Result<(), TrainError> {
        let all = self.lessons.windows.len();
        let first = if self.lessons.learnt < all { self.lessons.learnt } else { 0 };
        let (mut loss, mut tokens) = (0.0, 0);
        for window in first..all {
            let found = self.losses(&[window], false)?;
            (loss, tokens) = (loss + found.0, tokens + found.1);
        }
        let measured = loss / tokens.max(1) as f64;
        if !measured.is_finite() {
            return Err(TrainError::Loss { step: self.step, block: None });
        }
        let before = self.notes.iter().map(|it| it.measured).fold(f64::INFINITY, f64::min);
        if measured < before {
            self.best = self.student.parameters().flat_map(|it| &it.list).map(learnt).collect();
        }
        let (sum, since) = std::mem::take(&mut self.since);
        let so_far = self.notes.last().map_or(0, |it| it.tokens) + since;
        let learnt = (since > 0).then(|| sum / since as f64);
        self.notes.push(Noted { tokens: so_far, learnt, measured });
        Ok(())
    }

    /// The student with the parameters that were best on the windows that are measured on.
    pub fn into_best(mut self) -> Student {
        put(&mut self.student, self.best);
        self.student
    }

    /// Everything that the next step depends on, as tensors. To be called behind [`Self::go_on`].
    pub fn to_tensors(&self) -> BTreeMap<String, RawTensor> {
        let mut all = BTreeMap::new();
        let values = self.student.parameters().flat_map(|it| &it.list).map(learnt);
        for (kind, list) in [("now", values.collect::<Vec<_>>()), ("best", self.best.clone())] {
            for (i, value) in list.iter().enumerate() {
                all.insert(format!("{kind}.{i}"), to_raw(value));
            }
        }
        for (i, adam) in self.adams.iter().enumerate() {
            let tensors = adam.to_tensors().into_iter();
            all.extend(tensors.map(|(name, raw)| (format!("adam.{i}.{name}"), raw)));
        }
        all
    }

    /// A run that was stopped after `step` steps; `None` where something is missing or of another shape.
    pub fn resume(
        student: Student,
        lessons: Lessons<'a>,
        (settings, seed): (&'a Settings, u64),
        team: &'a Team,
        (step, notes): (usize, Vec<Noted>),
        tensors: &BTreeMap<String, RawTensor>,
    ) -> Option<Self> {
        let mut student = student;
        let count = student.parameters().map(|it| it.list.len()).sum::<usize>();
        let list = |kind: &str| -> Option<Vec<Array2<f32>>> {
            let value = |i| from_raw(tensors.get(&format!("{kind}.{i}"))?);
            (0..count).map(value).collect()
        };
        let (now, best) = (list("now")?, list("best")?);
        let shapes = student.parameters().flat_map(|it| &it.list).map(learnt);
        if shapes
            .zip(now.iter().zip(&best))
            .any(|(a, (b, c))| a.dim() != b.dim() || a.dim() != c.dim())
        {
            return None;
        }
        put(&mut student, now);
        let adams = (0..student.parameters().count()).map(|i| {
            let prefix = format!("adam.{i}.");
            let own = tensors.iter().filter_map(|(name, raw)| {
                Some((name.strip_prefix(&prefix)?.to_owned(), raw.clone()))
            });
            Adam::from_tensors(&own.collect())
        });
        let adams = adams.collect::<Option<_>>()?;
        let since = (0.0, 0);
        Some(Self { student, lessons, settings, seed, team, adams, step, notes, best, since })
    }

    /// Steps taken.
    pub fn step(&self) -> usize {
        self.step
    }
}

/// The numbers of a parameter that learn; nothing of others.
fn learnt(parameter: &Parameter) -> Array2<f32> {
    if parameter.learns() { parameter.learnt().clone() } else { Array2::zeros((0, 0)) }
}

fn put(student: &mut Student, values: Vec<Array2<f32>>) {
    let parameters = student.parameters_mut().flat_map(|it| &mut it.list);
    for (parameter, value) in parameters.zip(values).filter(|(_, value)| !value.is_empty()) {
        parameter.change(|learnt, _| *learnt = value);
    }
}
