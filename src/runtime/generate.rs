//! Text from a model, token by token.
use super::{Engine, SampleError, Sampler, SamplingSettings};
use crate::{
    forward::ForwardError,
    text::{TextError, TokenStream, Tokenizer},
};

/// What can follow the tokens seen so far.
pub trait NextToken {
    /// Reads tokens after those seen before; gives the logits `[vocab]` of what follows the last.
    fn feed(&mut self, ids: &[u32]) -> Result<&[f32], ForwardError>;

    /// Tokens seen so far.
    fn seen(&self) -> usize;

    /// Tokens that fit at most.
    fn limit(&self) -> usize;
}

impl NextToken for Engine<'_> {
    fn feed(&mut self, ids: &[u32]) -> Result<&[f32], ForwardError> {
        Engine::feed(self, ids)
    }

    fn seen(&self) -> usize {
        self.len()
    }

    fn limit(&self) -> usize {
        self.max_positions()
    }
}

/// When generation ends, and how tokens are chosen.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct GenerateSettings {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Texts that end the generation; they are not part of the result.
    pub stop: Vec<String>,
    /// Special tokens are written out.
    pub show_special: bool,
    /// Goes on after tokens that end a text.
    pub ignore_eos: bool,
    /// How tokens are chosen.
    pub sampling: SamplingSettings,
}

impl Default for GenerateSettings {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            stop: vec![],
            show_special: false,
            ignore_eos: false,
            sampling: SamplingSettings::default(),
        }
    }
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model ended its text.
    Eos,
    /// A stop text was written.
    StopText,
    /// The number of tokens asked for is reached.
    MaxTokens,
    /// The model has no place for more tokens.
    ContextFull,
    /// The receiver of the text asked for the end.
    Interrupted,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Generated {
    /// The text, without the stop text.
    pub text: String,
    /// Every token chosen, the one that ended the text included.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// Tokens of the prompt that were read.
    pub prompt_tokens: usize,
}

/// Why nothing could be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A prompt without tokens.
    #[error("the prompt holds no new tokens\nhint: give it a text to continue")]
    EmptyPrompt,
    /// A prompt that leaves no place.
    #[error(
        "the model has place for {limit} tokens, the prompt has: `{prompt}`\n\
         hint: shorten the prompt or begin a new conversation"
    )]
    PromptTooLong {
        /// Positions of the model.
        limit: usize,
        /// Tokens of the prompt.
        prompt: usize,
    },
    /// An empty stop text would end everything at once.
    #[error("a stop text is empty\nhint: leave `--stop` out to generate up to the end")]
    EmptyStop,
    /// The model failed.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// No token could be chosen.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// Ids could not become text.
    #[error(transparent)]
    Text(#[from] TextError),
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
    if !settings.ignore_eos {
        tokenizer.check_ends()?;
    }
    let (limit, seen) = (model.limit(), model.seen());
    let unread =
        prompt.get(seen..).filter(|it| !it.is_empty()).ok_or(GenerateError::EmptyPrompt)?;
    let mut writing = Writing::new(tokenizer, (prompt, limit), settings)?;
    let mut logits = model.feed(unread)?;
    writing.hand_on(receive);
    while let Some(id) = writing.choose(logits)? {
        writing.hand_on(receive);
        if writing.is_over() {
            break;
        }
        logits = model.feed(&[id])?;
    }
    writing.close()?;
    writing.hand_on(receive);
    Ok(Generated { prompt_tokens: unread.len(), ..writing.generated() })
}

/// A text that is being written: chooses tokens and knows when it ends.
pub(super) struct Writing<'a> {
    settings: &'a GenerateSettings,
    tokenizer: &'a Tokenizer,
    sampler: Sampler,
    stream: TokenStream<'a>,
    draft: Draft,
    ids: Vec<u32>,
    prompt: usize,
    limit: usize,
    over: Option<StopReason>,
}

