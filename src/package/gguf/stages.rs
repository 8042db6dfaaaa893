//! The stages of a tokenizer.json, those that depend on the kind of vocabulary.
use serde_json::Value;

/// The stages of a tokenizer that depend on its kind.
#[derive(Debug, Default)]
pub(super) struct Stages {
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) decoder: Value,
    pub(super) model: Value,
}
