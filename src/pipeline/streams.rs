//! Streams of a model behind its blocks.
use super::PipelineError;
use crate::{
    calibrate::{CalibrateError, HiddenStates, Passage, WHOLE},
    forward::{Backend, BlockWeights, ForwardError, NoTap},
    linalg::Team,
    model::Model,
    progress::{Progress, Unit},
};

/// Carries streams through a block, whose weights are held as `backend` does.
pub(super) fn carry(
    (model, backend): (&Model, &dyn Backend),
    block: usize,
    states: &mut HiddenStates,
    team: &Team,
) -> Result<(), PipelineError> {
    let weights = BlockWeights::load(model, block, backend).map_err(ForwardError::from)?;
    model.release(block);
    let mut passage = Passage::new(&model.spec, block, team);
    for window in 0..states.len() {
        let through = passage.through((&WHOLE, &weights), states, window, &mut NoTap);
        through.map_err(CalibrateError::from)?;
    }
    Ok(())
}

/// The streams of windows behind the last block; `what` names the work to who watches it.
pub(super) fn last(
    (model, backend): (&Model, &dyn Backend),
    windows: &[Vec<u32>],
    (what, team, progress): (&'static str, &Team, &dyn Progress),
) -> Result<HiddenStates, PipelineError> {
    let through = |b, states: &mut _| carry((model, backend), b, states, team);
    last_by(model, windows, (what, progress), through)
}

/// As [`last`], where `through` carries streams through a block of a model whose other tensors `outline` holds.
pub(super) fn last_by(
    outline: &Model,
    windows: &[Vec<u32>],
    (what, progress): (&'static str, &dyn Progress),
    through: impl Fn(usize, &mut HiddenStates) -> Result<(), PipelineError>,
) -> Result<HiddenStates, PipelineError> {
    let mut states = HiddenStates::embed(outline, windows)?;
    let blocks = outline.spec.blocks.len();
    progress.start(what, blocks as u64, Unit::Items);
    for b in 0..blocks {
        through(b, &mut states)?;
        progress.advance(1);
    }
    progress.finish();
    Ok(states)
}
