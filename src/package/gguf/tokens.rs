//! The vocabulary of a GGUF file.
use super::{
    error::ContentError,
    file::{Gguf, missing},
};
use serde_json::Value;
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
pub(super) enum Kind {
    /// Byte-level byte pair encoding.
    ByteLevel,
    /// SentencePiece's byte pair encoding by scores.
    SentencePiece,
}

impl Kind {
    /// `tokenizer.ggml.model`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ByteLevel => "gpt2",
            Self::SentencePiece => "llama",
        }
    }

    /// The kind of a name.
    fn of(name: &str) -> Option<Self> {
        [Self::ByteLevel, Self::SentencePiece].into_iter().find(|kind| kind.name() == name)
    }
}

/// The vocabulary of a file.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) kind: Kind,
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

/// The key that says whether a token with a task (`bos`, `eos`) is put around every text.
pub(super) fn adds_key(task: &str) -> String {
    format!("tokenizer.ggml.add_{task}_token")
}

fn unusable(why: impl Into<String>) -> ContentError {
    ContentError::Vocabulary { why: why.into() }
}

impl<'a> Tokens<'a> {
    /// Reads and checks the vocabulary.
    pub(super) fn read(gguf: &'a Gguf) -> Result<Self, ContentError> {
        let found = gguf.text(MODEL)?.ok_or_else(|| missing(MODEL))?;
        let kind = Kind::of(found).ok_or_else(|| ContentError::Tokenizer {
            key: MODEL,
            found: found.to_owned(),
            known: "gpt2 (byte-level BPE), llama (SentencePiece BPE)".into(),
        })?;
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

    /// The vocabulary as an object, in the order of the ids.
    pub(super) fn vocabulary(&self) -> Value {
        let entries = self.texts.iter().enumerate();
        Value::Object(entries.map(|(id, text)| (text.clone(), id.into())).collect())
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
