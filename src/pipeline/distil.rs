//! A whole model learns its parent's distributions, part by part, and goes on from the last part.
use super::{PipelineError, journal::Journal};
use crate::{
    linalg::Team,
    model::Tensors,
    progress::{Progress, Unit},
    train::{Distillation, Lessons, Noted, Settings, Student, TrainError},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What is learnt and how.
pub(super) struct Distil<'a> {
    /// Names the work to who watches it.
    pub(super) name: &'static str,
    pub(super) lessons: Lessons<'a>,
    pub(super) settings: &'a Settings,
    pub(super) seed: u64,
    pub(super) team: &'a Team,
    pub(super) progress: &'a dyn Progress,
}

/// How far a distillation is.
#[derive(Serialize, Deserialize)]
struct Reached {
    step: usize,
    notes: Vec<Noted>,
    /// The file with its tensors.
    file: String,
}

/// The note with a [`Reached`].
const REACHED: &str = "whole.json";

impl Distil<'_> {
    /// The tensors that learnt, as they were best, and the losses on the way.
    pub(super) fn run<R: Clone + Serialize + DeserializeOwned>(
        &self,
        load: &dyn Fn() -> Result<Student, TrainError>,
        journal: &Journal<R>,
    ) -> Result<(Tensors, Vec<Noted>), PipelineError> {
        let (lessons, how) = (self.lessons, (self.settings, self.seed));
        let reached: Option<Reached> = journal.noted(REACHED)?;
        let mut last = reached.as_ref().map(|it| it.file.clone());
        let mut run = match reached {
            Some(Reached { step, notes, file }) => {
                let tensors = journal.file(&file)?;
                let run =
                    Distillation::resume(load()?, lessons, how, self.team, (step, notes), &tensors);
                run.ok_or(PipelineError::Damaged { name: file })?
            }
            None => Distillation::begin(load()?, lessons, how, self.team)?,
        };
        let left = run.steps() - run.step();
        let tokens =
            left * self.settings.step_windows.min(lessons.learnt) * lessons.windows[0].len();
        self.progress.start(self.name, tokens as u64, Unit::Tokens);
        while !run.is_over() {
            run.go_on(&mut |tokens| self.progress.advance(tokens))?;
            let file = format!("whole-{}", run.step());
            journal.put_file(&file, &run.to_tensors())?;
            let reached =
                Reached { step: run.step(), notes: run.notes.clone(), file: file.clone() };
            journal.put_note(REACHED, &reached)?;
            if let Some(old) = last.replace(file) {
                journal.remove_file(&old)?;
            }
        }
        self.progress.finish();
        let notes = run.notes.clone();
        Ok((run.into_best().tensors(), notes))
    }
}
