//! Statistics block by block, each block with the activations that the ones before gave.
use super::{
    BlockStatistics, CalibrateError, HiddenStates, Request,
    error::NonFinite,
    passage::{Passage, WHOLE},
    statistics::{Collector, Inputs},
};
use crate::{
    forward::{Backend, BlockWeights, ForwardError, Reference, Site, Tap},
    linalg::Team,
    model::{Expert, Model, Role},
    progress::Progress,
};
use ndarray::{Array2, ArrayView2};

/// Goes through a model over many windows; one block's weights are in memory at a time.
pub struct Walk<'a> {
    model: &'a Model,
    backend: &'a dyn Backend,
    team: &'a Team,
    progress: &'a dyn Progress,
    states: HiddenStates,
    block: usize,
    /// A model whose inputs are multiplied with this one's, and its streams.
    reference: Option<(&'a Model, HiddenStates)>,
}

impl<'a> Walk<'a> {
    /// Begins before the first block.
    pub fn new(
        model: &'a Model,
        backend: &'a dyn Backend,
        windows: &[Vec<u32>],
        aids: (&'a Team, &'a dyn Progress),
    ) -> Result<Self, ForwardError> {
        let states = HiddenStates::embed(model, windows)?;
        Ok(Self::resume(model, backend, (0, states), aids))
    }

    /// Goes on before block `block`, with the streams that stood there.
    pub fn resume(
        model: &'a Model,
        backend: &'a dyn Backend,
        (block, states): (usize, HiddenStates),
        (team, progress): (&'a Team, &'a dyn Progress),
    ) -> Self {
        Self { model, backend, team, progress, states, block, reference: None }
    }

    /// Runs a reference model of the same shape beside, in float32: products of its inputs with
    /// this model's are summed where a request asks for them.
    pub fn beside(
        mut self,
        reference: &'a Model,
        windows: &[Vec<u32>],
    ) -> Result<Self, CalibrateError> {
        if reference.spec.blocks != self.model.spec.blocks {
            return Err(CalibrateError::OtherShape);
        }
        self.reference = Some((reference, HiddenStates::embed(reference, windows)?));
        Ok(self)
    }

    /// The streams before the next block.
    pub fn states(&self) -> &HiddenStates {
        &self.states
    }

    /// Runs the next block over all windows; what its layers saw. Progress counts tokens.
    pub fn observe(&mut self, request: &Request) -> Result<BlockStatistics, CalibrateError> {
        let sizes = &self.model.spec.blocks[self.block];
        let mut runner = Loaded::new(self.model, self.block, self.backend, self.team)?;
        let mut other = match &self.reference {
            Some((model, _)) => Some(Loaded::new(model, self.block, &Reference, self.team)?),
            None => None,
        };
        let mut collector = Collector::new(request, sizes, self.team);
        for window in 0..self.states.len() {
            if let (Some(other), Some((_, states))) = (&mut other, &mut self.reference) {
                let mut kept = Kept { request, inputs: Inputs::new() };
                other.through(states, window, &mut kept)?;
                collector.reference = kept.inputs;
            }
            let before = self.states.load(window);
            let x = runner.through(&mut self.states, window, &mut collector)?;
            collector.streams(before.view(), x.view());
            self.progress.advance(x.nrows() as u64);
        }
        self.block += 1;
        Ok(collector.finish())
    }
}

/// One block of a model, ready to run.
struct Loaded<'a> {
    weights: BlockWeights,
    passage: Passage<'a>,
}

impl<'a> Loaded<'a> {
    fn new(
        model: &'a Model,
        block: usize,
        backend: &dyn Backend,
        team: &'a Team,
    ) -> Result<Self, CalibrateError> {
        let weights = BlockWeights::load(model, block, backend)?;
        model.release(block);
        Ok(Self { weights, passage: Passage::new(&model.spec, block, team) })
    }

    /// The stream of a window behind the block.
    fn through(
        &mut self,
        states: &mut HiddenStates,
        window: usize,
        tap: &mut dyn Tap,
    ) -> Result<Array2<f32>, NonFinite> {
        self.passage.through((&WHOLE, &self.weights), states, window, tap)
    }
}

/// Keeps inputs of a reference model.
struct Kept<'a> {
    request: &'a Request,
    inputs: Inputs,
}

impl Tap for Kept<'_> {
    fn see(&mut self, site: Site, x: ArrayView2<'_, f32>) {
        if let Site::Input(role, expert) = site
            && self.request.has_cross(role, expert)
        {
            self.inputs.insert((role, expert), x.to_owned());
        }
    }
}

impl Request {
    /// Whether products with a reference model's input of this layer are wanted.
    pub(super) fn has_cross(&self, role: Role, expert: Option<Expert>) -> bool {
        let routed = matches!(expert, Some(Expert::Routed(_)));
        self.cross && self.covariance.contains(&role) && !routed
    }
}
