//! The tokenizer of a checkpoint, over the `tokenizers` crate.
use super::{
    ChatTemplate, Document, GenerationConfig, TextError, TokenStream, TokenizerConfig,
    apart::Guard, words::Words,
};
use serde_json::{Map, Value};

/// The files of a checkpoint that concern text, already read.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextFiles<'a> {
    /// tokenizer.json
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'a str>,
    /// `special_tokens_map.json`
    pub special_tokens_map: Option<&'a str>,
    /// `config.json`, for the ids of BOS and EOS that stand nowhere else
    pub model_config: Option<&'a str>,
    /// `generation_config.json`
    pub generation_config: Option<&'a str>,
    /// `chat_template.jinja`; replaces the template in `tokenizer_config.json`
    pub chat_template: Option<&'a str>,
    /// The files are the program's own: no helper is started for them
    pub own: bool,
}

/// Text to ids and back, with the tokens a model's texts begin and end with.
#[derive(Debug)]
pub struct Tokenizer {
    words: Words,
    config: TokenizerConfig,
    generation: Option<String>,
    model: Option<GenerationConfig>,
    /// Rows of the model's embedding, if they are known.
    vocabulary: Option<usize>,
    bos: Option<u32>,
    eos: Vec<u32>,
    /// BOS and EOS to put around encoded text; `None`: tokenizer.json's post-processor does it.
    around: Option<[Option<u32>; 2]>,
}

impl Tokenizer {
    /// Reads the files; with a helper, if the program has installed a [`Guard`].
    pub fn new(files: &TextFiles<'_>) -> Result<Self, TextError> {
        match Guard::installed().filter(|_| !files.own) {
            Some(guard) => Self::guarded(files, guard),
            None => Self::of(Words::here(files.tokenizer)?, files),
        }
    }

    /// Reads the files, with a helper that works on them.
    pub fn guarded(files: &TextFiles<'_>, guard: &Guard) -> Result<Self, TextError> {
        Self::of(Words::apart(files.tokenizer, guard)?, files)
    }

    fn of(words: Words, files: &TextFiles<'_>) -> Result<Self, TextError> {
        let config = files.tokenizer_config.unwrap_or("{}");
        let mut config = TokenizerConfig::with_map(config, files.special_tokens_map)?;
        if let Some(template) = files.chat_template {
            config.templates = vec![("default".to_owned(), template.to_owned())];
        }
        let named = |name| config.token(name).map_or(Ok(None), |token| words.id(token));
        let (named_bos, named_eos) = (named("bos_token")?, named("eos_token")?);
        // transformers' rule: switches in tokenizer_config.json replace the post-processor of
        // tokenizer.json, and so does its absence.
        let switches = config.add_bos.is_some() || config.add_eos.is_some();
        let around = (switches || !words.facts().post_processor).then(|| {
            let on = |switch: Option<bool>| switch == Some(true);
            [named_bos.filter(|_| on(config.add_bos)), named_eos.filter(|_| on(config.add_eos))]
        });
        let model = files.model_config.map(GenerationConfig::of_model).transpose()?;
        let generation = files.generation_config.map(str::to_owned);
        let mut tokenizer = Self {
            words,
            config,
            generation,
            model,
            vocabulary: None,
            bos: None,
            eos: vec![],
            around,
        };
        // What is wrong with them is told where texts are generated, the rest needs none of it.
        let ids = |key| tokenizer.ids(key).unwrap_or_default();
        let (bos, mut eos) =
            (ids("bos_token_id").first().copied().or(named_bos), ids("eos_token_id"));
        eos.extend(named_eos.filter(|id| !eos.contains(id)));
        (tokenizer.bos, tokenizer.eos) = (bos, eos);
        Ok(tokenizer)
    }

    /// Ids by the generation's configuration, or else by the model's.
    fn ids(&self, key: &str) -> Result<Vec<u32>, TextError> {
        let own = self.generation()?.map_or(Ok(vec![]), |it| it.ids(key))?;
        match &self.model {
            Some(model) if own.is_empty() => model.ids(key),
            _ => Ok(own),
        }
    }

