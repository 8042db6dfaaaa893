//! Streams of the quantized model, carried on.
use super::QuantizeError;
use crate::{
    calibrate::HiddenStates,
    forward::{BlockWeights, Half, NoTap, Runner},
};
use ndarray::Array2;

/// Carries windows through a half; `inners` are the inputs of the layer that ends it, if they are
/// known.
pub(super) fn advance(
    runner: &mut Runner<'_>,
    half: Half,
    weights: &BlockWeights,
    (states, inners): (&mut HiddenStates, &HiddenStates),
) -> Result<(), QuantizeError> {
    for window in 0..states.len() {
        let mut x = states.load(window);
        if inners.is_empty() {
            runner.run(half, weights, x.view_mut(), &mut NoTap);
        } else {
            runner.finish(half, weights, inners.load(window).view(), x.view_mut());
        }
        check(&x, (half, weights), runner, (window, states))?;
        states.store(window, x.view());
    }
    Ok(())
}

/// Refuses activations of a half that are not finite, and finds the layer that gave them; `before`
/// are the streams that entered the half.
pub(super) fn check(
    activations: &Array2<f32>,
    (half, weights): (Half, &BlockWeights),
    runner: &mut Runner<'_>,
    (window, before): (usize, &HiddenStates),
) -> Result<(), QuantizeError> {
    if activations.iter().all(|x| x.is_finite()) {
        return Ok(());
    }
    let (mut fault, mut x) = (runner.fault(), before.load(window));
    if x.iter().all(|x| x.is_finite()) {
        runner.run(half, weights, x.view_mut(), &mut fault);
    }
    Err(QuantizeError::NonFinite { block: runner.block(), window, layer: fault.layer() })
}