impl<'a> Writing<'a> {
    /// Behind a prompt, for a model with so many places.
    pub(super) fn new(
        tokenizer: &'a Tokenizer,
        (prompt, limit): (&[u32], usize),
        settings: &'a GenerateSettings,
    ) -> Result<Self, GenerateError> {
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if prompt.len() > limit {
            return Err(GenerateError::PromptTooLong { limit, prompt: prompt.len() });
        }
        if settings.stop.iter().any(String::is_empty) {
            return Err(GenerateError::EmptyStop);
        }
        let mut sampler = Sampler::new(settings.sampling.clone())?;
        for id in prompt {
            sampler.saw(*id);
        }
        Ok(Self {
            settings,
            tokenizer,
            sampler,
            stream: tokenizer.stream(!settings.show_special),
            draft: Draft::default(),
            ids: vec![],
            prompt: prompt.len(),
            limit,
            over: None,
        })
    }

    /// Whether nothing more is written.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Chooses a token by the logits `[vocab]` of what follows; gives it if the model has to read
    /// it, nothing when the text has ended.
    pub(super) fn choose(&mut self, logits: &[f32]) -> Result<Option<u32>, GenerateError> {
        if self.ids.len() == self.settings.max_tokens {
            self.over = self.over.or(Some(StopReason::MaxTokens));
        }
        if self.is_over() {
            return Ok(None);
        }
        let id = self.sampler.choose(logits)?;
        self.sampler.saw(id);
        self.ids.push(id);
        let ends = !self.settings.ignore_eos && self.tokenizer.eos().contains(&id);
        if !ends || self.settings.show_special {
            let piece = self.stream.push(id)?;
            self.write(&piece);
        }
        let full = self.prompt + self.ids.len() > self.limit;
        let why = [
            (ends, StopReason::Eos),
            // The token chosen last has not been read: with it the context may be full.
            (full, StopReason::ContextFull),
            (self.ids.len() == self.settings.max_tokens, StopReason::MaxTokens),
        ];
        let found = why.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason);
        self.over = self.over.or(found);
        Ok((!self.is_over()).then_some(id))
    }

    /// Hands the text that is certain and new to `receive`, which says whether to go on.
    fn hand_on(&mut self, receive: &mut dyn FnMut(&str) -> bool) {
        let interrupted = self.over == Some(StopReason::Interrupted);
        if !interrupted && !receive(self.draft.take()) && self.over != Some(StopReason::StopText) {
            self.over = Some(StopReason::Interrupted);
        }
    }

    fn write(&mut self, piece: &str) {
        if self.draft.write(piece, &self.settings.stop) {
            self.over = Some(StopReason::StopText);
        }
    }

    /// Writes what is left of the text when it has ended.
    pub(super) fn close(&mut self) -> Result<(), GenerateError> {
        if !matches!(self.over, Some(StopReason::StopText | StopReason::Interrupted)) {
            let stream = std::mem::replace(&mut self.stream, self.tokenizer.stream(true));
            let rest = stream.finish()?;
            self.write(&rest);
            self.draft.release();
        }
        Ok(())
    }

    /// The text; the whole prompt counts as read.
    pub(super) fn generated(self) -> Generated {
        Generated {
            text: self.draft.text,
            ids: self.ids,
            stop_reason: self.over.unwrap_or(StopReason::MaxTokens),
            prompt_tokens: self.prompt,
        }
    }
}

/// Text of which a tail may be the beginning of a stop text.
#[derive(Default)]
struct Draft {
    text: String,
    /// Bytes of `text` handed on.
    given: usize,
    /// Bytes of `text` that are certain.
    certain: usize,
}

impl Draft {
    /// Whether a stop text has come: what is before it remains.
    fn write(&mut self, piece: &str, stop: &[String]) -> bool {
        self.text.push_str(piece);
        // Text that is certain holds no beginning of a stop text.
        let open = &self.text[self.certain..];
        let found = stop.iter().filter_map(|stop| open.find(stop.as_str())).min();
        if let Some(at) = found {
            self.text.truncate(self.certain + at);
            self.release();
            return true;
        }
        let held = stop.iter().map(|stop| overlap(open, stop)).max().unwrap_or(0);
        self.certain = self.text.len() - held;
        false
    }

    /// All of it is certain.
    fn release(&mut self) {
        self.certain = self.text.len();
    }

    /// What is certain and has not been taken.
    fn take(&mut self) -> &str {
        let new = self.given..self.certain;
        self.given = self.certain;
        &self.text[new]
    }
}

/// Bytes of the longest end of `text` that `stop` begins with.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .find(|len| text.as_bytes()[text.len() - len..] == stop.as_bytes()[..*len])
        .filter(|len| text.is_char_boundary(text.len() - len))
        .unwrap_or(0)
}
