//! Residual streams through one block: the one place where windows are carried on and looked over.
use super::{HiddenStates, error::NonFinite};
use crate::{
    forward::{BlockWeights, Half, Runner, Tap},
    linalg::Team,
    model::ModelSpec,
};
use ndarray::{Array2, ArrayView2};

/// A whole block.
pub const WHOLE: [Half; 2] = [Half::Attention, Half::Mlp];

/// Carries streams through a block of models of one architecture, by halves.
pub struct Passage<'a> {
    /// Runs parts of a half that do not end in the stream.
    pub runner: Runner<'a>,
}

impl<'a> Passage<'a> {
    /// Through block `block`.
    pub fn new(spec: &'a ModelSpec, block: usize, team: &'a Team) -> Self {
        Self { runner: Runner::new(spec, block, team) }
    }

    /// Carries the stream of a window through some halves, and gives what it is behind them,
    /// `[tokens, hidden]`.
    pub fn through(
        &mut self,
        (halves, weights): (&[Half], &BlockWeights),
        states: &mut HiddenStates,
        window: usize,
        tap: &mut dyn Tap,
    ) -> Result<Array2<f32>, NonFinite> {
        let x = self.carry((halves, weights), states.load(window), (window, states), tap)?;
        states.store(window, x.view());
        Ok(x)
    }

    /// As [`Self::through`], of the stream `x` that was loaded from `before`, and stays there as it
    /// was.
    pub fn carry(
        &mut self,
        (halves, weights): (&[Half], &BlockWeights),
        mut x: Array2<f32>,
        (window, before): (usize, &HiddenStates),
        tap: &mut dyn Tap,
    ) -> Result<Array2<f32>, NonFinite> {
        for half in halves {
            self.runner.run(*half, weights, x.view_mut(), tap);
        }
        self.check(&x, (halves, weights), (window, before))?;
        Ok(x)
    }

    /// Ends a half whose last layer's input is known, `[tokens, in]`.
    pub fn finish(
        &mut self,
        (half, weights): (Half, &BlockWeights),
        inner: ArrayView2<'_, f32>,
        states: &mut HiddenStates,
        window: usize,
    ) -> Result<(), NonFinite> {
        let mut x = states.load(window);
        self.runner.finish(half, weights, inner, x.view_mut());
        self.check(&x, (&[half], weights), (window, states))?;
        states.store(window, x.view());
        Ok(())
    }

    /// Refuses activations of some halves that are not finite, and finds the layer that gave them;
    /// `before` are the streams that entered the first.
    pub fn check(
        &mut self,
        activations: &Array2<f32>,
        (halves, weights): (&[Half], &BlockWeights),
        (window, before): (usize, &HiddenStates),
    ) -> Result<(), NonFinite> {
        if activations.iter().all(|x| x.is_finite()) {
            return Ok(());
        }
        let (mut fault, mut x) = (self.runner.fault(), before.load(window));
        if x.iter().all(|x| x.is_finite()) {
            for half in halves {
                self.runner.run(*half, weights, x.view_mut(), &mut fault);
            }
        }
        Err(NonFinite { block: self.runner.block(), window, layer: fault.layer() })
    }
}