    /// Fails when the ids that end a text cannot be read.
    pub fn check_ends(&self) -> Result<(), TextError> {
        self.ids("eos_token_id").map(|_| ())
    }

    /// Ids from `vocab` on, for which the model has no row, are errors where they occur in a text.
    /// (Vocabularies larger than the tokenizer are common: rows are padded.)
    #[must_use]
    pub fn within(mut self, vocab: usize) -> Self {
        self.vocabulary = Some(vocab);
        self
    }

    /// Ids of a text. Special tokens written in it become their ids; `add_special` puts BOS and
    /// EOS around it where the checkpoint wants them.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let by_file = add_special && self.around.is_none();
        let ids = self.words.encode(text, by_file)?;
        let [bos, eos] = self.around.filter(|_| add_special).unwrap_or_default();
        let ids: Vec<u32> = bos.into_iter().chain(ids).chain(eos).collect();
        let beyond = |vocab: usize| ids.iter().copied().find(|id| *id as usize >= vocab);
        if let Some((vocab, id)) = self.vocabulary.and_then(|it| Some((it, beyond(it)?))) {
            let token = self.id_to_token(id).unwrap_or_default();
            return Err(TextError::LargerThanVocabulary { token, id, vocab });
        }
        Ok(ids)
    }

    /// Ids of a document, with BOS and EOS around it where the checkpoint wants them and a chat
    /// template has not had its say.
    pub fn encode_document(&self, document: &Document) -> Result<Vec<u32>, TextError> {
        self.encode(&document.text, document.special)
    }

    /// The text of a record's `messages`, with its `tools` if it has some.
    pub fn render_record(&self, record: &Value) -> Result<String, TextError> {
        let list = |key: &'static str| match &record[key] {
            Value::Null => Ok(None),
            Value::Array(list) => Ok(Some(list)),
            _ => Err(TextError::NoList { key }),
        };
        let messages = list("messages")?.ok_or(TextError::NoList { key: "messages" })?;
        let Some(tools) = list("tools")? else {
            return self.chat_template()?.render(messages, false);
        };
        let variables = Map::from_iter([("tools".to_owned(), Value::Array(tools.clone()))]);
        self.tool_template()?.render_with(messages, false, &variables)
    }

    /// Text of ids; `skip_special` leaves special tokens out. Unknown ids give no text.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        self.words.decode(ids, skip_special)
    }

    /// Decodes ids one by one, holding characters back until they are whole.
    pub fn stream(&self, skip_special: bool) -> TokenStream<'_> {
        TokenStream::new(&self.words, skip_special)
    }

    /// The id of a token, as written in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.words.id(token).ok().flatten()
    }

    /// The token of an id, as written in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.words.token(id).ok().flatten()
    }

    /// Tokens in the vocabulary, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.words.facts().size
    }

    /// The token a text begins with.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The tokens that end a text: those of `generation_config.json` or else `config.json`, then the `eos_token`.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// The authors' settings for generation, if there are some.
    pub fn generation(&self) -> Result<Option<GenerationConfig>, TextError> {
        self.generation.as_deref().map(GenerationConfig::parse).transpose()
    }

    /// Named tokens, switches and templates.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// Compiles the chat template.
    pub fn chat_template(&self) -> Result<ChatTemplate, TextError> {
        ChatTemplate::with(&self.config, "default", self.words.helper())
    }

    /// Compiles the chat template for conversations with tools: `tool_use` where there is one.
    pub fn tool_template(&self) -> Result<ChatTemplate, TextError> {
        let special = self.config.templates.iter().any(|(name, _)| name == "tool_use");
        let name = if special { "tool_use" } else { "default" };
        ChatTemplate::with(&self.config, name, self.words.helper())
    }

    /// Fails when an id lies outside a vocabulary of `vocab` rows.
    pub fn check_vocabulary(&self, vocab: usize) -> Result<(), TextError> {
        match &self.words.facts().highest {
            Some((token, id)) if *id as usize >= vocab => {
                Err(TextError::LargerThanVocabulary { token: token.clone(), id: *id, vocab })
            }
            _ => Ok(()),
        }
    }
}
