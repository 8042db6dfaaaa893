//! Tokenizers and chat templates: text to token ids and back.
//!
//! Everything is made from bytes and strings that the caller has read. A new Python idiom of
//! templates goes into `python.rs`.
pub mod apart;
mod components;
mod config;
mod documents;
mod python;
mod stream;
mod template;
mod tokenizer;
mod words;

pub use config::{GenerationConfig, TokenizerConfig};
pub use documents::{Document, Form, JOIN, Render, Text};
pub use stream::TokenStream;
pub use template::{ChatTemplate, Message};
pub use tokenizer::{TextFiles, Tokenizer};

/// What can be wrong with a tokenizer, a chat template or their settings.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// tokenizer.json cannot be read.
    #[error(
        "tokenizer.json: not a tokenizer: `{detail}`\nhint: copy the file from the original checkpoint"
    )]
    Tokenizer {
        /// What the reader said.
        detail: String,
    },
    /// A JSON file beside the tokenizer cannot be read.
    #[error("{file}: malformed: `{detail}`\nhint: copy the file from the original checkpoint")]
    Config {
        /// The file's name.
        file: &'static str,
        /// What the reader said.
        detail: String,
    },
    /// The tokenizer can give ids the model has no embedding for.
    #[error(
        "tokenizer.json: token `{token}` has id {id}, the model's vocabulary has {vocab}\n\
         hint: leave the token out of the text; if it belongs to the model, copy the tokenizer of its checkpoint"
    )]
    LargerThanVocabulary {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// `vocab_size` of the model.
        vocab: usize,
    },
    /// Text could not be encoded.
    #[error("text cannot be encoded: `{detail}`\nhint: the tokenizer's rules do not fit this text")]
    Encode {
        /// What the tokenizer said.
        detail: String,
    },
    /// Ids could not be decoded.
    #[error("ids cannot be decoded: `{detail}`\nhint: the tokenizer's decoder does not fit them")]
    Decode {
        /// What the tokenizer said.
        detail: String,
    },
    /// The checkpoint has no chat template.
    #[error(
        "no chat template in tokenizer_config.json or chat_template.jinja\n\
         hint: this model was not trained for chat; give it a text to continue with `--prompt`"
    )]
    NoTemplate,
    /// Several templates, none of them the default.
    #[error(
        "chat template: no template is named `default`, found: `{found}`\n\
         hint: name one of them `default` in tokenizer_config.json"
    )]
    NoDefaultTemplate {
        /// The names there are.
        found: String,
    },
    /// A template does not compile or fails while it runs.
    #[error("chat template: `{detail}`\nhint: check the template against the one of the model")]
    Template {
        /// Error and line.
        detail: String,
    },
    /// A template refused the messages (`raise_exception`).
    #[error("chat template refuses the messages: `{message}`\nhint: change roles or their order")]
    Refused {
        /// The template's words.
        message: String,
    },
    /// A template ran too long or wrote too much.
    #[error(
        "chat template: stopped after {limit}\n\
         hint: real templates need a hundredth of that; check where the template comes from"
    )]
    TemplateLimit {
        /// The limit it ran into.
        limit: std::borrow::Cow<'static, str>,
    },
    /// A part of a file cannot be carried out.
    #[error(
        "{file}: {part} was stopped: {reason}\n\
         hint: tokenizers and templates in use need a fraction of that; copy the file from the original checkpoint"
    )]
    Stopped {
        /// The file.
        file: &'static str,
        /// Its part, or what was done with it.
        part: String,
        /// Why.
        reason: String,
    },
    /// The process that works on foreign files is not there.
    #[error(
        "the helper for tokenizers and templates: {detail}\nhint: the program starts itself again for them; let it"
    )]
    Helper {
        /// What is wrong.
        detail: String,
    },
    /// A text holds nothing.
    #[error("`{file}` holds no text\nhint: give a file with text")]
    Empty {
        /// The file.
        file: String,
    },
    /// A text is in no or another encoding.
    #[error(
        "`{file}` is not UTF-8: the byte at {at} is wrong\nhint: convert the text, e.g. with `iconv -t UTF-8`"
    )]
    NotUtf8 {
        /// The file.
        file: String,
        /// Position of the first bad byte.
        at: usize,
    },
    /// A record's lists are something else.
    #[error("`{key}` is no list\nhint: it is a list of objects, as chat templates take it")]
    NoList {
        /// `messages` or `tools`.
        key: &'static str,
    },
    /// A JSON file is no list of texts.
    #[error(
        "`{file}` is no list of texts: {found}\n\
         hint: a .json file is one list of strings or of objects with `text` or `messages`; with an object on each \
         line, name it .jsonl or say `--text-form jsonl`"
    )]
    NoTexts {
        /// The file.
        file: String,
        /// What it holds.
        found: String,
    },
    /// A record is neither a text nor a chat.
    #[error(
        "`{file}` {place}: {detail}\nhint: each record is an object with `text`, or with `messages` for chats"
    )]
    Record {
        /// The file.
        file: String,
        /// The line or record, from 1.
        place: String,
        /// What is wrong.
        detail: String,
    },
}
