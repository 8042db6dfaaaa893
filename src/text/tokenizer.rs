//! The tokenizer of a checkpoint, over the `tokenizers` crate.
use super::{ChatTemplate, GenerationConfig, TextError, TokenStream, TokenizerConfig};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::Tokenizer as Inner;

/// The files of a checkpoint that concern text, already read.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextFiles<'a> {
    /// tokenizer.json
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'a str>,
    /// `generation_config.json`
    pub generation_config: Option<&'a str>,
    /// `chat_template.jinja`; replaces the template in `tokenizer_config.json`
    pub chat_template: Option<&'a str>,
}

/// Text to ids and back, with the tokens a model's texts begin and end with.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Inner,
    config: TokenizerConfig,
    generation: GenerationConfig,
    bos: Option<u32>,
    eos: Vec<u32>,
    /// BOS and EOS to put around encoded text; `None`: tokenizer.json's post-processor does it.
    around: Option<[Option<u32>; 2]>,
}

impl Tokenizer {
    /// Reads the files.
    pub fn new(files: &TextFiles<'_>) -> Result<Self, TextError> {
        let mut inner = parse(files.tokenizer)?;
        let mut config =
            files.tokenizer_config.map(TokenizerConfig::parse).transpose()?.unwrap_or_default();
        let generation =
            files.generation_config.map(GenerationConfig::parse).transpose()?.unwrap_or_default();
        if let Some(template) = files.chat_template {
            config.templates = vec![("default".to_owned(), template.to_owned())];
        }
        // Windows and batches are cut elsewhere; whole texts are wanted here.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| TextError::Tokenizer { detail: error.to_string() })?;
        let named = |name| inner.token_to_id(config.token(name)?);
        let [named_bos, named_eos] = ["bos_token", "eos_token"].map(named);
        // transformers' rule: switches in tokenizer_config.json replace the post-processor of
        // tokenizer.json, and so does its absence.
        let switches = config.add_bos.is_some() || config.add_eos.is_some();
        let around = (switches || inner.get_post_processor().is_none()).then(|| {
            let on = |switch: Option<bool>| switch == Some(true);
            [named_bos.filter(|_| on(config.add_bos)), named_eos.filter(|_| on(config.add_eos))]
        });
        let bos = generation.bos_token_id.or(named_bos);
        let mut eos = generation.eos_token_id.clone();
        eos.extend(named_eos.filter(|id| !eos.contains(id)));
        Ok(Self { inner, config, generation, bos, eos, around })
    }

    /// Ids of a text. Special tokens written in it become their ids; `add_special` puts BOS and
    /// EOS around it where the checkpoint wants them.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let by_file = add_special && self.around.is_none();
        let encoding = self
            .inner
            .encode_fast(text, by_file)
            .map_err(|error| TextError::Encode { detail: error.to_string() })?;
        let [bos, eos] = self.around.filter(|_| add_special).unwrap_or_default();
        Ok(bos.into_iter().chain(encoding.get_ids().iter().copied()).chain(eos).collect())
    }

    /// Text of ids; `skip_special` leaves special tokens out. Unknown ids give no text.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|error| TextError::Decode { detail: error.to_string() })
    }

    /// Decodes ids one by one, holding characters back until they are whole.
    pub fn stream(&self, skip_special: bool) -> TokenStream<'_> {
        TokenStream::new(self, skip_special)
    }

    /// The id of a token, as written in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, as written in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Tokens in the vocabulary, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token a text begins with.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The tokens that end a text: those of `generation_config.json`, then the `eos_token`.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// The authors' settings for generation.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// Compiles the chat template.
    pub fn chat_template(&self) -> Result<ChatTemplate, TextError> {
        ChatTemplate::new(&self.config, "default")
    }

    /// Compiles the chat template for conversations with tools: `tool_use` where there is one.
    pub fn tool_template(&self) -> Result<ChatTemplate, TextError> {
        let special = self.config.templates.iter().any(|(name, _)| name == "tool_use");
        ChatTemplate::new(&self.config, if special { "tool_use" } else { "default" })
    }

    /// Fails when an id lies outside a model's vocabulary of `vocab` rows (a vocabulary larger
    /// than the tokenizer is common: rows are padded).
    pub fn check_vocabulary(&self, vocab: usize) -> Result<(), TextError> {
        let highest = self.inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        match highest {
            Some((token, id)) if id as usize >= vocab => {
                Err(TextError::LargerThanVocabulary { token, id, vocab })
            }
            _ => Ok(()),
        }
    }
}

/// Reads tokenizer.json. A panic of the library on a file that lies is an error like any other.
fn parse(bytes: &[u8]) -> Result<Inner, TextError> {
    let wrong = |detail: String| TextError::Tokenizer { detail };
    // The library's own message for these is about serde internals.
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes)
        .map_err(|error| wrong(error.to_string()))?;
    match catch_unwind(AssertUnwindSafe(|| Inner::from_bytes(bytes))) {
        Ok(read) => read.map_err(|error| wrong(error.to_string())),
        Err(_) => Err(wrong("the vocabulary contradicts itself".to_owned())),
    }
}
