//! Block by block over many windows: only one block's weights are in memory at a time.
use super::{
    block::BlockWeights,
    ends::{Embedding, ForwardError, Head},
    linear::Backend,
    rotary::RotaryCache,
    scratch::Scratch,
};
use crate::linalg::Team;
use crate::model::Model;
use crate::progress::{Progress, Unit};
use ndarray::{Array2, ArrayView2};

/// The residual stream after the last block for each window, `[tokens, hidden]`. Windows do not
/// see each other. Needs the streams of all windows, one block and one window's intermediates.
pub fn walk(
    model: &Model,
    backend: &dyn Backend,
    windows: &[Vec<u32>],
    team: &Team,
    progress: &dyn Progress,
) -> Result<Vec<Array2<f32>>, ForwardError> {
    let embedding = Embedding::load(model)?;
    let mut streams =
        windows.iter().map(|ids| embedding.rows(ids)).collect::<Result<Vec<_>, _>>()?;
    drop(embedding);
    let tokens: usize = windows.iter().map(Vec::len).sum();
    progress.start("forward", (tokens * model.spec.blocks.len()) as u64, Unit::Tokens);
    let mut scratch = Scratch::default();
    let mut rotary = RotaryCache::default();
    for b in 0..model.spec.blocks.len() {
        let block = BlockWeights::load(model, b, backend)?;
        model.release(b);
        for stream in &mut streams {
            let len = stream.nrows();
            let table = rotary.get(&model.spec, b, 0..len, len);
            let mut cache = block.cache(len);
            block.forward(stream.view_mut(), (&mut cache, table), team, &mut scratch);
            progress.advance(len as u64);
        }
    }
    progress.finish();
    Ok(streams)
}

/// Rows of logits that are in memory at a time.
const HEAD_ROWS: usize = 256;

/// Visits the logits of each window in order: window, first position, `[positions, vocab]`.
pub fn each_logits<E: From<ForwardError>>(
    model: &Model,
    backend: &dyn Backend,
    windows: &[Vec<u32>],
    (team, progress): (&Team, &dyn Progress),
    mut visit: impl FnMut(usize, usize, ArrayView2<'_, f32>) -> Result<(), E>,
) -> Result<(), E> {
    let streams = walk(model, backend, windows, team, progress)?;
    let head = Head::load(model, backend).map_err(ForwardError::from)?;
    for (window, stream) in streams.iter().enumerate() {
        for (part, rows) in stream.axis_chunks_iter(ndarray::Axis(0), HEAD_ROWS).enumerate() {
            visit(window, part * HEAD_ROWS, head.logits(rows, team).view())?;
        }
    }
    Ok(())
}

/// The logits of one sequence, `[tokens, vocab]`.
pub fn logits(
    model: &Model,
    backend: &dyn Backend,
    ids: &[u32],
    team: &Team,
) -> Result<Array2<f32>, ForwardError> {
    if ids.is_empty() {
        return Err(ForwardError::NoTokens);
    }
    let silent = crate::progress::Silent;
    let streams = walk(model, backend, &[ids.to_vec()], team, &silent)?;
    Ok(Head::load(model, backend)?.logits(streams[0].view(), team))
}
