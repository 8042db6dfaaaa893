//! A checkpoint with narrower blocks: score, choose, cut, refit, measure, write.
use super::{
    PipelineError,
    journal::{Journal, Output},
    pruning::{Measured, Prune},
    shot::Shot,
};
use crate::{
    calibrate::{Request, Walk, check_tokens},
    checkpoint::DEFAULT_SHARD_BYTES,
    eval::{Figures, LogitSource, StreamSource, Window, measure},
    forward::{ForwardError, Head, Reference},
    model::{Model, Role},
    package::{Rewritten, refuse_over_input},
    progress::Unit,
    prune::{self, Plan, PruneError, Refit, Repair, Streams, keep_blocks},
    quantize::Method,
};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// What pruning did.
#[derive(Clone, Debug, Serialize)]
pub struct Pruned {
    /// Version of this form.
    pub schema: u32,
    /// Shapes and sizes before and after.
    pub plan: Plan,
    /// Each refitted consumer, in the order of the work.
    pub refits: Vec<Refit>,
    /// The refit with the largest error left.
    pub worst: Option<Refit>,
    /// What it cost, on each measured text.
    pub costs: Vec<Cost>,
}

/// Figures of the pruned model against the float model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// The text.
    pub text: String,
    /// As it was cut.
    pub before_repair: Figures,
    /// As it is written.
    pub after_repair: Figures,
}

/// Version of the JSON form of [`Pruned`].
const SCHEMA: u32 = 1;

/// The file beside the weights that holds a [`Pruned`].
pub const REPORT_FILE: &str = "prune.json";

