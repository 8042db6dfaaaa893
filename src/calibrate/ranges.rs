//! The range of every activation that may have a static grid.
use super::{CalibrateError, HiddenStates, Passage, WHOLE};
use crate::{
    forward::{BlockWeights, ForwardError, Head, Point, Ranges, Reference},
    linalg::Team,
    model::Model,
    progress::Progress,
    scheme::ActivationGrid,
};
use ndarray::s;
use std::collections::BTreeMap;

/// Rows of logits that are in memory at a time.
const HEAD_ROWS: usize = 256;

/// A grid of `bits` for every [`Point`] of a float model, by name: each covers what the point gave
/// over all windows, from the least to the largest value. Progress counts tokens per block.
pub fn min_max_grids(
    model: &Model,
    windows: &[Vec<u32>],
    bits: u32,
    (team, progress): (&Team, &dyn Progress),
) -> Result<BTreeMap<String, ActivationGrid>, CalibrateError> {
    let mut states = HiddenStates::embed(model, windows)?;
    let mut ends = Ranges::default();
    for window in 0..states.len() {
        ends.add(Point::Embedding, None, states.load(window).view());
    }
    let mut grids = BTreeMap::new();
    let mut put = |block, ranges: &Ranges| {
        grids.extend(ranges.0.iter().map(|((point, expert), (min, max))| {
            (point.key(block, *expert), ActivationGrid::covering(*min, *max, bits))
        }));
    };
    for block in 0..model.spec.blocks.len() {
        let weights = BlockWeights::load(model, block, &Reference)?;
        model.release(block);
        let mut passage = Passage::new(&model.spec, block, team);
        let mut ranges = Ranges::default();
        for window in 0..states.len() {
            let x = passage.through((&WHOLE, &weights), &mut states, window, &mut ranges)?;
            progress.advance(x.nrows() as u64);
        }
        put(Some(block), &ranges);
    }
    let head = Head::load(model, &Reference).map_err(ForwardError::from)?;
    for window in 0..states.len() {
        let x = states.load(window);
        for first in (0..x.nrows()).step_by(HEAD_ROWS) {
            let rows = x.slice(s![first..(first + HEAD_ROWS).min(x.nrows()), ..]);
            ends.add(Point::FinalNorm, None, head.normed(rows, team).view());
            ends.add(Point::Head, None, head.logits(rows, team).view());
        }
    }
    put(None, &ends);
    Ok(grids)
}
