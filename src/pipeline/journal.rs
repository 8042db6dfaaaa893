//! What a stage has done so far, so that it can be taken up after the last finished block.
use super::PipelineError;
use crate::{
    calibrate::HiddenStates,
    checkpoint::{OutputDir, WorkDir},
    model::Tensors,
    package::PackageError,
    prune::BlockScores,
    train::TrainError,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::path::Path;

/// Which pass over the blocks is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// Blocks are looked at.
    #[default]
    Observe,
    /// Blocks are rewritten.
    Rewrite,
}

/// How far the work is. `R` tells what was done to a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State<R> {
    /// Round over the whole model, from 0: the shot of a pruning.
    pub(super) shot: usize,
    /// Its part.
    pub(super) phase: Phase,
    /// The next block.
    pub(super) block: usize,
    /// Layers so far, of all rounds.
    pub(super) layers: Vec<R>,
    /// The file that holds the streams before the next block, if there are any yet.
    pub(super) streams: Option<String>,
}

/// The record of a stage in a work folder.
pub(super) struct Journal<R> {
    work: WorkDir,
    pub(super) state: State<R>,
}

/// The output of a stage, and the work on it.
pub(super) struct Output<'a> {
    target: &'a Path,
    key: &'a Value,
    resume: bool,
    force: bool,
    /// It is there, made with this key: a run was killed between the last two steps.
    pub(super) finished: bool,
}

impl<'a> Output<'a> {
    /// Refuses what is in the way; `report` is the file of the output that tells what was done.
    pub(super) fn check(
        (target, report): (&'a Path, &str),
        key: &'a Value,
        (resume, force): (bool, bool),
    ) -> Result<Self, PipelineError> {
        let finished = (resume || !force) && WorkDir::is_finished(target, key, report)?;
        if !finished {
            OutputDir::check(target, force)?;
        }
        Ok(Self { target, key, resume, force, finished })
    }

    /// Does the work, see [`Journal::run`].
    pub(super) fn work<R: Clone + Serialize + DeserializeOwned, T>(
        &self,
        work: impl FnOnce(&mut Journal<R>) -> Result<T, PipelineError>,
    ) -> Result<T, PipelineError> {
        let folder =
            WorkDir::begin(self.target, self.key, self.resume || self.finished, self.force)?;
        Journal::open(folder)?.run(work)
    }
}

impl<R: Clone + Serialize + DeserializeOwned> Journal<R> {
    fn open(work: WorkDir) -> Result<Self, PipelineError> {
        let state = match work.state()? {
            Some(state) => serde_json::from_value(state).map_err(PipelineError::State)?,
            None => State {
                shot: 0,
                phase: Phase::default(),
                block: 0,
                layers: Vec::new(),
                streams: None,
            },
        };
        Ok(Self { work, state })
    }

    /// Whether a part of a shot is over.
    pub(super) fn is_past(&self, shot: usize, phase: Phase) -> bool {
        (self.state.shot, self.state.phase) > (shot, phase)
    }

    /// The block that a part of a shot goes on with.
    pub(super) fn next(&self, shot: usize, phase: Phase) -> usize {
        if (self.state.shot, self.state.phase) == (shot, phase) { self.state.block } else { 0 }
    }

    /// Notes that a block is finished, with the streams behind it. The old streams go last.
    pub(super) fn finished(
        &mut self,
        streams: &[(&str, &HiddenStates)],
    ) -> Result<(), PipelineError> {
        self.state.block += 1;
        let State { shot, phase, block, .. } = self.state;
        let name = format!("streams-{shot}-{}-{block}", phase as u8);
        let tensors: Tensors =
            streams.iter().map(|(name, states)| ((*name).to_owned(), states.to_raw())).collect();
        // Nothing walks where statistics are given and nothing is measured.
        let name = (!tensors.is_empty()).then_some(name);
        if let Some(name) = &name {
            self.work.put(name, &tensors)?;
        }
        let old = std::mem::replace(&mut self.state.streams, name);
        self.note()?;
        old.map_or(Ok(()), |old| Ok(self.work.remove(&old)?))
    }

    /// Notes that a part of a shot is over.
    pub(super) fn begin(&mut self, shot: usize, phase: Phase) -> Result<(), PipelineError> {
        (self.state.shot, self.state.phase, self.state.block) = (shot, phase, 0);
        let old = self.state.streams.take();
        self.note()?;
        old.map_or(Ok(()), |old| Ok(self.work.remove(&old)?))
    }

