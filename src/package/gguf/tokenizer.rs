//! `tokenizer.json` and `tokenizer_config.json` from the vocabulary of a GGUF file.
use super::{
    bpe,
    error::ContentError,
    file::{Gguf, missing},
    names::key,
    spm,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Type of a token, as SentencePiece numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// What the vocabulary is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Byte-level byte pair encoding: `gpt2`.
    ByteLevel,
    /// SentencePiece's byte pair encoding by scores: `llama`.
    SentencePiece,
}

/// The vocabulary of a file.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    gguf: &'a Gguf,
    kind: Kind,
    pub(super) texts: &'a [String],
    pub(super) types: Vec<TokenType>,
    /// Position of each text.
    pub(super) ids: BTreeMap<&'a str, usize>,
}

pub(super) const MODEL: &str = "tokenizer.ggml.model";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const TYPES: &str = "tokenizer.ggml.token_type";

/// Tokens with a task: name in Hugging Face files and key.
pub(super) const SPECIAL: &[(&str, &str)] = &[
    ("bos", "tokenizer.ggml.bos_token_id"),
    ("eos", "tokenizer.ggml.eos_token_id"),
    ("unk", "tokenizer.ggml.unknown_token_id"),
    ("pad", "tokenizer.ggml.padding_token_id"),
    ("eot", "tokenizer.ggml.eot_token_id"),
];

fn unusable(why: impl Into<String>) -> ContentError {
    ContentError::Vocabulary { why: why.into() }
}

impl<'a> Tokens<'a> {
    /// Reads and checks the vocabulary.
    pub(super) fn read(gguf: &'a Gguf) -> Result<Self, ContentError> {
        let kind = match gguf.text(MODEL)?.ok_or_else(|| missing(MODEL))? {
            bpe::MODEL_NAME => Kind::ByteLevel,
            spm::MODEL_NAME => Kind::SentencePiece,
            other => {
                return Err(ContentError::Tokenizer {
                    key: MODEL,
                    found: other.to_owned(),
                    known: "gpt2 (byte-level BPE), llama (SentencePiece BPE)".into(),
                });
            }
        };
        let texts = gguf.texts(TOKENS)?.ok_or_else(|| missing(TOKENS))?;
        let mut ids = BTreeMap::new();
        for (id, text) in texts.iter().enumerate() {
            if let Some(first) = ids.insert(text.as_str(), id) {
                return Err(unusable(format!("tokens {first} and {id} are both `{text}`")));
            }
        }
        let types = match gguf.numbers(TYPES)? {
            None => vec![TokenType::Normal; texts.len()],
            Some(numbers) if numbers.len() == texts.len() => {
                numbers.into_iter().map(TokenType::of).collect()
            }
            Some(numbers) => {
                return Err(unusable(format!(
                    "{} tokens, but {} entries in `{TYPES}`",
                    texts.len(),
                    numbers.len()
                )));
            }
        };
        let tokens = Self { gguf, kind, texts, types, ids };
        for (_, key) in SPECIAL {
            tokens.id(key)?;
        }
        Ok(tokens)
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The token that a key names. llama.cpp writes -1 (as u32) for none.
    fn id(&self, key: &str) -> Result<Option<usize>, ContentError> {
        let id = self.gguf.size(key)?.filter(|id| *id != u64::from(u32::MAX));
        match id.map(|id| usize::try_from(id).unwrap_or(usize::MAX)) {
            Some(id) if id >= self.len() => {
                Err(unusable(format!("`{key}` is {id}, but there are {} tokens", self.len())))
            }
            id => Ok(id),
        }
    }

    /// The token with a task, e.g. `bos`.
    pub(super) fn special(&self, task: &str) -> Option<usize> {
        let (_, key) = SPECIAL.iter().find(|(name, _)| *name == task)?;
        self.id(key).ok()?
    }

    /// `bos_token_id` and the like.
    pub(super) fn special_ids(&self) -> Value {
        let ids = ["bos", "eos", "pad"]
            .iter()
            .filter_map(|task| Some((format!("{task}_token_id"), self.special(task)?.into())));
        Value::Object(ids.collect())
    }

    /// Whether a beginning or end is added to every text, by the file or as llama.cpp presumes.
    fn adds(&self, task: &str) -> Result<bool, ContentError> {
        let said = self.gguf.flag(&adds_key(task))?;
        let presumed = task == "bos"
            && match self.kind {
                Kind::SentencePiece => true,
                Kind::ByteLevel => bpe::adds_bos(self.pre()?),
            };
        Ok(said.unwrap_or(presumed) && self.special(task).is_some())
    }

    /// `tokenizer.ggml.pre`.
    fn pre(&self) -> Result<&'a str, ContentError> {
        Ok(self.gguf.text(bpe::PRE)?.unwrap_or("default"))
    }

    /// Pieces that stand for themselves in a text: control and user-defined tokens.
    fn added(&self) -> impl Iterator<Item = (usize, &'a str, bool)> {
        self.texts.iter().zip(&self.types).enumerate().filter_map(|(id, (text, kind))| match kind {
            TokenType::Control | TokenType::Unknown => Some((id, text.as_str(), true)),
            TokenType::UserDefined => Some((id, text.as_str(), false)),
            _ => None,
        })
    }

