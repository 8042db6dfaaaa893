//! Which coordinates lose least, tried on the first blocks.
use super::{
    Offer, PipelineError,
    basis::Basis,
    journal::Journal,
    rounding::{Quantize, streams},
};
use crate::{
    calibrate::HiddenStates,
    progress::Unit,
    quantize::{self, LayerReport, Settings},
    runtime::Kernels,
    transform,
};
use serde::{Deserialize, Serialize};

/// Blocks that a trial rounds, at most.
pub(super) const TRIAL_BLOCKS: usize = 8;
/// Windows that a trial rounds on, and as many that it measures on, at most.
pub(super) const TRIAL_WINDOWS: usize = 8;
/// The record of trials in a work folder.
const TRIALS_FILE: &str = "trials.json";

/// Coordinates that were tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Place among those that were tried.
    pub at: usize,
    /// The rotation and what is multiplied at run time.
    pub transform: transform::Settings,
    /// Mean squared difference of the normalized residual streams of the float and the quantized
    /// model behind the blocks that were rounded, on windows that they were not rounded on.
    pub error: f64,
    /// Why they are not taken, whatever they lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Quantize<'_> {
    /// Tries the coordinates on the first blocks, unless there is nothing to choose or the journal
    /// knows the outcome.
    pub(super) fn trials(
        &self,
        journal: &Journal<LayerReport>,
    ) -> Result<Vec<Trial>, PipelineError> {
        if let Some(known) = journal.noted(TRIALS_FILE)? {
            return Ok(known);
        }
        let mut trials = Vec::new();
        for (at, Offer { transform, refused }) in self.bases.tried().into_iter().enumerate() {
            let error = self.trial(&self.basis(transform)?)?;
            let (transform, refused) = (transform.clone(), refused.clone());
            trials.push(Trial { at, transform, error, refused });
        }
        if !trials.is_empty() {
            journal.put_note(TRIALS_FILE, &trials)?;
        }
        Ok(trials)
    }

    /// Rounds the first blocks in some coordinates.
    fn trial(&self, basis: &Basis<'_>) -> Result<f64, PipelineError> {
        let windows = &self.calibration.windows;
        let rounded = windows.len().div_ceil(2).min(TRIAL_WINDOWS);
        let windows = &windows[..windows.len().min(2 * rounded)];
        let settings = Settings { avg_bits: None, max_bytes: None, ..self.settings.clone() };
        let plan = quantize::plan(&basis.outline, &settings)?;
        let model = self.ends(basis, &plan)?;
        let mut streams = streams(basis, &model, windows)?;
        let kernels = Kernels::new();
        let walk = self.walk((&model.spec, &plan), rounded, &kernels);
        let blocks = model.spec.blocks.len().min(TRIAL_BLOCKS);
        self.progress.start("try", (blocks * streams.float.tokens()) as u64, Unit::Tokens);
        for b in 0..blocks {
            walk.block(b, basis.block(b)?, &mut streams)?;
        }
        self.progress.finish();
        // Windows that were not rounded on, or the only one there is.
        let measured = rounded.min(windows.len() - 1)..windows.len();
        Ok(difference(&streams.float, &streams.quantized, measured))
    }
}

/// Mean squared difference of tokens divided by their root mean squares.
fn difference(a: &HiddenStates, b: &HiddenStates, windows: std::ops::Range<usize>) -> f64 {
    let normalized = |row: ndarray::ArrayView1<'_, f32>| {
        let row = row.mapv(f64::from);
        let mean = row.mapv(|x| x * x).mean().unwrap_or(0.0);
        row / mean.sqrt().max(f64::MIN_POSITIVE)
    };
    let (mut sum, mut count) = (0.0, 0);
    for window in windows {
        let (a, b) = (a.load(window), b.load(window));
        for (a, b) in a.outer_iter().zip(b.outer_iter()) {
            let difference = normalized(a) - normalized(b);
            sum += difference.mapv(|x| x * x).sum();
            count += difference.len();
        }
    }
    sum / f64::from(u32::try_from(count.max(1)).unwrap_or(u32::MAX))
}
