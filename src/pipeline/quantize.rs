//! A package with adaptively rounded weights: block by block, on the streams of the float model
//! and of the quantized one.
use super::{
    Allocate, Allocation, PipelineError,
    basis::Basis,
    journal::{Journal, Output, Phase},
    rounding::{Quantize, streams},
    trial::Trial,
};
use crate::{
    calibrate::{CalibrationSet, min_max_grids},
    eval::{Figures, LogitSource, StreamSource, Window, measure},
    forward::{ForwardError, Head, Reference},
    model::Model,
    package::{Rewritten, Summary, refuse_over_input},
    progress::Unit,
    quantize::{self, Candidates, CodeChoice, Effort, LayerReport, Magnitudes, Plan, Streams},
    runtime::Kernels,
    scheme::Activations,
    train::Noted,
    transform,
};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// What quantization did.
#[derive(Clone, Debug, Serialize)]
pub struct Quantized {
    /// Version of this form.
    pub schema: u32,
    /// The package against the float model, on calibration text that it was not fitted to.
    pub loss: Option<Figures>,
    /// Coordinates that were tried on the first blocks.
    pub trials: Vec<Trial>,
    /// How its coordinates were turned before.
    pub transform: Option<transform::Report>,
    /// How a budget was spread, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Allocation>,
    /// Each rounded layer, in the order of the work.
    pub layers: Vec<LayerReport>,
    /// The layer with the largest error.
    pub worst: Option<LayerReport>,
    /// KL divergences to the float model in the course of tuning, where scales were tuned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuned: Option<Vec<Noted>>,
}

/// Version of the JSON form of [`Quantized`].
const SCHEMA: u32 = 1;

/// Where an [`Allocation`] lies until the work is done.
const ALLOCATION_FILE: &str = "allocation.json";

/// The file beside the weights that holds a [`Quantized`].
pub(super) const REPORT_FILE: &str = "quantize.json";