    /// `tokenizer.json`.
    pub(super) fn tokenizer_json(&self) -> Result<Vec<u8>, ContentError> {
        let parts = match self.kind {
            Kind::ByteLevel => {
                let merges = self.gguf.texts(bpe::MERGES)?.ok_or_else(|| missing(bpe::MERGES))?;
                let prefix = self.gguf.flag(key::ADD_SPACE)?.unwrap_or(false);
                bpe::parts(self.pre()?, self.vocabulary(), merges, prefix)?
            }
            Kind::SentencePiece => {
                let scores = self.gguf.numbers(spm::SCORES)?.ok_or_else(|| missing(spm::SCORES))?;
                let prefix = self.gguf.flag(key::ADD_SPACE)?.unwrap_or(true);
                spm::parts(self, &scores, prefix)?
            }
        };
        let added: Vec<Value> = self
            .added()
            .map(|(id, text, special)| {
                let mut entry = Map::new();
                entry.insert("id".into(), id.into());
                entry.extend(added_token(text, special));
                Value::Object(entry)
            })
            .collect();
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": parts.normalizer, "pre_tokenizer": parts.pre_tokenizer,
            "post_processor": self.post_processor()?, "decoder": parts.decoder,
            "model": parts.model,
        });
        Ok(serde_json::to_vec_pretty(&json).unwrap_or_default())
    }

    /// The vocabulary as an object, in the order of the ids.
    pub(super) fn vocabulary(&self) -> Value {
        let entries = self.texts.iter().enumerate();
        Value::Object(entries.map(|(id, text)| (text.clone(), id.into())).collect())
    }

    fn post_processor(&self) -> Result<Value, ContentError> {
        let (bos, eos) = (self.adds("bos")?, self.adds("eos")?);
        if !bos && !eos {
            return Ok(Value::Null);
        }
        let mut names = Map::new();
        let mut token = |task: &str, sequence: u8| {
            let id = self.special(task).unwrap_or(0);
            let text = &self.texts[id];
            names.insert(text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}));
            json!({"SpecialToken": {"id": text, "type_id": sequence}})
        };
        let mut around = |name: &str, sequence: u8| {
            let inner = json!({"Sequence": {"id": name, "type_id": sequence}});
            let start = bos.then(|| token("bos", sequence));
            let end = eos.then(|| token("eos", sequence));
            start.into_iter().chain([inner]).chain(end).collect::<Vec<_>>()
        };
        let single = around("A", 0);
        let pair = [single.clone(), around("B", 1)].concat();
        Ok(json!({
            "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": names,
        }))
    }

    /// `tokenizer_config.json`, with the chat template.
    pub(super) fn tokenizer_config(&self) -> Result<Value, ContentError> {
        let added: Map<String, Value> = self
            .added()
            .map(|(id, text, special)| (id.to_string(), added_token(text, special).into()))
            .collect();
        let mut config = Map::new();
        config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        config.insert("clean_up_tokenization_spaces".into(), false.into());
        config.insert("add_bos_token".into(), self.adds("bos")?.into());
        config.insert("add_eos_token".into(), self.adds("eos")?.into());
        let context = format!("{}.{}", self.gguf.architecture()?, key::CONTEXT);
        config.insert("model_max_length".into(), self.gguf.needed(&context)?.into());
        if let Some(template) = self.gguf.text(key::TEMPLATE)? {
            config.insert("chat_template".into(), template.into());
        }
        config.insert("added_tokens_decoder".into(), added.into());
        for task in ["bos", "eos", "unk", "pad"] {
            if let Some(id) = self.special(task) {
                config.insert(format!("{task}_token"), self.texts[id].as_str().into());
            }
        }
        Ok(Value::Object(config))
    }
}

impl TokenType {
    /// Every type with its number in files.
    const NUMBERS: [(i32, Self); 6] = [
        (1, Self::Normal),
        (2, Self::Unknown),
        (3, Self::Control),
        (4, Self::UserDefined),
        (5, Self::Unused),
        (6, Self::Byte),
    ];

    /// The type with a number; unknown ones are normal.
    fn of(number: f64) -> Self {
        let known = Self::NUMBERS.iter().find(|(known, _)| *known == number as i32);
        known.map_or(Self::Normal, |(_, kind)| *kind)
    }

    /// Number in files.
    pub(super) fn number(self) -> i32 {
        Self::NUMBERS.iter().find(|(_, kind)| *kind == self).map_or(1, |(number, _)| *number)
    }
}

/// The key that says whether a token with a task (`bos`, `eos`) is put around every text.
pub(super) fn adds_key(task: &str) -> String {
    format!("tokenizer.ggml.add_{task}_token")
}

fn added_token(text: &str, special: bool) -> Map<String, Value> {
    let entry = json!({
        "content": text, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special,
    });
    match entry {
        Value::Object(entry) => entry,
        _ => Map::new(),
    }
}

/// The stages of a tokenizer that depend on its kind.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) decoder: Value,
    pub(super) model: Value,
}
