//! Data beside a model's tokenizer.
use super::{Data, Prompt, TaskError, encode::Encoder};
use crate::text::Tokenizer;

/// Data for a model: messages are counted in its tokens.
pub struct Counted<'a> {
    data: &'a dyn Data,
    encoder: Encoder<'a>,
}

impl<'a> Counted<'a> {
    /// With `chat`, a message counts with what the model's chat template puts around it.
    pub fn new(
        data: &'a dyn Data,
        tokenizer: &'a Tokenizer,
        chat: bool,
    ) -> Result<Self, TaskError> {
        let chat = chat.then(|| tokenizer.chat_template()).transpose()?;
        Ok(Self { data, encoder: Encoder::new(tokenizer, chat, usize::MAX)? })
    }
}

impl Data for Counted<'_> {
    fn read(&self, file: &str) -> Result<Option<Vec<u8>>, TaskError> {
        self.data.read(file)
    }

    fn shown(&self, file: &str) -> String {
        self.data.shown(file)
    }

    fn tokens(&self, text: &str) -> Result<Option<usize>, TaskError> {
        Ok(Some(self.encoder.prompt(&Prompt::plain(text), 0)?.ids.len()))
    }
}
