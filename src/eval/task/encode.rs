//! Prompts as tokens that fit into the model's window.
use super::{Prompt, Request, TaskError};
use crate::text::{ChatTemplate, Message, TextError, Tokenizer};

/// Turns requests into tokens.
pub(super) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    chat: Option<ChatTemplate>,
    /// What a text begins with, if the tokenizer puts it there.
    begin: Vec<u32>,
    window: usize,
}

/// A prompt that fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fitted {
    pub(super) ids: Vec<u32>,
    pub(super) dropped_shots: usize,
    pub(super) cut_tokens: usize,
}

/// Requests with one context, and the tokens of each one's continuation.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) context: Fitted,
    /// The place of the request in the list, and its continuation.
    pub(super) ends: Vec<(usize, Vec<u32>)>,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(
        tokenizer: &'a Tokenizer,
        chat: Option<ChatTemplate>,
        window: usize,
    ) -> Result<Self, TextError> {
        // Of the tokens around a text, only BOS belongs before a continuation.
        let around = tokenizer.encode("", true)?;
        let begin = around.into_iter().filter(|id| Some(*id) == tokenizer.bos()).take(1).collect();
        Ok(Self { tokenizer, chat, begin, window })
    }

    /// Tokens of a text from its beginning on.
    fn text(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let ids = self.tokenizer.encode(text, false)?;
        let begun = self.begin.is_empty() || ids.starts_with(&self.begin);
        Ok(if begun { ids } else { [self.begin.as_slice(), &ids].concat() })
    }

    /// Context and continuation: the tokens of both together, cut where those of the context
    /// alone end. Spaces at the end of the context go to the continuation, as in
    /// lm-evaluation-harness.
    fn pair(&self, context: &str, continuation: &str) -> Result<[Vec<u32>; 2], TextError> {
        let kept = context.trim_end();
        let whole = self.text(&format!("{context}{continuation}"))?;
        if kept.is_empty() {
            // Nothing stands before: the token that a text begins with, or else ends with.
            let end = self.tokenizer.eos().first().copied();
            let first = self.tokenizer.bos().or(end).into_iter().collect::<Vec<u32>>();
            let behind = usize::from(!self.begin.is_empty());
            return Ok([first, whole[behind.min(whole.len())..].to_vec()]);
        }
        let context = self.text(kept)?;
        let continuation = whole.get(context.len()..).unwrap_or_default().to_vec();
        Ok([context, continuation])
    }

    /// Neighbouring requests with the same context become one question. Generating ones are left
    /// out.
    pub(super) fn questions(&self, requests: &[&Request]) -> Result<Vec<Question>, TaskError> {
        let mut questions = Vec::new();
        let mut at = 0;
        while at < requests.len() {
            let Request::LogLikelihood { context, .. } = requests[at] else {
                at += 1;
                continue;
            };
            let same = |request: &&&Request| match request {
                Request::LogLikelihood { context: other, .. } => other == context,
                Request::Generate { .. } => false,
            };
            let count = requests[at..].iter().take_while(same).count();
            self.ask(context, requests, at..at + count, &mut questions)?;
            at += count;
        }
        Ok(questions)
    }

    fn ask(
        &self,
        prompt: &Prompt,
        requests: &[&Request],
        range: std::ops::Range<usize>,
        questions: &mut Vec<Question>,
    ) -> Result<(), TaskError> {
        for dropped in 0..=prompt.shots.len() {
            let text = prompt.text(dropped);
            let mut pairs = Vec::new();
            for at in range.clone() {
                if let Request::LogLikelihood { continuation, .. } = requests[at] {
                    pairs.push((at, self.pair(&text, continuation)?));
                }
            }
            // The last token of a continuation is not read.
            let read = |[context, end]: &[Vec<u32>; 2]| context.len() + end.len().max(1) - 1;
            let longest = pairs.iter().map(|(_, pair)| read(pair)).max().unwrap_or(0);
            if longest > self.window && dropped < prompt.shots.len() {
                continue;
            }
            let cut_tokens = longest.saturating_sub(self.window);
            for (at, [context, end]) in pairs {
                let (tokens, window) = (end.len(), self.window);
                if context.len() <= cut_tokens {
                    let detail =
                        format!("an answer of {tokens} tokens, the model has place for {window}");
                    return Err(TaskError::Request { at, detail });
                }
                // Of no tokens, an answer would be certain.
                if tokens == 0 {
                    let detail = "an answer has no tokens of its own".to_owned();
                    return Err(TaskError::Request { at, detail });
                }
                let ids = context[cut_tokens..].to_vec();
                let context = Fitted { ids, dropped_shots: dropped, cut_tokens };
                match questions.last_mut() {
                    Some(last)
                        if last.context == context
                            && last.ends.last().is_some_and(|(last, _)| range.contains(last)) =>
                    {
                        last.ends.push((at, end));
                    }
                    _ => questions.push(Question { context, ends: vec![(at, end)] }),
                }
            }
            break;
        }
        Ok(())
    }

    /// A prompt with place for `max_tokens` behind it.
    pub(super) fn prompt(&self, prompt: &Prompt, max_tokens: usize) -> Result<Fitted, TaskError> {
        let room = self.window.saturating_sub(max_tokens).max(1);
        let mut dropped_shots = 0;
        loop {
            let text = prompt.text(dropped_shots);
            let ids = match &self.chat {
                None => self.text(&text)?,
                Some(template) => {
                    let message = Message::new("user", text);
                    self.tokenizer.encode(&template.render(&[message], true)?, false)?
                }
            };
            if ids.len() > room && dropped_shots < prompt.shots.len() {
                dropped_shots += 1;
                continue;
            }
            let cut_tokens = ids.len().saturating_sub(room);
            return Ok(Fitted { ids: ids[cut_tokens..].to_vec(), dropped_shots, cut_tokens });
        }
    }
}
