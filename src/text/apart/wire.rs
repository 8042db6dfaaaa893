//! What goes over the pipes: frames of a length and JSON.
use super::super::TextError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{
    borrow::Cow,
    io::{self, Read, Write},
};

/// A question to the helper.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum Request<'a> {
    /// Read this tokenizer.json.
    Tokenizer {
        json: Cow<'a, str>,
    },
    Encode {
        text: Cow<'a, str>,
        add_special: bool,
    },
    Decode {
        ids: Cow<'a, [u32]>,
        skip_special: bool,
    },
    Id {
        token: Cow<'a, str>,
    },
    Token {
        id: u32,
    },
    /// Compile a template; `tokens` are the named ones that it may use.
    Template {
        source: Cow<'a, str>,
        tokens: Vec<(String, String)>,
    },
    /// Render a template, by the number that it got.
    Render {
        template: usize,
        messages: Value,
        add_generation_prompt: bool,
        variables: Map<String, Value>,
    },
}

impl Request<'_> {
    /// Bytes that the work is about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Tokenizer { json } => json.len(),
            Self::Encode { text, .. } => text.len(),
            Self::Decode { ids, .. } => ids.len() * 4,
            _ => 0,
        }
    }

    /// The file whose words are carried out, and the part of it.
    pub(super) fn part(&self) -> (&'static str, &'static str) {
        match self {
            Self::Tokenizer { .. } => ("tokenizer.json", "reading it"),
            Self::Encode { .. } => (
                "tokenizer.json",
                "encoding (`normalizer`, `pre_tokenizer`, `model`, `post_processor`, `added_tokens`)",
            ),
            Self::Decode { .. } => ("tokenizer.json", "decoding (`decoder`)"),
            Self::Id { .. } | Self::Token { .. } => ("tokenizer.json", "looking up (`model`)"),
            Self::Template { .. } => ("chat template", "compiling it"),
            Self::Render { .. } => ("chat template", "rendering it"),
        }
    }
}

/// What is known of a tokenizer without asking.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in super::super) struct Facts {
    /// Tokens, added ones included.
    pub(in super::super) size: usize,
    /// The token with the highest id.
    pub(in super::super) highest: Option<(String, u32)>,
    /// Whether it has a post-processor.
    pub(in super::super) post_processor: bool,
}

/// The helper's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum Answer {
    Facts(Facts),
    Ids(Vec<u32>),
    Text(String),
    Id(Option<u32>),
    Token(Option<String>),
    Template(usize),
    Failed(Fault),
}

/// An error that goes over the pipe.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum Fault {
    Tokenizer(String),
    Encode(String),
    Decode(String),
    Template(String),
    Limit(String),
    Refused(String),
    Stopped(String, String, String),
}

impl From<TextError> for Fault {
    fn from(error: TextError) -> Self {
        match error {
            TextError::Tokenizer { detail } => Self::Tokenizer(detail),
            TextError::Encode { detail } => Self::Encode(detail),
            TextError::Decode { detail } => Self::Decode(detail),
            TextError::TemplateLimit { limit } => Self::Limit(limit.into_owned()),
            TextError::Refused { message } => Self::Refused(message),
            TextError::Stopped { file, part, reason } => {
                Self::Stopped(file.to_owned(), part, reason)
            }
            TextError::Template { detail } => Self::Template(detail),
            other => Self::Template(other.to_string()),
        }
    }
}

impl From<Fault> for TextError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Tokenizer(detail) => Self::Tokenizer { detail },
            Fault::Encode(detail) => Self::Encode { detail },
            Fault::Decode(detail) => Self::Decode { detail },
            Fault::Template(detail) => Self::Template { detail },
            Fault::Limit(limit) => Self::TemplateLimit { limit: limit.into() },
            Fault::Refused(message) => Self::Refused { message },
            Fault::Stopped(file, part, reason) => {
                let file =
                    if file == "tokenizer.json" { "tokenizer.json" } else { "chat template" };
                Self::Stopped { file, part, reason }
            }
        }
    }
}

pub(super) fn send(to: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(what)?;
    let mut frame = Vec::with_capacity(json.len() + 8);
    frame.extend_from_slice(&(json.len() as u64).to_le_bytes());
    frame.extend_from_slice(&json);
    to.write_all(&frame)?;
    to.flush()
}

/// The next frame; `None` at the end.
pub(super) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 8];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut json = Vec::new();
    let length = u64::from_le_bytes(length);
    if from.take(length).read_to_end(&mut json)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(serde_json::from_slice(&json)?))
}
