//! The tokenizer of an opened model.
use super::{Opened, PackageError};
use crate::tensor::Bytes;
use crate::text::{TextFiles, Tokenizer};

const TOKENIZER_FILE: &str = "tokenizer.json";
/// Forms of tokenizers that transformers makes a tokenizer.json of.
const OTHER_FORMS: [&str; 4] = ["tokenizer.model", "spiece.model", "vocab.json", "vocab.txt"];

/// The files of a model's folder that concern text.
#[derive(Clone, Debug)]
pub struct StoredText {
    tokenizer: Bytes,
    config: Option<String>,
    special: Option<String>,
    model: Option<String>,
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
            special_tokens_map: self.special.as_deref(),
            model_config: self.model.as_deref(),
            generation_config: self.generation.as_deref(),
            chat_template: self.template.as_deref(),
            own: self.own,
        }
    }
}

impl Opened {
    /// Reads the files that concern text.
    pub fn text(&self) -> Result<StoredText, PackageError> {
        let (folder, tokenizer) = (&self.folder, self.tokenizer_file()?);
        folder.refuse_pointer(TOKENIZER_FILE, &tokenizer)?;
        Ok(StoredText {
            tokenizer,
            config: folder.text("tokenizer_config.json")?,
            special: folder.text("special_tokens_map.json")?,
            model: folder.text("config.json")?,
            generation: folder.text("generation_config.json")?,
            template: folder.text("chat_template.jinja")?,
            own: folder.is_carried(),
        })
    }

    /// The bytes of `tokenizer.json`; without it, an error says what to make it of.
    pub(super) fn tokenizer_file(&self) -> Result<Bytes, PackageError> {
        match self.folder.read(TOKENIZER_FILE)? {
            Some(bytes) => Ok(bytes),
            None => Err(self.no_tokenizer()?),
        }
    }

    fn no_tokenizer(&self) -> Result<PackageError, PackageError> {
        let folder = self.folder.name().to_owned();
        for other in OTHER_FORMS {
            if self.folder.read(other)?.is_some() {
                let hint = format!(
                    "`{other}` is another form of it; write it with transformers: \
                     AutoTokenizer.from_pretrained(\"{folder}\").save_pretrained(\"{folder}\")"
                );
                return Ok(PackageError::NoTokenizer { folder, hint });
            }
        }
        let hint = "copy it from the original checkpoint, or give token ids instead of text";
        Ok(PackageError::NoTokenizer { folder, hint: hint.to_owned() })
    }

    /// Reads the tokenizer from the model's folder; it gives no ids outside the model's vocabulary.
    pub(super) fn read_tokenizer(&self) -> Result<Tokenizer, PackageError> {
        let failed = |source| PackageError::Text { folder: self.folder.name().to_owned(), source };
        let tokenizer = Tokenizer::new(&self.text()?.files()).map_err(failed)?;
        Ok(tokenizer.within(self.model.spec.vocab))
    }
}
