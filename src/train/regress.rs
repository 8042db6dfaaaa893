//! A block alone learns which streams stand behind it.
use super::{Adam, Block, Settings, Step, TrainError, clip, rows};
use crate::{calibrate::HiddenStates, linalg::Team};
use ndarray::{Array2, Axis};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Streams before a block and those that should stand behind it, window by window; windows behind the first
/// `learnt` are only measured on.
#[derive(Clone, Copy, Debug)]
pub struct Streams<'a> {
    /// Before the block.
    pub inputs: &'a HiddenStates,
    /// Behind it.
    pub targets: &'a HiddenStates,
    /// Windows to learn from.
    pub learnt: usize,
}

/// What a block learnt: the mean of ‖y − t‖² / ‖t‖² over the tokens of the windows measured on, of streams y
/// and targets t.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BlockLoss {
    /// The block.
    pub block: usize,
    /// Before.
    pub before: f64,
    /// Of the best pass, or of none, which is what is kept.
    pub after: f64,
}

/// Windows in the order of a pass: the same for the same seed and pass.
pub(super) fn order(windows: usize, (seed, pass): (u64, usize)) -> Vec<usize> {
    let mut order: Vec<usize> = (0..windows).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(pass as u64);
    order.shuffle(&mut random);
    order
}

/// Streams of some windows, one behind the other, `[windows · window, hidden]`.
pub(super) fn batch(states: &HiddenStates, windows: &[usize]) -> Array2<f32> {
    let streams: Vec<Array2<f32>> = windows.iter().map(|window| states.load(*window)).collect();
    let views: Vec<_> = streams.iter().map(|it| it.view()).collect();
    ndarray::concatenate(Axis(0), &views).expect("windows of one width")
}

/// Lets block `index` learn, and leaves it as it was best on the windows that are measured on.
pub fn regress(
    (index, block): (usize, &mut Block),
    streams: Streams<'_>,
    settings: &Settings,
    (seed, team): (u64, &Team),
) -> Result<BlockLoss, TrainError> {
    let before = measure(block, streams, team);
    let (mut best, mut after) = (block.parameters.clone(), before);
    let steps = settings.steps(streams.learnt) * settings.block_epochs;
    let (mut adam, mut step) = (Adam::default(), 0);
    for pass in 0..settings.block_epochs {
        for windows in order(streams.learnt, (seed, pass)).chunks(settings.step_windows) {
            let (y, tape) = block.forward(batch(streams.inputs, windows), team);
            let targets = batch(streams.targets, windows);
            let (loss, dy) = gradient(y, &targets, team);
            if !loss.is_finite() {
                return Err(TrainError::Loss { step, block: Some(index) });
            }
            block.parameters.clear();
            block.backward(tape, dy, team);
            let (scale, _) = clip([&block.parameters].into_iter(), settings.gradient_clip);
            let rate = settings.rate(settings.block_rate, step, steps);
            let decay = settings.weight_decay as f32;
            adam.step(&mut block.parameters, Step { rate, scale, decay }, team);
            step += 1;
        }
        let found = measure(block, streams, team);
        if found < after {
            (best, after) = (block.parameters.clone(), found);
        }
    }
    block.parameters = best;
    Ok(BlockLoss { block: index, before, after })
}

/// The mean loss over the windows that are not learnt from, or over all if there are no others.
fn measure(block: &Block, streams: Streams<'_>, team: &Team) -> f64 {
    let all = streams.inputs.len();
    let first = if streams.learnt < all { streams.learnt } else { 0 };
    let losses = (first..all).map(|window| {
        let (y, _) = block.forward(streams.inputs.load(window), team);
        gradient(y, &streams.targets.load(window), team).0
    });
    losses.sum::<f64>() / (all - first).max(1) as f64
}

/// The mean of ‖y − t‖² / ‖t‖² over the rows, and its gradient by y.
fn gradient(mut y: Array2<f32>, targets: &Array2<f32>, team: &Team) -> (f64, Array2<f32>) {
    let tokens = y.nrows() as f32;
    let sum = rows::summed(y.view_mut(), 1, team, |t, y, sum| {
        let target = targets.row(t);
        let energy = target.dot(&target).max(f32::MIN_POSITIVE);
        let mut squares = 0.0;
        for (y, t) in y.iter_mut().zip(target) {
            let off = *y - t;
            squares += off * off;
            *y = 2.0 * off / (energy * tokens);
        }
        sum[0] += squares / energy;
    });
    (f64::from(sum[0]) / f64::from(tokens), y)
}