    /// Streams that were noted with the last finished block.
    pub(super) fn streams(&self, name: &str) -> Result<Option<HiddenStates>, PipelineError> {
        let Some(file) = &self.state.streams else { return Ok(None) };
        let mut tensors = self.work.tensors(file)?.unwrap_or_default();
        Ok(tensors.remove(name).map(|raw| HiddenStates::from_raw(&raw)).transpose()?)
    }

    /// Keeps the tensors of a block.
    pub(super) fn put_block(
        &self,
        shot: usize,
        block: usize,
        tensors: &Tensors,
    ) -> Result<(), PipelineError> {
        Ok(self.work.put(&format!("block-{shot}-{block}"), tensors)?)
    }

    /// The tensors of a finished block.
    pub(super) fn block(&self, shot: usize, block: usize) -> Result<Tensors, PipelineError> {
        self.file(&format!("block-{shot}-{block}"))
    }

    /// Keeps the scores of a block.
    pub(super) fn put_scores(
        &self,
        shot: usize,
        block: usize,
        scores: &BlockScores,
    ) -> Result<(), PipelineError> {
        Ok(self.work.put(&format!("scores-{shot}-{block}"), &scores.to_tensors())?)
    }

    /// The scores of a block.
    pub(super) fn scores(&self, shot: usize, block: usize) -> Result<BlockScores, PipelineError> {
        let name = format!("scores-{shot}-{block}");
        BlockScores::from_tensors(&self.file(&name)?).ok_or(PipelineError::Damaged { name })
    }

    /// Keeps tensors under a name of their own.
    pub(super) fn put_file(&self, name: &str, tensors: &Tensors) -> Result<(), PipelineError> {
        Ok(self.work.put(name, tensors)?)
    }

    /// Tensors that were kept and must be there.
    pub(super) fn file(&self, name: &str) -> Result<Tensors, PipelineError> {
        self.file_if_there(name)?.ok_or_else(|| PipelineError::Damaged { name: name.to_owned() })
    }

    /// Tensors that may have been kept.
    pub(super) fn file_if_there(&self, name: &str) -> Result<Option<Tensors>, PipelineError> {
        Ok(self.work.tensors(name)?)
    }

    /// Forgets tensors that were kept.
    pub(super) fn remove_file(&self, name: &str) -> Result<(), PipelineError> {
        Ok(self.work.remove(name)?)
    }

    /// What the report of the output will hold.
    pub(super) fn note_output(&self, report: &str) -> Result<(), PipelineError> {
        Ok(self.work.note_output(report.as_bytes())?)
    }

    /// Keeps a result that later parts need.
    pub(super) fn put_note<N: Serialize>(&self, file: &str, note: &N) -> Result<(), PipelineError> {
        let value = serde_json::to_value(note).map_err(PipelineError::State)?;
        Ok(self.work.put_json(file, &value)?)
    }

    /// A result that was kept.
    pub(super) fn noted<N: DeserializeOwned>(
        &self,
        file: &str,
    ) -> Result<Option<N>, PipelineError> {
        let value = self.work.json(file)?;
        value.map(serde_json::from_value).transpose().map_err(PipelineError::State)
    }

    /// Does the work. Its record goes when it is done, and when it cannot be done: what fails for
    /// any other reason than the system's would fail again.
    fn run<T>(
        mut self,
        work: impl FnOnce(&mut Self) -> Result<T, PipelineError>,
    ) -> Result<T, PipelineError> {
        match work(&mut self) {
            Ok(done) => {
                self.work.finish()?;
                Ok(done)
            }
            Err(error) if may_pass(&error) => Err(error),
            Err(error) => {
                if let Err(left) = self.work.finish() {
                    tracing::warn!("{left}");
                }
                Err(error)
            }
        }
    }

    fn note(&self) -> Result<(), PipelineError> {
        let state = serde_json::to_value(&self.state).map_err(PipelineError::State)?;
        Ok(self.work.put_state(&state)?)
    }
}

/// Whether the same work may end otherwise: what failed was the system (a full disk), a folder that
/// was in the way, or the record itself.
fn may_pass(error: &PipelineError) -> bool {
    if let PipelineError::Checkpoint(_)
    | PipelineError::Train(TrainError::Loss { .. })
    | PipelineError::Package(PackageError::Checkpoint(_))
    | PipelineError::Damaged { .. }
    | PipelineError::State(_) = error
    {
        return true;
    }
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<std::io::Error>() {
            return true;
        }
        cause = inner.source();
    }
    false
}
