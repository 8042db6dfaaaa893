//! Chat templates: Jinja as transformers runs it, on messages with roles.
use super::{
    TextError, TokenizerConfig,
    apart::{Answer, Helper, Request},
    config::NAMED_TOKENS,
    python,
};
use minijinja::{
    Environment, ErrorKind, Value,
    syntax::SyntaxConfig,
    value::{Rest, Serde},
};
use serde::{Deserialize, Serialize};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Instructions a template may take. Templates in use need some thousands for a long chat.
const FUEL: u64 = 2_000_000;

/// Bytes a template may write.
const MAX_OUTPUT: usize = 16 << 20;

/// Bytes of a template's source.
const MAX_SOURCE: usize = 1 << 20;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, …
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of a role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A compiled chat template.
///
/// Blocks are trimmed as transformers does; `raise_exception`, `strftime_now`, `tojson` as
/// `json.dumps`, Python's string and dict methods and `{% generation %}` (without effect) are
/// there. Limits: a count of instructions and of bytes written, so a hostile template ends; what
/// it holds in variables before that is bounded by the helper's memory, see [`super::apart`].
#[derive(Debug)]
pub struct ChatTemplate {
    place: Place,
}

/// Where a template was compiled.
#[derive(Debug)]
enum Place {
    Here(Box<Environment<'static>>),
    /// By its number there.
    Apart(Arc<Helper>, usize),
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// Compiles the template named `name` of a tokenizer's configuration, or its only one.
    pub fn new(config: &TokenizerConfig, name: &str) -> Result<Self, TextError> {
        Self::with(config, name, None)
    }

    /// As [`Self::new`], compiled and rendered by the helper of a tokenizer if it has one.
    pub(super) fn with(
        config: &TokenizerConfig,
        name: &str,
        helper: Option<&Arc<Helper>>,
    ) -> Result<Self, TextError> {
        let source = config.template(name)?;
        let Some(helper) = helper else { return Self::compile(source, config, None) };
        let tokens = config.tokens.iter().map(|(name, text)| ((*name).to_owned(), text.clone()));
        let request = Request::Template { source: source.into(), tokens: tokens.collect() };
        match helper.ask(&request)? {
            Answer::Template(number) => Ok(Self { place: Place::Apart(helper.clone(), number) }),
            _ => Err(TextError::Helper { detail: "no template".to_owned() }),
        }
    }

    /// Compiles `source`; `strftime_now` tells the time `now`, the present when `None`.
    pub fn compile(
        source: &str,
        config: &TokenizerConfig,
        now: Option<jiff::Zoned>,
    ) -> Result<Self, TextError> {
        if source.len() > MAX_SOURCE {
            return Err(TextError::TemplateLimit { limit: "1 MiB of source".into() });
        }
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let mut environment = Environment::new();
        environment.set_syntax(syntax.map_err(|error| explain(&error))?);
        environment.set_fuel(Some(FUEL));
        environment.set_debug(true); // errors name what is undefined
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(python::method);
        minijinja_contrib::add_to_environment(&mut environment);
        environment.add_function("cycler", |items: Rest<Value>| {
            minijinja_contrib::globals::cycler(items.0)
        });
        environment.add_filter("tojson", python::to_json);
        environment.add_filter("replace", python::replace);
        environment.add_test("sequence", python::is_sequence);
        environment.add_function("raise_exception", python::raise_exception);
        environment.add_function("strftime_now", move |format: String| {
            python::strftime(&format, now.as_ref())
        });
        for name in NAMED_TOKENS {
            if let Some(token) = config.token(name) {
                environment.add_global(*name, Value::from(token));
            }
        }
        environment
            .add_template_owned(NAME, without_generation_tags(&line_feeds(source)))
            .map_err(|error| explain(&error))?;
        Ok(Self { place: Place::Here(Box::new(environment)) })
    }

    /// The text of a conversation; with `add_generation_prompt` up to where the model answers.
    pub fn render<M: Serialize>(
        &self,
        messages: &[M],
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        self.render_with(messages, add_generation_prompt, &serde_json::Map::new())
    }

    /// As [`Self::render`], with more variables (`tools`, `documents`, `enable_thinking`, …).
    pub fn render_with<M: Serialize>(
        &self,
        messages: &[M],
        add_generation_prompt: bool,
        variables: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String, TextError> {
        let environment = match &self.place {
            Place::Here(environment) => environment,
            Place::Apart(helper, template) => {
                let messages = serde_json::to_value(messages)
                    .map_err(|error| TextError::Template { detail: error.to_string() })?;
                let (template, variables) = (*template, variables.clone());
                let request =
                    Request::Render { template, messages, add_generation_prompt, variables };
                return match helper.ask(&request)? {
                    Answer::Text(text) => Ok(text),
                    _ => Err(TextError::Helper { detail: "no text".to_owned() }),
                };
            }
        };
        // transformers hands these over as None when there are none.
        let mut context: std::collections::BTreeMap<_, _> =
            ["tools", "documents"].map(|name| (name, Value::from(()))).into();
        for (name, value) in variables {
            context.insert(name.as_str(), Value::from(Serde(value)));
        }
        context.insert("messages", Value::from(Serde(messages)));
        context.insert("add_generation_prompt", Value::from(add_generation_prompt));
        let mut out = Limited(vec![]);
        let template = environment.get_template(NAME).map_err(|error| explain(&error))?;
        let render = || template.render_captured_to(Value::from(context), &mut out).map(|_| ());
        let panicked = |_| TextError::Template { detail: "it contradicts itself".to_owned() };
        match catch_unwind(AssertUnwindSafe(render)).map_err(panicked)? {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WriteFailure => {
                return Err(TextError::TemplateLimit { limit: "16 MiB of output".into() });
            }
            Err(error) => return Err(explain(&error)),
        }
        String::from_utf8(out.0).map_err(|error| TextError::Template { detail: error.to_string() })
    }
}

/// Takes [`MAX_OUTPUT`] bytes.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Jinja reads every kind of line end in a template as a line feed.
fn line_feeds(source: &str) -> String {
    source.replace("\r\n", "\n").replace('\r', "\n")
}

/// `{% generation %}` marks what a model said, for training; here it becomes a block without
/// effect that keeps the tag's control of blanks.
fn without_generation_tags(source: &str) -> String {
    let tag = regex::Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")
        .expect("the pattern is fixed");
    tag.replace_all(source, |found: &regex::Captures<'_>| {
        let block = if found.get(2).is_some() { "endif" } else { "if true" };
        format!("{{%{} {block} {}%}}", &found[1], &found[3])
    })
    .into_owned()
}

fn explain(error: &minijinja::Error) -> TextError {
    if error.kind() == ErrorKind::OutOfFuel {
        return TextError::TemplateLimit { limit: "2 million instructions".into() };
    }
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(python::Raised(message)) = inner.downcast_ref() {
            return TextError::Refused { message: message.clone() };
        }
        cause = inner.source();
    }
    let mut detail = error.to_string();
    if detail.contains("use % operator on unsupported types string") {
        detail += ": `%` formats no strings here, `| format(…)` does";
    }
    let changes = ["append", "extend", "insert", "pop", "remove", "setdefault", "update"];
    if changes.iter().any(|method| detail.contains(&format!("has no method named {method} "))) {
        detail +=
            ": lists and dictionaries are not changed, as in transformers; a namespace can be";
    }
    TextError::Template { detail }
}
