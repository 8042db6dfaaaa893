//! One text from a model, token by token.
use super::{
    offers::Speculation,
    pass::{Lane, pass, show},
    plain::Plain,
    writing::{GenerateError, GenerateSettings, Generated, Writing},
};
use crate::{
    forward::ForwardError,
    runtime::{
        engine::Engine,
        states::{States, Wanted},
    },
    text::Tokenizer,
};
use ndarray::Array2;

/// What can follow the tokens seen so far.
pub trait NextToken {
    /// Reads tokens after those seen before; gives the logits `[vocab]` of what follows the last.
    fn feed(&mut self, ids: &[u32]) -> Result<&[f32], ForwardError>;

    /// As [`Self::feed`] of one token after the other, bit for bit: gives the logits
    /// `[tokens, vocab]` of what follows each.
    fn verify(&mut self, ids: &[u32]) -> Result<Array2<f32>, ForwardError>;

    /// Forgets all tokens but the first `len`.
    fn truncate(&mut self, len: usize);

    /// Keeps the states that are wanted of what is read from now on; what has none keeps none.
    fn keep_states(&mut self, _wanted: Wanted) {}

    /// The states of what was read since the last call and not forgotten since.
    fn take_states(&mut self) -> States {
        States::default()
    }

    /// Tokens seen so far.
    fn seen(&self) -> usize;

    /// Tokens that fit at most.
    fn limit(&self) -> usize;
}

impl NextToken for Engine<'_> {
    fn feed(&mut self, ids: &[u32]) -> Result<&[f32], ForwardError> {
        Engine::feed(self, ids)
    }

    fn verify(&mut self, ids: &[u32]) -> Result<Array2<f32>, ForwardError> {
        Engine::verify(self, ids)
    }

    fn truncate(&mut self, len: usize) {
        Engine::truncate(self, len);
    }

    fn keep_states(&mut self, wanted: Wanted) {
        Engine::keep_states(self, wanted);
    }

    fn take_states(&mut self) -> States {
        Engine::take_states(self)
    }

    fn seen(&self) -> usize {
        self.len()
    }

    fn limit(&self) -> usize {
        self.max_positions()
    }
}

/// Continues `prompt`, the whole text so far: its first [`NextToken::seen`] tokens have been read
/// already, at least one has not. `receive` gets the text piece by piece as soon as it is certain and says
/// whether to go on; the first call, with an empty piece, comes when the prompt has been read.
pub fn generate(
    model: &mut dyn NextToken,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    settings: &GenerateSettings,
    receive: &mut dyn FnMut(&str) -> bool,
) -> Result<Generated, GenerateError> {
    let mut plain = Speculation::new(Plain, 0);
    generate_with((model, &mut plain), tokenizer, prompt, settings, receive)
}

/// As [`generate`], the same text, with fewer passes where offers are what the model writes.
pub fn generate_with(
    (model, speculation): (&mut dyn NextToken, &mut Speculation<'_>),
    tokenizer: &Tokenizer,
    prompt: &[u32],
    settings: &GenerateSettings,
    receive: &mut dyn FnMut(&str) -> bool,
) -> Result<Generated, GenerateError> {
    if !settings.ignore_eos {
        tokenizer.check_ends()?;
    }
    let (limit, seen) = (model.limit(), model.seen());
    let unread =
        prompt.get(seen..).filter(|it| !it.is_empty()).ok_or(GenerateError::EmptyPrompt)?;
    let mut writing = Writing::new(tokenizer, (prompt, limit), settings)?.to(receive);
    speculation.begin(prompt)?;
    model.keep_states(speculation.wants());
    let logits = model.feed(unread)?;
    writing.hand_on();
    let mut lane = Lane::begin(writing, prompt, logits)?;
    let Speculation { proposer, control } = speculation;
    show(&mut **proposer, model.take_states());
    while !lane.is_over() {
        let seen = model.seen();
        let lanes = &mut [(&mut lane, &mut **proposer as _)];
        let kept = pass(lanes, control, |rows| model.verify(rows[0]))?;
        model.truncate(seen + kept[0]);
        show(&mut **proposer, model.take_states());
    }
    Ok(Generated { prompt_tokens: unread.len(), ..lane.end()? })
}
