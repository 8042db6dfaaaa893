//! The `tokenizers` crate, in this process or apart.
use super::{
    TextError,
    apart::{Answer, Facts, Guard, Helper, Request},
    components,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use tokenizers::Tokenizer as Inner;

/// A tokenizer.json that was read.
#[derive(Debug)]
pub(super) enum Words {
    Here(Box<Inner>, Facts),
    Apart(Arc<Helper>, Facts),
}

/// The library's calls: what panics is an error.
fn caught<T>(
    part: &'static str,
    call: impl FnOnce() -> Result<T, TextError>,
) -> Result<T, TextError> {
    let panicked = |_| TextError::Stopped {
        file: "tokenizer.json",
        part: part.to_owned(),
        reason: "it contradicts itself".to_owned(),
    };
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panicked(panic)))
}

impl Words {
    pub(super) fn here(json: &[u8]) -> Result<Self, TextError> {
        let wrong = |detail: String| TextError::Tokenizer { detail };
        components::check(json)?;
        caught("reading it", || {
            let mut inner = Inner::from_bytes(json).map_err(|error| wrong(error.to_string()))?;
            // Windows and batches are cut elsewhere; whole texts are wanted here.
            inner.with_padding(None);
            inner.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
            let facts = Facts {
                size: inner.get_vocab_size(true),
                highest: inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id),
                post_processor: inner.get_post_processor().is_some(),
            };
            Ok(Self::Here(Box::new(inner), facts))
        })
    }

    pub(super) fn apart(json: &[u8], guard: &Guard) -> Result<Self, TextError> {
        components::check(json)?;
        let json = std::str::from_utf8(json)
            .map_err(|error| TextError::Tokenizer { detail: error.to_string() })?;
        let helper = guard.start()?;
        match helper.ask(&Request::Tokenizer { json: json.into() })? {
            Answer::Facts(facts) => Ok(Self::Apart(helper, facts)),
            _ => Err(foreign()),
        }
    }

    /// The process that works on it, if there is one.
    pub(super) fn helper(&self) -> Option<&Arc<Helper>> {
        match self {
            Self::Here(..) => None,
            Self::Apart(helper, _) => Some(helper),
        }
    }

    pub(super) fn facts(&self) -> &Facts {
        match self {
            Self::Here(_, facts) | Self::Apart(_, facts) => facts,
        }
    }

    pub(super) fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        match self {
            Self::Here(inner, _) => caught("encoding", || {
                let encoded = inner.encode_fast(text, add_special);
                let failed = |detail: String| TextError::Encode { detail };
                Ok(encoded.map_err(|error| failed(error.to_string()))?.get_ids().to_vec())
            }),
            Self::Apart(helper, _) => {
                match helper.ask(&Request::Encode { text: text.into(), add_special })? {
                    Answer::Ids(ids) => Ok(ids),
                    _ => Err(foreign()),
                }
            }
        }
    }

    pub(super) fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        match self {
            Self::Here(inner, _) => caught("decoding (`decoder`)", || {
                let failed = |detail: String| TextError::Decode { detail };
                inner.decode(ids, skip_special).map_err(|error| failed(error.to_string()))
            }),
            Self::Apart(helper, _) => {
                match helper.ask(&Request::Decode { ids: ids.into(), skip_special })? {
                    Answer::Text(text) => Ok(text),
                    _ => Err(foreign()),
                }
            }
        }
    }

    pub(super) fn id(&self, token: &str) -> Result<Option<u32>, TextError> {
        match self {
            Self::Here(inner, _) => caught("looking up", || Ok(inner.token_to_id(token))),
            Self::Apart(helper, _) => match helper.ask(&Request::Id { token: token.into() })? {
                Answer::Id(id) => Ok(id),
                _ => Err(foreign()),
            },
        }
    }

    pub(super) fn token(&self, id: u32) -> Result<Option<String>, TextError> {
        match self {
            Self::Here(inner, _) => caught("looking up", || Ok(inner.id_to_token(id))),
            Self::Apart(helper, _) => match helper.ask(&Request::Token { id })? {
                Answer::Token(token) => Ok(token),
                _ => Err(foreign()),
            },
        }
    }
}

fn foreign() -> TextError {
    TextError::Helper { detail: "an answer to another question".to_owned() }
}
