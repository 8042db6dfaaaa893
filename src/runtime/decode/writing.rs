//! A text while it is written: which token comes next, and when it ends.
use crate::forward::ForwardError;
use crate::runtime::sample::{SampleError, Sampler, SamplingSettings};
use crate::text::{TextError, TokenStream, Tokenizer};

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

/// A text that is being written: chooses tokens and knows when it ends.
pub(super) struct Writing<'a> {
    settings: &'a GenerateSettings,
    tokenizer: &'a Tokenizer,
    sampler: Sampler,
    stream: TokenStream<'a>,
    open: Open,
    ids: Vec<u32>,
    prompt: usize,
    limit: usize,
    over: Option<StopReason>,
    receive: Option<&'a mut dyn FnMut(&str) -> bool>,
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
            open: Open::default(),
            ids: vec![],
            prompt: prompt.len(),
            limit,
            over: None,
            receive: None,
        })
    }

    /// With somebody who gets the text piece by piece.
    pub(super) fn to(self, receive: &'a mut dyn FnMut(&str) -> bool) -> Self {
        Self { receive: Some(receive), ..self }
    }

    /// Tokens behind the last that can be of use: what is read for them fits, and there is one more to
    /// choose behind them.
    pub(super) fn room(&self) -> usize {
        let wanted = self.settings.max_tokens.saturating_sub(self.ids.len() + 1);
        wanted.min(self.limit.saturating_sub(self.prompt + self.ids.len()))
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

    /// Hands the text that is certain and new to the receiver, who says whether to go on.
    pub(super) fn hand_on(&mut self) {
        let Some(receive) = &mut self.receive else { return };
        let interrupted = self.over == Some(StopReason::Interrupted);
        if !interrupted && !receive(self.open.take()) && self.over != Some(StopReason::StopText) {
            self.over = Some(StopReason::Interrupted);
        }
    }

    fn write(&mut self, piece: &str) {
        if self.open.write(piece, &self.settings.stop) {
            self.over = Some(StopReason::StopText);
        }
    }

    /// Writes and hands on what is left of the text when it has ended.
    pub(super) fn close(&mut self) -> Result<(), GenerateError> {
        if !matches!(self.over, Some(StopReason::StopText | StopReason::Interrupted)) {
            let stream = std::mem::replace(&mut self.stream, self.tokenizer.stream(true));
            let rest = stream.finish()?;
            self.write(&rest);
            self.open.release();
        }
        self.hand_on();
        Ok(())
    }

    /// The text; the whole prompt counts as read.
    pub(super) fn generated(self) -> Generated {
        Generated {
            text: self.open.text,
            ids: self.ids,
            stop_reason: self.over.unwrap_or(StopReason::MaxTokens),
            prompt_tokens: self.prompt,
        }
    }
}

/// Text of which a tail may be the beginning of a stop text.
#[derive(Default)]
struct Open {
    text: String,
    /// Bytes of `text` handed on.
    given: usize,
    /// Bytes of `text` that are certain.
    certain: usize,
}

impl Open {
    /// Whether a stop text has come: what is before it remains.
    fn write(&mut self, piece: &str, stop: &[String]) -> bool {
        self.text.push_str(piece);
        // Text that is certain holds no beginning of a stop text.
        let tail = &self.text[self.certain..];
        let found = stop.iter().filter_map(|stop| tail.find(stop.as_str())).min();
        if let Some(at) = found {
            self.text.truncate(self.certain + at);
            self.release();
            return true;
        }
        let held = stop.iter().map(|stop| overlap(tail, stop)).max().unwrap_or(0);
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
