//! The tokenizer of an opened model.
use super::{Opened, PackageError};
use crate::tensor::Bytes;
use crate::text::{TextFiles, Tokenizer};

const TOKENIZER_FILE: &str = "tokenizer.json";

/// The files of a model's folder that concern text.
#[derive(Clone, Debug)]
pub struct StoredText {
    tokenizer: Bytes,
    config: Option<String>,
    generation: Option<String>,
    template: Option<String>,
    own: bool,
}

impl StoredText {
    /// As the tokenizer takes them.
    pub fn files(&self) -> TextFiles<'_> {
        TextFiles {
            tokenizer: &self.tokenizer,
            tokenizer_config: self.config.as_deref(),
            generation_config: self.generation.as_deref(),
            chat_template: self.template.as_deref(),
            own: self.own,
        }
    }
}

impl Opened {
    /// Reads the files that concern text.
    pub fn text(&self) -> Result<StoredText, PackageError> {
        let folder = &self.folder;
        let missing = || PackageError::NoTokenizer { folder: folder.name().to_owned() };
        let tokenizer = folder.read(TOKENIZER_FILE)?.ok_or_else(missing)?;
        folder.refuse_pointer(TOKENIZER_FILE, &tokenizer)?;
        Ok(StoredText {
            tokenizer,
            config: folder.text("tokenizer_config.json")?,
            generation: folder.text("generation_config.json")?,
            template: folder.text("chat_template.jinja")?,
            own: folder.is_carried(),
        })
    }

    /// Reads the tokenizer from the model's folder and checks it against the vocabulary.
    pub fn tokenizer(&self) -> Result<Tokenizer, PackageError> {
        let failed = |source| PackageError::Text { folder: self.folder.name().to_owned(), source };
        let tokenizer = Tokenizer::new(&self.text()?.files()).map_err(failed)?;
        tokenizer.check_vocabulary(self.model.spec.vocab).map_err(failed)?;
        Ok(tokenizer)
    }
}
