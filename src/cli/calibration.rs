//! The calibration set of a verb, from its settings.
use super::Context;
use crate::{
    calibrate::{CalibrationSet, Settings},
    package::Opened,
    pipeline::Calibration,
};

/// The calibration set of a model, and up to `held_out` windows of the same text that are not
/// calibrated on; notes are told on stderr.
pub(super) fn prepare(
    opened: &Opened,
    settings: &Settings,
    held_out: usize,
    context: &Context,
) -> anyhow::Result<CalibrationSet> {
    let (team, progress) = (&context.team, context.progress());
    let set = Calibration { opened, settings, seed: context.seed, team, progress }.set(held_out)?;
    for note in &set.notes {
        context.note(format_args!("calibration: {note}"));
    }
    Ok(set)
}
