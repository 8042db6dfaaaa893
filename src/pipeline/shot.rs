//! One cut of a model to narrower shapes.
use super::{
    PipelineError,
    journal::{Journal, Phase},
    pruning::Prune,
};
use crate::{
    calibrate::{BlockStatistics, HiddenStates, Request, Statistics, Walk},
    forward::Reference,
    model::{Model, ModelSpec, WeightStore},
    progress::Unit,
    prune::{
        BlockScores, BlockShape, GainRatios, Kept, Refit, RefitWalk, Repair, Streams, allocated,
        pruned_config, refit_from_statistics, slice_block,
    },
};

/// A model and the shapes that it is cut to.
pub(super) struct Shot<'a> {
    pub(super) prune: &'a Prune<'a>,
    /// Counted from 0.
    pub(super) index: usize,
    /// The float model, or the result of the shot before.
    pub(super) source: &'a Model,
    pub(super) shapes: Vec<BlockShape>,
}

/// What stays of each block.
pub(super) struct Chosen {
    kept: Vec<Kept>,
    /// What the gains of normalized queries and keys are multiplied by.
    gains: Vec<GainRatios>,
}

/// Where statistics of the source come from.
enum Seen<'a> {
    Walk(Box<Walk<'a>>),
    File(&'a Statistics),
}

impl Seen<'_> {
    fn block(&mut self, block: usize, request: &Request) -> Result<BlockStatistics, PipelineError> {
        Ok(match self {
            Self::Walk(walk) => walk.observe(request)?,
            Self::File(statistics) => statistics.block(block)?,
        })
    }

    /// What a walk needs to go on.
    fn states(&self) -> Vec<(&'static str, &HiddenStates)> {
        match self {
            Self::Walk(walk) => vec![("source", walk.states())],
            Self::File(_) => Vec::new(),
        }
    }
}