impl Quantize<'_> {
    /// Quantizes. The package appears at `target` when it is complete; finished blocks lie in a
    /// work folder beside it before, from which `resume` goes on.
    pub fn write(
        &self,
        target: &Path,
        resume: bool,
        force: bool,
    ) -> Result<(Quantized, Summary), PipelineError> {
        let output = Output::check((target, REPORT_FILE), self.key, (resume, force))?;
        refuse_over_input(self.opened, target)?;
        let mut transform = self.bases.taken().next().cloned().unwrap_or_default();
        let mut basis = self.basis(&transform)?;
        self.candidates(&basis)?; // refuses before anything is written
        output.work(|journal| {
            let trials = self.trials(journal)?;
            let taken = trials.iter().filter(|it| it.refused.is_none());
            let best = taken.min_by(|a, b| a.error.total_cmp(&b.error)).map(|it| &it.transform);
            if let Some(best) = best.filter(|best| **best != transform) {
                transform.clone_from(best);
                basis = self.basis(&transform)?;
            }
            let (model, plan, quantized) = self.work(&basis, trials, journal)?;
            let report = serde_json::to_string_pretty(&quantized).map_err(PipelineError::State)?;
            let report = report + "\n";
            let rewritten = Rewritten {
                opened: self.opened,
                source_sha256: self.source_sha256,
                model: &model,
                recipe: self.recipe,
                files: &BTreeMap::from([(REPORT_FILE.to_owned(), report.clone())]),
                method: self.settings.method(),
                shard_bytes: self.settings.shard_size.0,
                team: self.team,
                progress: self.progress,
            };
            journal.note_output(&report)?;
            let manifest = rewritten.write(target, force || output.finished)?;
            Ok((quantized, Summary::new(&manifest, &plan)))
        })
    }

    /// Rounds in the chosen coordinates; the model of codes, what each tensor became, the report.
    fn work(
        &self,
        basis: &Basis<'_>,
        trials: Vec<Trial>,
        journal: &mut Journal<LayerReport>,
    ) -> Result<(Model, Plan, Quantized), PipelineError> {
        let candidates = self.candidates(basis)?;
        let mut settings = self.settings.clone();
        let mut allocation = None;
        if let Some(candidates) = &candidates {
            let spread = self.spread(basis, candidates, journal)?;
            settings.rules.splice(..0, spread.rules(candidates));
            allocation = Some(spread);
        }
        let plan = quantize::plan(&basis.outline, &settings)?;
        let mut model = self.ends(basis, &plan)?;
        let streams = match self.settings.rounding() {
            CodeChoice::Adaptive => Some(self.adaptive(basis, &plan, &mut model, journal)?),
            CodeChoice::Nearest => self.nearest(basis, &plan, &mut model).map(|()| None)?,
        };
        let (streams, tuned) = match self.settings.tuning.tune {
            Some(what) => {
                let (streams, notes) = self.tune(what, basis, &mut model, journal)?;
                (Some(streams), Some(notes))
            }
            None => (streams, None),
        };
        let loss = match &streams {
            Some(streams) => self.loss(basis, &model, streams)?,
            None => None,
        };
        let layers = journal.state.layers.clone();
        let worst = layers.iter().max_by(|a, b| a.error.total_cmp(&b.error)).cloned();
        let transform = basis.transform.as_ref().map(|it| it.report().clone());
        let quantized =
            Quantized { schema: SCHEMA, loss, trials, transform, allocation, layers, worst, tuned };
        Ok((model, plan, quantized))
    }

    /// What a budget is spread over, if there is one; else what each tensor becomes is checked.
    fn candidates(&self, basis: &Basis<'_>) -> Result<Option<Candidates>, PipelineError> {
        let candidates = Candidates::of(&basis.outline, self.settings)?;
        if candidates.is_none() {
            quantize::plan(&basis.outline, self.settings)?;
        }
        Ok(candidates)
    }

    /// Spreads a budget over the weights, unless the journal says how that was done.
    fn spread(
        &self,
        basis: &Basis<'_>,
        candidates: &Candidates,
        journal: &Journal<LayerReport>,
    ) -> Result<Allocation, PipelineError> {
        if let Some(noted) = journal.noted(ALLOCATION_FILE)? {
            return Ok(noted);
        }
        let allocate = Allocate {
            outline: &basis.outline,
            block: &|block| basis.block(block),
            candidates,
            method: self.settings.method(),
            adaptive: self.settings.rounding() == CodeChoice::Adaptive,
            windows: &self.calibration.windows,
            team: self.team,
            progress: self.progress,
        };
        let allocation = allocate.run()?;
        journal.put_note(ALLOCATION_FILE, &allocation)?;
        Ok(allocation)
    }

    /// Rounds every block on the streams of both models; those of held-out windows behind the last block.
    fn adaptive(
        &self,
        basis: &Basis<'_>,
        plan: &Plan,
        model: &mut Model,
        journal: &mut Journal<LayerReport>,
    ) -> Result<Streams, PipelineError> {
        let CalibrationSet { windows, held_out, .. } = self.calibration;
        let all = [windows.as_slice(), held_out].concat();
        let mut streams = match (journal.streams("float")?, journal.streams("quantized")?) {
            (Some(float), Some(quantized)) => Streams { float, quantized },
            _ => streams(basis, model, &all)?,
        };
        let spec = model.spec.clone();
        let kernels = Kernels::new();
        let walk = self.walk((&spec, plan), windows.len(), &kernels);
        if !journal.is_past(0, Phase::Observe) {
            journal.begin(0, Phase::Rewrite)?;
        }
        let (first, blocks) = (journal.next(0, Phase::Rewrite), spec.blocks.len());
        let tokens = (blocks - first.min(blocks)) * streams.float.tokens();
        self.progress.start("quantize", tokens as u64, Unit::Tokens);
        for b in first..blocks {
            let block = walk.block(b, basis.block(b)?, &mut streams)?;
            basis.source.release(b);
            journal.put_block(0, b, &block.weights.raw)?;
            journal.state.layers.extend(block.layers);
            journal.finished(&[("float", &streams.float), ("quantized", &streams.quantized)])?;
        }
        self.progress.finish();
        for b in 0..blocks {
            model.weights.raw.extend(journal.block(0, b)?);
        }
        model.weights.quantized.extend(plan.schemes());
        self.scale_head(model, &streams)?;
        let first = windows.len();
        let (float, quantized) =
            (streams.float.split_off(first), streams.quantized.split_off(first));
        Ok(Streams { float, quantized })
    }

    /// Chooses the scale of the head's static activations, where it has them.
    fn scale_head(&self, model: &mut Model, streams: &Streams) -> Result<(), PipelineError> {
        let head = model.spec.head().map(|it| it.name.clone());
        let scheme = head.and_then(|name| Some((model.weights.quantized.get(&name)?.0, name)));
        let Some((_, name)) = scheme.filter(|(it, _)| it.activations == Activations::Int8Static)
        else {
            return Ok(());
        };
        let head = Head::load(model, &Kernels::new()).map_err(ForwardError::from)?;
        let mut magnitudes = Magnitudes::default();
        for window in 0..self.calibration.windows.len() {
            let x = streams.quantized.load(window);
            magnitudes.add(head.normed(x.view(), self.team).iter());
        }
        model.weights.set_input_scale(&name, magnitudes.scale());
        Ok(())
    }

    /// Measures the streams of held-out windows behind the last block.
    fn loss(
        &self,
        basis: &Basis<'_>,
        model: &Model,
        streams: &Streams,
    ) -> Result<Option<Figures>, PipelineError> {
        let held_out = &self.calibration.held_out;
        if held_out.is_empty() {
            return Ok(None);
        }
        let failed = ForwardError::from;
        let float = Head::load(&basis.outline, &Reference).map_err(failed)?;
        let head = Head::load(model, &Kernels::new()).map_err(failed)?;
        let (vocab, team) = (model.spec.vocab, self.team);
        let mut float = StreamSource::new((&float, vocab), &streams.float, 0, team);
        let mut quantized = StreamSource::new((&head, vocab), &streams.quantized, 0, team);
        let window = |ids: &Vec<u32>| Window { scored: 1..ids.len(), ids: ids.clone() };
        let held_out: Vec<Window> = held_out.iter().map(window).collect();
        let float = Some(&mut float as &mut dyn LogitSource);
        let aids = (team, self.progress);
        Ok(Some(measure::<std::io::Sink>(&held_out, &mut quantized, float, None, aids)?.0))
    }

    /// Rounds every weight of every block to nearest.
    fn nearest(
        &self,
        basis: &Basis<'_>,
        plan: &Plan,
        model: &mut Model,
    ) -> Result<(), PipelineError> {
        let blocks = basis.source.spec.blocks.len();
        self.progress.start("quantize", blocks as u64, Unit::Items);
        for b in 0..blocks {
            model.weights.raw.extend(basis.block(b)?);
            basis.source.release(b);
            self.round_nearest(plan, model, Some(b))?;
            self.progress.advance(1);
        }
        self.progress.finish();
        if self.settings.preset == Effort::VendorStandard {
            let bits = self.settings.vendor_activation_bits()?;
            let windows = &self.calibration.windows;
            let tokens = blocks * self.calibration.tokens();
            self.progress.start("ranges", tokens as u64, Unit::Tokens);
            let aids = (self.team, self.progress);
            model.weights.activations = min_max_grids(&basis.outline, windows, bits, aids)?;
            self.progress.finish();
        }
        Ok(())
    }
}
