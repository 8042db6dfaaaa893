//! Text from a model, token by token.
use super::{Engine, SampleError, Sampler, SamplingSettings};
use crate::{
    forward::ForwardError,
    text::{TextError, Tokenizer},
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
    let (limit, seen) = (model.limit(), model.seen());
    let unread =
        prompt.get(seen..).filter(|it| !it.is_empty()).ok_or(GenerateError::EmptyPrompt)?;
    if prompt.len() > limit {
        return Err(GenerateError::PromptTooLong { limit, prompt: prompt.len() });
    }
    let mut sampler = Sampler::new(settings.sampling.clone())?;
    for id in prompt {
        sampler.saw(*id);
    }
    let mut writer = Writer::new(settings, receive)?;
    let mut stream = tokenizer.stream(!settings.show_special);
    let mut ids = vec![];
    let mut logits = model.feed(unread)?;
    writer.write("");
    let stop_reason = loop {
        if let Some(reason) = writer.ended {
            break reason;
        }
        if ids.len() == settings.max_tokens {
            break StopReason::MaxTokens;
        }
        let id = sampler.choose(logits)?;
        sampler.saw(id);
        ids.push(id);
        let ends = !settings.ignore_eos && tokenizer.eos().contains(&id);
        if !ends || settings.show_special {
            writer.write(&stream.push(id)?);
        }
        if ends {
            break StopReason::Eos;
        }
        // The token chosen last has not been read: with it the context may be full.
        if prompt.len() + ids.len() > limit {
            break StopReason::ContextFull;
        }
        if ids.len() < settings.max_tokens && writer.ended.is_none() {
            logits = model.feed(&[id])?;
        }
    };
    if writer.ended.is_none() {
        writer.write(&stream.finish()?);
        writer.flush();
    }
    let stop_reason = writer.ended.unwrap_or(stop_reason);
    Ok(Generated { text: writer.text, ids, stop_reason, prompt_tokens: unread.len() })
}

/// Hands text on, except for a tail that may be the beginning of a stop text.
struct Writer<'a> {
    stop: &'a [String],
    receive: &'a mut dyn FnMut(&str) -> bool,
    text: String,
    /// Bytes of `text` handed on.
    given: usize,
    ended: Option<StopReason>,
}

impl<'a> Writer<'a> {
    fn new(
        settings: &'a GenerateSettings,
        receive: &'a mut dyn FnMut(&str) -> bool,
    ) -> Result<Self, GenerateError> {
        if settings.stop.iter().any(String::is_empty) {
            return Err(GenerateError::EmptyStop);
        }
        Ok(Self { stop: &settings.stop, receive, text: String::new(), given: 0, ended: None })
    }

    fn write(&mut self, piece: &str) {
        self.text.push_str(piece);
        // Text that was handed on holds no beginning of a stop text.
        let open = &self.text[self.given..];
        let found = self.stop.iter().filter_map(|stop| open.find(stop.as_str())).min();
        if let Some(at) = found {
            self.text.truncate(self.given + at);
            self.flush();
            self.ended = Some(StopReason::StopText);
            return;
        }
        let held = self.stop.iter().map(|stop| overlap(open, stop)).max().unwrap_or(0);
        self.hand_on(self.text.len() - held);
    }

    fn flush(&mut self) {
        self.hand_on(self.text.len());
    }

    fn hand_on(&mut self, end: usize) {
        if !(self.receive)(&self.text[self.given..end]) {
            self.ended = Some(StopReason::Interrupted);
        }
        self.given = end;
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
