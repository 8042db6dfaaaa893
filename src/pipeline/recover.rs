//! A pruned model learns from its parent: block by block, then as a whole.
use super::{
    Measured, PipelineError,
    distil::Distil,
    journal::{Journal, Output, Phase},
    streams,
};
use crate::{
    calibrate::HiddenStates,
    checkpoint::DEFAULT_SHARD_BYTES,
    eval::Figures,
    forward::{ForwardError, Head, Reference},
    linalg::Team,
    model::{Model, Tensors},
    package::{Opened, Rewritten, refuse_over_input},
    progress::{Progress, Unit},
    prune::check_float,
    quantize::Method,
    train::{
        self, Block, BlockLoss, Learns, Lessons, Noted, Settings, Streams, Student, TrainError,
        regress,
    },
};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// A model to recover and how.
#[derive(Clone, Copy)]
pub struct Recover<'a> {
    /// The model that learns.
    pub student: &'a Opened,
    /// The model that it was made from.
    pub parent: &'a Opened,
    /// How.
    pub settings: &'a Settings,
    /// Windows of equal length: those to learn from, and behind the first `learnt` those that decide when it
    /// is best.
    pub windows: &'a [Vec<u32>],
    /// Windows to learn from.
    pub learnt: usize,
    /// Texts to measure the gain on.
    pub measured: &'a [Measured],
    /// SHA-256 of the student's tensors, see [`Source`](crate::package::Source).
    pub source_sha256: &'a str,
    /// Everything that the result depends on: a work that was begun with another is not resumed.
    pub key: &'a Value,
    /// Stored in the manifest: the resolved recipe.
    pub recipe: &'a Value,
    /// Seed of the order of the windows.
    pub seed: u64,
    /// Threads.
    pub team: &'a Team,
    /// Told of the work.
    pub progress: &'a dyn Progress,
}

/// What recovery did.
#[derive(Clone, Debug, Serialize)]
pub struct Recovered {
    /// Version of this form.
    pub schema: u32,
    /// Tokens of the text that was learnt from, passes not counted.
    pub tokens: u64,
    /// What each block learnt alone.
    pub blocks: Vec<BlockLoss>,
    /// Losses of the whole model on the way; the state with the least `measured` is kept.
    pub whole: Vec<Noted>,
    /// What it gained, on each measured text.
    pub gains: Vec<Gain>,
}

/// Figures of the model against its parent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// The text.
    pub text: String,
    /// As it was given.
    pub before: Figures,
    /// As it is written.
    pub after: Figures,
}

/// Version of the JSON form of [`Recovered`].
const SCHEMA: u32 = 1;

/// The file beside the weights that holds a [`Recovered`].
const RECOVER_FILE: &str = "recover.json";

/// The parts of the work, as shots of the journal.
const BLOCKS: usize = 0;
const WHOLE_MODEL: usize = 1;

/// Streams of the parent, at last those behind its last block; and of the student.
const PARENT: &str = "parent";
const STUDENT: &str = "student";

