//! A smaller model of the same vocabulary writes first, its best token each time.
//! Leviathan et al. 2023, arXiv 2211.17192, without its acceptance rule: the module's own is stricter.
use super::proposer::Proposer;
use crate::{
    forward::ForwardError,
    linalg::largest,
    runtime::engine::{Engine, Sequence},
    text::Tokenizer,
};
use std::{cell::RefCell, rc::Rc};

/// A draft model that stands for other tokens.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the draft model has another vocabulary: token {id} is {target} in the model, {draft} in the draft\n\
     hint: give a draft that is made from the same family, as by `milm-compress prune` of this model"
)]
pub struct DraftError {
    /// The first token that differs.
    pub id: u32,
    /// What the model has there.
    pub target: String,
    /// What the draft has there.
    pub draft: String,
}

/// Whether two tokenizers have the same token at each id below `vocab`.
pub fn same_vocabulary(
    (target, draft): (&Tokenizer, &Tokenizer),
    vocab: usize,
) -> Result<(), DraftError> {
    let shown = |token: Option<String>| {
        token.map_or_else(|| "missing".to_owned(), |token| format!("{token:?}"))
    };
    for id in 0..vocab as u32 {
        let (target, draft) = (target.id_to_token(id), draft.id_to_token(id));
        if target != draft {
            return Err(DraftError { id, target: shown(target), draft: shown(draft) });
        }
    }
    Ok(())
}

/// A model that reads along.
pub struct Draft<'a> {
    engine: Rc<RefCell<Engine<'a>>>,
    sequence: Sequence,
    /// What it has read.
    read: Vec<u32>,
    /// Ids that both models know are below.
    vocab: usize,
}

impl<'a> Draft<'a> {
    /// For a model of a vocabulary of `vocab` tokens, the same as the draft's ([`same_vocabulary`])
    /// where both have tokens.
    pub fn new(engine: Engine<'a>, vocab: usize) -> Self {
        let (vocab, sequence) = (vocab.min(engine.vocab()), engine.sequence());
        Self { engine: Rc::new(RefCell::new(engine)), sequence, read: vec![], vocab }
    }

    /// For one more text, with the same weights.
    pub fn another(&self) -> Self {
        let (engine, sequence) = (Rc::clone(&self.engine), self.engine.borrow().sequence());
        Self { engine, sequence, read: vec![], vocab: self.vocab }
    }

    /// Reads `text` as far as it was not read; whether there is place for it and it is known.
    fn follow(&mut self, text: &[u32]) -> Result<bool, ForwardError> {
        let same = self.read.iter().zip(text).take_while(|(a, b)| a == b).count();
        self.sequence.truncate(same);
        self.read.truncate(same);
        let unread = &text[same..];
        let known = unread.iter().all(|id| (*id as usize) < self.vocab);
        let mut engine = self.engine.borrow_mut();
        if !known || text.len() > engine.max_positions() {
            return Ok(false);
        }
        if !unread.is_empty() {
            engine.feed_to(&mut self.sequence, unread)?;
            self.read.extend(unread);
        }
        Ok(true)
    }
}

impl Proposer for Draft<'_> {
    fn begin(&mut self, text: &[u32]) -> Result<(), ForwardError> {
        self.follow(text).map(|_| ())
    }

    fn offer(&mut self, text: &[u32], most: usize) -> Result<Vec<u32>, ForwardError> {
        let mut offered = Vec::new();
        // The last token is read below, for its logits.
        let Some((last, before)) = text.split_last() else { return Ok(offered) };
        let mut next = *last;
        let mut place = self.follow(before)? && (next as usize) < self.vocab;
        let mut engine = self.engine.borrow_mut();
        while place && offered.len() < most && self.sequence.len() < engine.max_positions() {
            let logits = engine.feed_to(&mut self.sequence, &[next])?;
            self.read.push(next);
            let best = largest(logits.iter().copied().take(self.vocab));
            place = best.is_some();
            if let Some(id) = best {
                offered.push(id);
                next = id;
            }
        }
        Ok(offered)
    }
}