impl Shot<'_> {
    /// Scores every block and chooses what stays.
    pub(super) fn choose(&mut self, journal: &mut Journal<Refit>) -> Result<Chosen, PipelineError> {
        let Prune { settings, calibration, progress, .. } = *self.prune;
        let choice = self.prune.choice()?;
        let blocks = self.source.spec.blocks.len();
        if !journal.is_past(self.index, Phase::Observe) {
            let request = choice.request(&self.source.spec, &self.shapes);
            let first = journal.next(self.index, Phase::Observe);
            let mut seen = self.seen(journal, first)?;
            progress.start("score", ((blocks - first) * calibration.tokens()) as u64, Unit::Tokens);
            for b in first..blocks {
                let statistics = seen.block(b, &request)?;
                let scores = choice.score(self.source, b, &statistics, &self.shapes[b])?;
                self.source.release(b);
                journal.put_scores(self.index, b, &scores)?;
                journal.finished(&seen.states())?;
            }
            progress.finish();
            journal.begin(self.index, Phase::Rewrite)?;
        }
        let scores: Vec<BlockScores> =
            (0..blocks).map(|b| journal.scores(self.index, b)).collect::<Result<_, _>>()?;
        if settings.allocate {
            self.shapes = allocated(&self.shapes, &scores, settings)?;
        }
        let kept = choice.choose(&self.source.spec, &self.shapes, &scores);
        let gains =
            scores.iter().zip(&kept).map(|(scores, kept)| scores.gain_ratios(kept)).collect();
        Ok(Chosen { kept, gains })
    }

    fn seen(&self, journal: &Journal<Refit>, first: usize) -> Result<Seen<'_>, PipelineError> {
        let Prune { calibration, statistics, team, progress, .. } = *self.prune;
        if let Some(statistics) = statistics {
            return Ok(Seen::File(statistics));
        }
        let (windows, aids) = (&calibration.windows, (team, progress));
        let walk = match journal.streams("source")? {
            Some(states) => Walk::resume(self.source, &Reference, (first, states), aids),
            None => Walk::new(self.source, &Reference, windows, aids)?,
        };
        Ok(Seen::Walk(Box::new(walk)))
    }

    /// Cuts and refits every block. The streams behind the last one are there when they are
    /// needed for a measurement.
    pub(super) fn cut(
        &self,
        chosen: &Chosen,
        journal: &mut Journal<Refit>,
    ) -> Result<(Model, Option<Streams>), PipelineError> {
        let config = pruned_config(&self.source.config, &self.source.spec, &chosen.kept)?;
        let spec = ModelSpec::from_config(&config)?;
        let mut streams = None;
        if !journal.is_past(self.index, Phase::Rewrite) {
            streams = self.streams(journal)?;
            self.cut_blocks(&spec, chosen, journal, &mut streams)?;
        }
        let source = &self.source.spec;
        let mut raw = self.source.weights.raw.clone();
        for name in self.source.stranded(&spec) {
            raw.remove(&name);
        }
        for tensor in source.tensors.iter().filter(|tensor| tensor.block.is_some()) {
            raw.remove(&tensor.name);
        }
        for b in 0..source.blocks.len() {
            raw.extend(journal.block(self.index, b)?);
        }
        let weights = WeightStore { raw, ..WeightStore::default() };
        Ok((Model::new(config, weights)?, streams))
    }

    fn cut_blocks(
        &self,
        spec: &ModelSpec,
        chosen: &Chosen,
        journal: &mut Journal<Refit>,
        streams: &mut Option<Streams>,
    ) -> Result<(), PipelineError> {
        let Prune { settings, team, progress, .. } = *self.prune;
        let walk = RefitWalk {
            float: &self.prune.opened.model,
            source: self.source,
            pruned: spec,
            calibration: if self.prune.refits_on_the_way() {
                self.prune.calibration.windows.len()
            } else {
                0
            },
            settings: self.prune.refits_on_the_way().then(|| settings.refit()),
            team,
            progress,
        };
        let first = journal.next(self.index, Phase::Rewrite);
        let blocks = chosen.kept.len();
        let tokens = streams.as_ref().map_or(1, |streams| 2 * streams.float.tokens());
        progress.start("prune", ((blocks - first) * tokens) as u64, Unit::Tokens);
        for (b, kept) in chosen.kept.iter().enumerate().skip(first) {
            let cut = slice_block(self.source, b, kept, chosen.gains[b])?;
            let (mut ready, mut refits) = (None, Vec::new());
            if let (Some(statistics), Repair::LeastSquares) =
                (self.prune.statistics, settings.repair)
            {
                let seen = statistics.block(b)?;
                let refitted = refit_from_statistics(
                    self.source,
                    spec,
                    (b, kept),
                    &cut,
                    &seen,
                    settings.refit(),
                )?;
                (ready, refits) = (Some(refitted.0), refitted.1);
            }
            let tensors = match streams {
                Some(streams) => {
                    let walked = walk.block((b, kept), &cut, ready, streams)?;
                    refits.extend(walked.1);
                    walked.0
                }
                None => ready.unwrap_or(cut),
            };
            self.source.release(b);
            journal.put_block(self.index, b, &tensors)?;
            journal.state.layers.extend(refits);
            journal.finished(&states(streams.as_ref()))?;
        }
        progress.finish();
        if self.index + 1 < settings.shots {
            journal.begin(self.index + 1, Phase::Observe)?;
        }
        Ok(())
    }

    /// The streams before the next block; none when activations are not needed.
    fn streams(&self, journal: &Journal<Refit>) -> Result<Option<Streams>, PipelineError> {
        if !self.prune.walks() {
            return Ok(None);
        }
        let stored =
            (journal.streams("float")?, journal.streams("pruned")?, journal.streams("plain")?);
        if let (Some(float), Some(pruned), Some(plain)) = stored {
            return Ok(Some(Streams { float, pruned, plain }));
        }
        let calibrated: &[Vec<u32>] =
            if self.prune.refits_on_the_way() { &self.prune.calibration.windows } else { &[] };
        let measured = self.prune.measured.iter().flat_map(|text| &text.windows);
        let measured = measured.map(|window| window.ids.clone());
        let all: Vec<Vec<u32>> = calibrated.iter().cloned().chain(measured.clone()).collect();
        let float = HiddenStates::embed(&self.prune.opened.model, &all)?;
        let plain = HiddenStates::embed(&self.prune.opened.model, &measured.collect::<Vec<_>>())?;
        Ok(Some(Streams { pruned: float.clone(), float, plain }))
    }
}

fn states(streams: Option<&Streams>) -> Vec<(&'static str, &HiddenStates)> {
    let Some(Streams { float, pruned, plain }) = streams else { return Vec::new() };
    vec![("float", float), ("pruned", pruned), ("plain", plain)]
}
