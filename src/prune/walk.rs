//! Block by block through the float model and the pruned one: each consumer of a cut space is
//! refitted on the inputs that it will really see.
use super::{
    Kept, PruneError, Tensors,
    refit::{Refit, RefitSettings, Sums, before_the_cut, refit},
};
use crate::{
    calibrate::{HiddenStates, NonFinite, Passage},
    forward::{BlockWeights, Half, NoTap, Reference, Site},
    linalg::Team,
    model::{Expert, Mlp, Model, ModelSpec, Role},
    progress::Progress,
};
use ndarray::{Array2, ArrayView2};
use std::collections::BTreeMap;

/// The residual streams between two blocks.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Of the float model: the windows to calibrate on, then those to measure on.
    pub float: HiddenStates,
    /// Of the pruned and refitted model, the same windows.
    pub pruned: HiddenStates,
    /// Of the pruned model as it was cut, over the windows to measure on alone.
    pub plain: HiddenStates,
}

/// A walk through the blocks of two models at once.
pub struct RefitWalk<'a> {
    /// The float model.
    pub float: &'a Model,
    /// The model that is cut: the float model, or the result of the shot before.
    pub source: &'a Model,
    /// Architecture of the pruned model.
    pub pruned: &'a ModelSpec,
    /// Windows that are calibrated on: the first ones. The others are only carried along.
    pub calibration: usize,
    /// How consumers are refitted; `None` leaves them as they were cut.
    pub settings: Option<RefitSettings>,
    /// Threads.
    pub team: &'a Team,
    /// Told of the tokens that passed a block.
    pub progress: &'a dyn Progress,
}

/// What the consumers of one half of a block are refitted from.
type Seen = BTreeMap<Option<Expert>, Sums>;

/// The layer that reads the space which was cut in a half.
fn consumer(half: Half) -> Role {
    if half == Half::Attention { Role::O } else { Role::Down }
}

impl RefitWalk<'_> {
    /// Carries every stream through block `block`. `cut` are the pruned block's tensors, made from
    /// the source's by `kept`; `ready` the same refitted already, if they are. Returns the tensors
    /// with refitted consumers.
    pub fn block(
        &self,
        (block, kept): (usize, &Kept),
        cut: &Tensors,
        ready: Option<Tensors>,
        streams: &mut Streams,
    ) -> Result<(Tensors, Vec<Refit>), PruneError> {
        let load = |model: &Model| BlockWeights::load(model, block, &Reference);
        let float = load(self.float)?;
        let plain = load(&Model::part(self.pruned, cut.clone()))?;
        let mut model = Model::part(self.pruned, ready.unwrap_or_else(|| cut.clone()));
        let mut passage = Passage::new(self.pruned, block, self.team);
        let mut refits = Vec::new();
        for half in [Half::Attention, Half::Mlp] {
            let ready = load(&model)?;
            let seen = self.see(half, &mut passage, (&float, &ready), streams)?;
            for (settings, (expert, sums)) in
                self.settings.iter().flat_map(|it| seen.iter().map(move |sums| (*it, sums)))
            {
                let place = (block, consumer(half), *expert);
                let cut = match expert {
                    Some(_) => Some(before_the_cut(self.source, place, kept, sums)?),
                    None => None,
                };
                refits.push(refit(&mut model, place, cut.as_ref().unwrap_or(sums), settings)?);
            }
            let ready = if seen.is_empty() { ready } else { load(&model)? };
            advance(&mut passage, half, &ready, &mut streams.pruned)?;
            advance(&mut passage, half, &plain, &mut streams.plain)?;
        }
        self.float.release(block);
        self.source.release(block);
        Ok((model.weights.raw, refits))
    }

    /// Carries the float stream through a half, and sums what consumers see and should give.
    fn see(
        &self,
        half: Half,
        passage: &mut Passage<'_>,
        (float, pruned): (&BlockWeights, &BlockWeights),
        streams: &mut Streams,
    ) -> Result<Seen, PruneError> {
        let settings = self.settings.filter(|_| self.calibration > 0);
        let experts =
            matches!(self.float.spec.blocks[passage.runner.block()].mlp, Mlp::Experts { .. });
        let routed = half == Half::Mlp && experts;
        let mut whole = Passage::new(&self.float.spec, passage.runner.block(), self.team);
        let mut seen = Seen::new();
        for window in 0..streams.float.len() {
            let mut output = Array2::zeros((0, 0));
            let mut keep = |site, y: ArrayView2<'_, f32>| {
                if site == Site::Output(consumer(half)) {
                    output = y.to_owned();
                }
            };
            let x = whole.through((&[half], float), &mut streams.float, window, &mut keep)?;
            self.progress.advance(x.nrows() as u64);
            let Some(settings) = settings.filter(|_| window < self.calibration && !routed) else {
                continue;
            };
            let stream = streams.pruned.load(window);
            let target = settings.target.of(&output, &x, &stream);
            let mut sum = |site, x: ArrayView2<'_, f32>| {
                if site == Site::Input(consumer(half), None) {
                    let sums = || Sums::new(target.ncols(), x.ncols());
                    seen.entry(None).or_insert_with(sums).add(target.view(), x, self.team);
                }
            };
            passage.carry((&[half], pruned), stream, (window, &streams.pruned), &mut sum)?;
        }
        if routed && settings.is_some() {
            return self.see_experts(passage.runner.block(), streams);
        }
        Ok(seen)
    }

    /// What the experts of the source see in the pruned stream. The float model may send a token
    /// elsewhere, so that its experts' outputs are no targets: each expert is fitted to what it
    /// gave before it was cut.
    fn see_experts(&self, block: usize, streams: &Streams) -> Result<Seen, PruneError> {
        let whole = BlockWeights::load(self.source, block, &Reference)?;
        let mut passage = Passage::new(&self.source.spec, block, self.team);
        let mut seen = Seen::new();
        for window in 0..self.calibration {
            let mut sum = |site, x: ArrayView2<'_, f32>| {
                if let Site::Input(Role::Down, expert) = site {
                    let sums = || Sums::new(0, x.ncols());
                    seen.entry(expert).or_insert_with(sums).add_inputs(x, self.team);
                }
            };
            let half = (&[Half::Mlp][..], &whole);
            let stream = streams.pruned.load(window);
            passage.carry(half, stream, (window, &streams.pruned), &mut sum)?;
        }
        Ok(seen)
    }
}

/// Carries a stream through a half.
fn advance(
    passage: &mut Passage<'_>,
    half: Half,
    weights: &BlockWeights,
    states: &mut HiddenStates,
) -> Result<(), NonFinite> {
    for window in 0..states.len() {
        passage.through((&[half], weights), states, window, &mut NoTap)?;
    }
    Ok(())
}
