//! What may come next, offered before the model is asked.
use crate::{
    forward::ForwardError,
    runtime::states::{States, Wanted},
};

/// Offers tokens that a model may write next. The text does not depend on them, its speed does.
pub trait Proposer {
    /// Sees a prompt before the first offer behind it.
    fn begin(&mut self, _text: &[u32]) -> Result<(), ForwardError> {
        Ok(())
    }

    /// The states of the model that it guesses from.
    fn wants(&self) -> Wanted {
        Wanted::Nothing
    }

    /// Sees states that it wants, of rows that belong to the text: of the prompt, and behind each pass of
    /// the rows that the text kept. What it saw of their places and of those behind is void. Rows of a
    /// prompt that the model knew before are not shown again.
    fn see(&mut self, _states: States) {}

    /// Up to `most` tokens that may follow `text`: the prompt and all that was written, at least one
    /// token. One text is offered to after the other; each grows from call to call.
    fn offer(&mut self, text: &[u32], most: usize) -> Result<Vec<u32>, ForwardError>;
}
