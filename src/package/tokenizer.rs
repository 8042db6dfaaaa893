//! The tokenizer of an opened model.
use super::{Opened, PackageError};
use crate::text::{TextFiles, Tokenizer};

const TOKENIZER_FILE: &str = "tokenizer.json";

impl Opened {
    /// Reads the tokenizer from the model's folder and checks it against the vocabulary.
    pub fn tokenizer(&self) -> Result<Tokenizer, PackageError> {
        let folder = &self.folder;
        let missing = || PackageError::NoTokenizer { folder: folder.name().to_owned() };
        let tokenizer = folder.read(TOKENIZER_FILE)?.ok_or_else(missing)?;
        let text = |file| folder.text(file);
        let (config, generation, template) = (
            text("tokenizer_config.json")?,
            text("generation_config.json")?,
            text("chat_template.jinja")?,
        );
        let files = TextFiles {
            tokenizer: &tokenizer,
            tokenizer_config: config.as_deref(),
            generation_config: generation.as_deref(),
            chat_template: template.as_deref(),
        };
        let failed = |source| PackageError::Text { folder: folder.name().to_owned(), source };
        let tokenizer = Tokenizer::new(&files).map_err(failed)?;
        tokenizer.check_vocabulary(self.model.spec.vocab).map_err(failed)?;
        Ok(tokenizer)
    }
}
