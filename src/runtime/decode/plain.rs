//! Nothing is offered: a token a pass.
use super::proposer::Proposer;
use crate::forward::ForwardError;

/// Offers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Proposer for Plain {
    fn offer(&mut self, _text: &[u32], _most: usize) -> Result<Vec<u32>, ForwardError> {
        Ok(Vec::new())
    }
}
