//! The other side of the pipes: the process that works.
use super::{
    super::{ChatTemplate, TextError, TokenizerConfig, config::NAMED_TOKENS, words::Words},
    Answer, Bounds, Request, TOO_LONG, wire,
};
use std::{
    io::{BufReader, stdin, stdout},
    process::ExitCode,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

/// How often time is looked at. A process that is stopped counts none meanwhile.
const TICK: Duration = Duration::from_millis(50);

/// Ticks that are left to the call under way.
static LEFT: AtomicI64 = AtomicI64::new(i64::MAX);

/// Answers what comes on stdin until it ends; `arguments` are those after [`super::ARGUMENT`].
pub fn serve(arguments: impl Iterator<Item = String>) -> ExitCode {
    let numbers: Vec<u64> = arguments.filter_map(|it| it.parse().ok()).collect();
    let [milliseconds, memory] = numbers[..] else { return ExitCode::from(2) };
    let bounds = Bounds { milliseconds, memory };
    std::thread::spawn(watch);
    // What is left of it when it ends is an error's text.
    #[cfg(unix)]
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
    );
    let (mut from, mut to) = (BufReader::new(stdin()), stdout());
    let mut work = Work::default();
    while let Ok(Some(request)) = wire::receive::<Request<'static>>(&mut from) {
        let bounds = bounds.of(request.bytes());
        limit_memory(Some(bounds.memory));
        LEFT.store((bounds.milliseconds / TICK.as_millis() as u64) as i64, Ordering::Relaxed);
        let answer = work.answer(request).unwrap_or_else(|error| Answer::Failed(error.into()));
        LEFT.store(i64::MAX, Ordering::Relaxed);
        limit_memory(None);
        if wire::send(&mut to, &answer).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

#[expect(clippy::exit, reason = "a call that does not return is ended with its process")]
fn watch() {
    loop {
        std::thread::sleep(TICK);
        if LEFT.load(Ordering::Relaxed) != i64::MAX && LEFT.fetch_sub(1, Ordering::Relaxed) <= 0 {
            std::process::exit(TOO_LONG.into());
        }
    }
}

/// Systems that cannot limit it have the bounds of time and of instructions only.
#[cfg(unix)]
fn limit_memory(bytes: Option<u64>) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::As).maximum;
    let current = bytes.into_iter().chain(maximum).min();
    let _ = setrlimit(Resource::As, Rlimit { current, maximum });
}

#[cfg(not(unix))]
fn limit_memory(_: Option<u64>) {}

#[derive(Default)]
struct Work {
    words: Option<Words>,
    templates: Vec<ChatTemplate>,
}

impl Work {
    fn answer(&mut self, request: Request<'static>) -> Result<Answer, TextError> {
        let no_tokenizer = || TextError::Tokenizer { detail: "none was read".to_owned() };
        let words = self.words.as_ref().ok_or_else(no_tokenizer);
        Ok(match request {
            Request::Tokenizer { json } => {
                let words = Words::here(json.as_bytes())?;
                let facts = words.facts().clone();
                self.words = Some(words);
                Answer::Facts(facts)
            }
            Request::Encode { text, add_special } => {
                Answer::Ids(words?.encode(&text, add_special)?)
            }
            Request::Decode { ids, skip_special } => {
                Answer::Text(words?.decode(&ids, skip_special)?)
            }
            Request::Id { token } => Answer::Id(words?.id(&token)?),
            Request::Token { id } => Answer::Token(words?.token(id)?),
            Request::Template { source, tokens } => {
                let known = |(name, text): (String, String)| {
                    Some((*NAMED_TOKENS.iter().find(|it| **it == name)?, text))
                };
                let tokens = tokens.into_iter().filter_map(known).collect();
                let config = TokenizerConfig { tokens, ..TokenizerConfig::default() };
                self.templates.push(ChatTemplate::compile(&source, &config, None)?);
                Answer::Template(self.templates.len() - 1)
            }
            Request::Render { template, messages, add_generation_prompt, variables } => {
                let none = || TextError::Template { detail: "it was not compiled".to_owned() };
                let messages = messages.as_array().map(Vec::as_slice).unwrap_or_default();
                let template = self.templates.get(template).ok_or_else(none)?;
                let text = template.render_with(messages, add_generation_prompt, &variables)?;
                Answer::Text(text)
            }
        })
    }
}
