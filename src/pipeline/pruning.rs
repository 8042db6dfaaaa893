//! A pruning and what its shots ask of it.
use super::PipelineError;
use crate::{
    calibrate::{CalibrationSet, Statistics},
    eval::{Figures, LogitSource, ModelSource, Window, measure},
    forward::Reference,
    linalg::Team,
    model::Model,
    package::Opened,
    progress::Progress,
    prune::{Choice, Pairs, PruneError, Repair, Settings, score},
};
use serde_json::Value;

/// A model to prune and how.
#[derive(Clone, Copy)]
pub struct Prune<'a> {
    /// The float model.
    pub opened: &'a Opened,
    /// What is wanted.
    pub settings: &'a Settings,
    /// Text to calibrate on.
    pub calibration: &'a CalibrationSet,
    /// Fewer tokens than an input has channels are allowed.
    pub allow_rank_deficient: bool,
    /// Texts to measure the cost on.
    pub measured: &'a [Measured],
    /// SHA-256 of the model's tensors, see [`Source`](crate::package::Source).
    pub source_sha256: &'a str,
    /// Statistics of the float model: the first shot makes no forward pass for scores and repair
    /// then.
    pub statistics: Option<&'a Statistics>,
    /// Everything that the result depends on: a work that was begun with another is not resumed.
    pub key: &'a Value,
    /// Stored in the manifest: the resolved recipe.
    pub recipe: &'a Value,
    /// Seed of random scores.
    pub seed: u64,
    /// Threads.
    pub team: &'a Team,
    /// Told of the work.
    pub progress: &'a dyn Progress,
}

/// Windows of a text, not calibrated on.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What the text is called.
    pub name: String,
    /// Its windows.
    pub windows: Vec<Window>,
}

impl Measured {
    /// Figures of a model against another over the windows.
    pub(super) fn figures(
        &self,
        model: &Model,
        reference: &Model,
        aids: (&Team, &dyn Progress),
    ) -> Result<Figures, PipelineError> {
        let [mut model, mut reference] =
            [model, reference].map(|it| ModelSource::new(it, &Reference, aids.0, aids.1));
        let reference = Some(&mut reference as &mut dyn LogitSource);
        let windows = &self.windows;
        Ok(measure::<std::io::Sink>(windows, &mut model, reference, None, aids)?.0)
    }
}

impl Prune<'_> {
    /// How units are chosen.
    pub(super) fn choice(&self) -> Result<Choice<'_>, PipelineError> {
        let Settings { score, values, pairs, .. } = self.settings;
        let score = score::find(score).map_err(PruneError::from)?;
        let shared_pairs = *pairs == Pairs::Shared;
        Ok(Choice { score, values: *values, shared_pairs, seed: self.seed })
    }

    /// Whether activations of the pruned model are needed at all.
    pub(super) fn walks(&self) -> bool {
        !self.measured.is_empty() || self.refits_on_the_way()
    }

    /// Whether consumers are refitted on what the pruned model sees, rather than on statistics of
    /// the float model.
    pub(super) fn refits_on_the_way(&self) -> bool {
        self.settings.repair == Repair::LeastSquares && self.statistics.is_none()
    }
}