impl Prune<'_> {
    /// Prunes. The checkpoint appears at `target` when it is complete; what is finished before
    /// lies in a work folder beside it, from which `resume` goes on.
    pub fn write(&self, target: &Path, resume: bool, force: bool) -> Result<Pruned, PipelineError> {
        let output = Output::check((target, REPORT_FILE), self.key, (resume, force))?;
        prune::check_float(&self.opened.model)?;
        refuse_over_input(self.opened, target)?;
        let plan = prune::Plan::of(&self.opened.model, self.settings)?;
        if let Some(layers) = self.settings.drop_layers {
            let (model, costs) = self.drop_layers(layers)?;
            let pruned = Pruned { schema: SCHEMA, plan, refits: Vec::new(), worst: None, costs };
            self.write_checkpoint(&model, &text(&pruned)?, target, force)?;
            return Ok(pruned);
        }
        output.work(|journal| {
            let (model, pruned) = self.work(plan, journal)?;
            if !output.finished {
                let report = text(&pruned)?;
                journal.note_output(&report)?;
                self.write_checkpoint(&model, &report, target, force)?;
            }
            Ok(pruned)
        })
    }

    /// Cuts, shot by shot, and measures.
    fn work(
        &self,
        plan: Plan,
        journal: &mut Journal<Refit>,
    ) -> Result<(Model, Pruned), PipelineError> {
        let mut model = self.opened.model.clone();
        let mut streams = None;
        for (index, shapes) in plan.shots(self.settings.shots).into_iter().enumerate() {
            // Statistics are those of the float model, which the first shot alone cuts.
            let prune = Prune { statistics: self.statistics.filter(|_| index == 0), ..*self };
            let mut shot = Shot { prune: &prune, index, source: &model, shapes };
            let choice = shot.choose(journal)?;
            (model, streams) = shot.cut(&choice, journal)?;
        }
        let costs = streams.map_or(Ok(Vec::new()), |streams| self.costs(&model, &streams))?;
        let refits = journal.state.layers.clone();
        let worst = refits.iter().max_by(|a, b| a.error_after.total_cmp(&b.error_after)).cloned();
        let plan = plan.carried_out(&model);
        let pruned = Pruned { schema: SCHEMA, plan, refits, worst, costs };
        Ok((model, pruned))
    }

    /// Drops the blocks that change the residual stream least (`ShortGPT`, arXiv 2403.03853), and
    /// measures what is left.
    fn drop_layers(&self, layers: usize) -> Result<(Model, Vec<Cost>), PipelineError> {
        let (float, aids) = (&self.opened.model, (self.team, self.progress));
        let blocks = float.spec.blocks.len();
        let windows = &self.calibration.windows;
        self.progress.start("score", (blocks * self.calibration.tokens()) as u64, Unit::Tokens);
        let mut influence = Vec::new();
        if let Some(statistics) = self.statistics {
            for b in 0..blocks {
                influence.push(statistics.block(b)?.influence);
            }
        } else {
            let mut walk = Walk::new(float, &Reference, windows, aids)?;
            for _ in 0..blocks {
                influence.push(walk.observe(&Request::default())?.influence);
            }
        }
        self.progress.finish();
        let mut order: Vec<usize> = (0..blocks).collect();
        order.sort_by(|a, b| influence[*a].total_cmp(&influence[*b]));
        let mut kept = order.split_off(layers.min(blocks));
        kept.sort_unstable();
        let model = keep_blocks(float, &kept)?;
        let mut costs = Vec::new();
        for measured in self.measured {
            let name = &measured.name;
            let figures = measured.figures(&model, float, aids)?;
            let (before_repair, after_repair) = (figures.clone(), figures);
            costs.push(Cost { text: name.clone(), before_repair, after_repair });
        }
        Ok((model, costs))
    }

    fn write_checkpoint(
        &self,
        model: &Model,
        report: &str,
        target: &Path,
        force: bool,
    ) -> Result<(), PipelineError> {
        let rewritten = Rewritten {
            opened: self.opened,
            source_sha256: self.source_sha256,
            model,
            recipe: self.recipe,
            method: Method::default(),
            shard_bytes: DEFAULT_SHARD_BYTES,
            files: &BTreeMap::from([(REPORT_FILE.to_owned(), report.to_owned())]),
            team: self.team,
            progress: self.progress,
        };
        rewritten.write(target, force)?;
        Ok(())
    }

    /// Refuses statistics that lack what the first shot reads.
    fn check_statistics(&self, plan: &Plan) -> Result<(), PipelineError> {
        let Some(statistics) = self.statistics.filter(|_| plan.dropped_blocks == 0) else {
            return Ok(());
        };
        let seen = &statistics.fingerprint().request;
        let shapes = plan.shots(self.settings.shots).swap_remove(0);
        let mut needed = self.choice()?.request(&self.opened.model.spec, &shapes);
        if self.settings.repair == Repair::LeastSquares {
            needed.covariance.extend([Role::O, Role::Down]);
        }
        let heads = (needed.heads && !seen.heads).then_some(Role::O);
        match needed.covariance.difference(&seen.covariance).copied().next().or(heads) {
            Some(role) => Err(PruneError::Unseen { block: 0, role, expert: None }.into()),
            None => Ok(()),
        }
    }

    /// What is worth a warning before the work begins; refuses what cannot work.
    pub fn warnings(&self, plan: &Plan) -> Result<Vec<String>, PipelineError> {
        self.check_statistics(plan)?;
        let consumers = [Role::O, Role::Down];
        let request = Request { covariance: consumers.into(), ..Request::default() };
        let tokens = self.calibration.tokens() as u64;
        if self.settings.repair == Repair::None {
            return Ok(Vec::new());
        }
        check_tokens(&plan.spec, &request, tokens, self.allow_rank_deficient)?;
        let block = plan.blocks.iter();
        let widest = block.flat_map(|it| it.mlp.values().copied().chain([it.heads * it.head_dim]));
        let widest = widest.max().unwrap_or(0) as u64;
        let few = (tokens < 4 * widest).then(|| {
            format!(
                "{tokens} calibration tokens for layers with {widest} inputs; with less than {} the \
                 repair may fit this text only\nhint: --calibration-samples",
                4 * widest
            )
        });
        Ok(few.into_iter().collect())
    }

    /// Measures the streams behind the last block.
    fn costs(&self, model: &Model, streams: &Streams) -> Result<Vec<Cost>, PipelineError> {
        // Windows to measure on stand behind those to calibrate on, text after text.
        let calibrated = streams.float.len() - streams.plain.len();
        let float = &self.opened.model;
        let load = |model| Head::load(model, &Reference).map_err(ForwardError::from);
        let (whole, head) = (load(float)?, load(model)?);
        let (whole, head) = ((&whole, float.spec.vocab), (&head, model.spec.vocab));
        let figures = |states, first, float_first, windows: &[Window]| {
            let (team, progress) = (self.team, self.progress);
            let mut float = StreamSource::new(whole, &streams.float, float_first, team);
            let mut pruned = StreamSource::new(head, states, first, team);
            let float = Some(&mut float as &mut dyn LogitSource);
            let measured =
                measure::<std::io::Sink>(windows, &mut pruned, float, None, (team, progress));
            Ok::<Figures, PipelineError>(measured?.0)
        };
        let mut costs = Vec::new();
        let mut first = 0;
        for Measured { name, windows } in self.measured {
            let behind = calibrated + first;
            costs.push(Cost {
                text: name.clone(),
                before_repair: figures(&streams.plain, first, behind, windows)?,
                after_repair: figures(&streams.pruned, behind, behind, windows)?,
            });
            first += windows.len();
        }
        Ok(costs)
    }
}

/// The report as it lies beside the weights.
fn text(pruned: &Pruned) -> Result<String, PipelineError> {
    Ok(serde_json::to_string_pretty(pruned).map_err(PipelineError::State)? + "\n")
}
