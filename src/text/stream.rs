//! Text of ids that arrive one by one.
use super::{TextError, words::Words};

/// What stands for bytes that are no character (yet).
const REPLACEMENT: char = '\u{fffd}';

/// Ids kept back at most while a character is incomplete; it has 4 bytes, the rest is slack for
/// tokens that end in the middle of the next one.
const HELD_IDS: usize = 32;

/// Decodes ids one by one. The pieces joined are the text of all ids; a character whose bytes are
/// spread over several tokens comes with the last of them.
#[derive(Debug)]
pub struct TokenStream<'a> {
    words: &'a Words,
    skip_special: bool,
    /// The last ids: some already given out (context for decoders that look at the token before),
    /// then those still open.
    ids: Vec<u32>,
    /// How many of `ids` are context.
    context: usize,
    /// Bytes of the text of `ids` already given out.
    given: usize,
}

impl<'a> TokenStream<'a> {
    pub(super) fn new(words: &'a Words, skip_special: bool) -> Self {
        Self { words, skip_special, ids: vec![], context: 0, given: 0 }
    }

    /// Takes one id; gives the text that is now certain, often empty.
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        self.ids.push(id);
        let text = self.words.decode(&self.ids, self.skip_special)?;
        let certain = text.trim_end_matches(REPLACEMENT);
        let whole = certain.len() == text.len();
        if whole || self.ids.len() - self.context > HELD_IDS {
            let piece = text.get(self.given..).unwrap_or_default().to_owned();
            // Ids without text (skipped special tokens) are no context for the next one.
            if !piece.is_empty() || self.ids.len() - self.context > HELD_IDS {
                self.advance()?;
            }
            return Ok(piece);
        }
        // More before the open character is certain only if no decoder turned it back into
        // replacement characters, as byte fallback does with a run of bytes.
        let piece = certain.get(self.given..).unwrap_or_default().to_owned();
        self.given += piece.len();
        Ok(piece)
    }

    /// The rest, with replacement characters for bytes that never became a character.
    pub fn finish(self) -> Result<String, TextError> {
        let text = self.words.decode(&self.ids, self.skip_special)?;
        Ok(text.get(self.given..).unwrap_or_default().to_owned())
    }

    /// All text is given out: the newest ids become the context of the next ones.
    fn advance(&mut self) -> Result<(), TextError> {
        self.ids.drain(..self.context);
        self.context = self.ids.len();
        self.given = self.words.decode(&self.ids, self.skip_special)?.len();
        Ok(())
    }
}