impl Recover<'_> {
    /// Recovers. The checkpoint appears at `target` when it is complete; what is finished before lies in a work
    /// folder beside it, from which `resume` goes on.
    pub fn write(
        &self,
        target: &Path,
        resume: bool,
        force: bool,
    ) -> Result<Recovered, PipelineError> {
        let output = Output::check((target, RECOVER_FILE), self.key, (resume, force))?;
        self.check()?;
        refuse_over_input(self.student, target)?;
        refuse_over_input(self.parent, target)?;
        output.work(|journal| {
            let (model, recovered) = self.work(journal)?;
            if !output.finished {
                let report = serde_json::to_string_pretty(&recovered);
                let report = report.map_err(PipelineError::State)? + "\n";
                journal.note_output(&report)?;
                self.write_checkpoint(&model, report, target, force)?;
            }
            Ok(recovered)
        })
    }

    /// Refuses models that cannot learn from each other.
    pub fn check(&self) -> Result<(), PipelineError> {
        let (student, parent) = (&self.student.model, &self.parent.model);
        check_float(student)?;
        check_float(parent)?;
        train::check(&student.spec)?;
        let sizes = [
            ("vocab_size", student.spec.vocab, parent.spec.vocab),
            ("hidden_size", student.spec.hidden, parent.spec.hidden),
        ];
        for (key, found, expected) in sizes {
            // The distribution alone needs no streams of the same width.
            if found != expected && (key == "vocab_size" || self.settings.block_epochs > 0) {
                return Err(TrainError::Parent { key, expected, found }.into());
            }
        }
        let (found, expected) = (student.spec.blocks.len(), parent.spec.blocks.len());
        if self.settings.block_epochs > 0 && found != expected {
            return Err(TrainError::Parent { key: "num_hidden_layers", expected, found }.into());
        }
        if self.settings.block_epochs + self.settings.epochs == 0 {
            return Err(TrainError::Nothing.into());
        }
        let window = self.windows.first().map_or(0, Vec::len);
        match self.windows.iter().find(|ids| ids.len() != window) {
            Some(other) => Err(TrainError::Window { expected: window, found: other.len() }.into()),
            None if self.learnt == 0 => Err(ForwardError::NoTokens.into()),
            None => Ok(()),
        }
    }

    fn work(&self, journal: &mut Journal<BlockLoss>) -> Result<(Model, Recovered), PipelineError> {
        if !journal.is_past(BLOCKS, Phase::Observe) {
            if self.settings.block_epochs > 0 {
                self.learn_blocks(journal)?;
            }
            journal.begin(WHOLE_MODEL, Phase::Observe)?;
        }
        let mut model = self.student.model.clone();
        if self.settings.block_epochs > 0 {
            for b in 0..model.spec.blocks.len() {
                model.weights.raw.extend(journal.block(BLOCKS, b)?);
            }
        }
        let mut notes = Vec::new();
        if self.settings.epochs > 0 {
            let (tensors, noted) = self.learn_whole(&model, journal)?;
            model.weights.raw.extend(tensors);
            notes = noted;
        }
        let recovered = Recovered {
            schema: SCHEMA,
            tokens: self.windows[..self.learnt].iter().map(|it| it.len() as u64).sum(),
            blocks: journal.state.layers.clone(),
            whole: notes,
            gains: self.gains(&model)?,
        };
        Ok((model, recovered))
    }

    /// Each block learns to give the parent's stream behind it, of the stream that the blocks before it give
    /// now that they have learnt.
    fn learn_blocks(&self, journal: &mut Journal<BlockLoss>) -> Result<(), PipelineError> {
        let (student, parent) = (&self.student.model, &self.parent.model);
        let kept = journal.streams(PARENT)?.zip(journal.streams(STUDENT)?);
        let embed = |model| HiddenStates::embed(model, self.windows);
        let (mut above, mut below) = match kept {
            Some(kept) => kept,
            None => (embed(parent)?, embed(student)?),
        };
        let first = journal.next(BLOCKS, Phase::Observe);
        let count = student.spec.blocks.len();
        self.progress.start("recover blocks", (count - first) as u64, Unit::Items);
        for b in first..count {
            streams::carry((parent, &Reference), b, &mut above, self.team)?;
            let mut block = Block::load(student, b, self.windows[0].len(), Learns::Everything)?;
            let learnt = Streams { inputs: &below, targets: &above, learnt: self.learnt };
            let loss = regress((b, &mut block), learnt, self.settings, (self.seed, self.team))?;
            let tensors = block.tensors();
            let part = Model::part(&student.spec, tensors.clone());
            streams::carry((&part, &Reference), b, &mut below, self.team)?;
            journal.put_block(BLOCKS, b, &tensors)?;
            journal.state.layers.push(loss);
            journal.finished(&[(PARENT, &above), (STUDENT, &below)])?;
            self.progress.advance(1);
        }
        self.progress.finish();
        if self.settings.epochs > 0 { keep_parent(journal, &above) } else { Ok(()) }
    }

    /// The whole model learns the parent's distributions; what it learnt, and the losses on the way.
    fn learn_whole(
        &self,
        model: &Model,
        journal: &Journal<BlockLoss>,
    ) -> Result<(Tensors, Vec<Noted>), PipelineError> {
        let streams = self.parent_streams(journal)?;
        let head = Head::load(&self.parent.model, &Reference).map_err(ForwardError::from)?;
        let lessons =
            Lessons { windows: self.windows, learnt: self.learnt, streams: &streams, head: &head };
        let distil = Distil {
            name: "recover",
            lessons,
            settings: self.settings,
            seed: self.seed,
            team: self.team,
            progress: self.progress,
        };
        distil.run(&|| Student::load(model, self.windows[0].len(), Learns::Everything), journal)
    }

    /// The parent's streams behind its last block: those that its blocks left, or made here.
    fn parent_streams(&self, journal: &Journal<BlockLoss>) -> Result<HiddenStates, PipelineError> {
        if let Some(raw) = journal.file_if_there(PARENT)?.and_then(|mut it| it.remove(PARENT)) {
            return Ok(HiddenStates::from_raw(&raw)?);
        }
        let aids = ("parent", self.team, self.progress);
        let states = streams::last((&self.parent.model, &Reference), self.windows, aids)?;
        keep_parent(journal, &states)?;
        Ok(states)
    }

    /// Measures the model as it was and as it is against its parent.
    fn gains(&self, model: &Model) -> Result<Vec<Gain>, PipelineError> {
        let figures = |text: &Measured, model| {
            text.figures(model, &self.parent.model, (self.team, self.progress))
        };
        let gain = |it: &Measured| {
            let before = figures(it, &self.student.model)?;
            Ok(Gain { text: it.name.clone(), before, after: figures(it, model)? })
        };
        self.measured.iter().map(gain).collect()
    }

    fn write_checkpoint(
        &self,
        model: &Model,
        report: String,
        target: &Path,
        force: bool,
    ) -> Result<(), PipelineError> {
        let rewritten = Rewritten {
            opened: self.student,
            source_sha256: self.source_sha256,
            model,
            recipe: self.recipe,
            method: Method::default(),
            shard_bytes: DEFAULT_SHARD_BYTES,
            files: &BTreeMap::from([(RECOVER_FILE.to_owned(), report)]),
            team: self.team,
            progress: self.progress,
        };
        rewritten.write(target, force)?;
        Ok(())
    }
}

/// Keeps the parent's streams behind its last block.
fn keep_parent(journal: &Journal<BlockLoss>, states: &HiddenStates) -> Result<(), PipelineError> {
    journal.put_file(PARENT, &BTreeMap::from([(PARENT.to_owned(), states.to_raw())]))
}
