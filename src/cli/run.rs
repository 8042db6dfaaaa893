//! `milm-compress run`: text from a model.
use super::{
    Context, Outcome,
    model::{BackendName, with_kv_cache},
    output,
    speculation::{Told, Wanted},
};
use crate::{
    number::{above, above_to, number, whole},
    package::{self, Opened},
    runtime::{
        Engine, GenerateSettings, Generated, NextToken, Offers, Plain, SamplingSettings,
        Speculation, StopReason, generate_with,
    },
    scheme::KvPrecision,
    shown,
    text::{ChatTemplate, GenerationConfig, Message, TextError, Tokenizer},
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    time::Instant,
};

/// Continue a text, or chat
///
/// Settings that are not given come from the model's `generation_config.json`, except for the
/// temperature: without `--temperature` the best token is taken each time.
/// On a terminal control characters of the text are shown as escapes; elsewhere it is as written.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress run builtin:milm-mini --prompt 'It was the best of'\n  \
    milm-compress run ./smollm2 --prompt 'Once' --max-tokens 64 --temperature 0.8 --seed 7\n  \
    milm-compress run ./smollm2 --prompt 'Copy this list:' --lookup\n  \
    milm-compress run ./large --draft ./small --prompt 'Once'\n  \
    milm-compress run ./smollm2 --medusa ./heads --prompt 'Once'\n  \
    milm-compress run ./smollm2 --chat --system 'Answer in one sentence.'\n  \
    milm-compress run ./smollm2 --prompt '1, 2, 3,' --stop '9' --json")]
pub(super) struct Args {
    /// Checkpoint, package, or builtin:milm-mini
    model: String,
    /// Read questions from stdin, one a line, and answer them through the model's chat template
    #[arg(long, conflicts_with = "prompt")]
    chat: bool,
    /// What the model is told before the chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Print a JSON object per answer instead of text
    #[arg(long)]
    json: bool,
}

/// Settings of `run`. Every field is a flag and a recipe key of the same name.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Settings {
    /// Text to continue; what follows it is printed
    #[arg(long, value_name = "TEXT", required_unless_present = "chat")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prompt: Option<String>,
    /// Tokens to generate at most [default: the model's setting, or 256]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(0..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<usize>,
    /// 0 takes the best token each time; 1 draws from the model's probabilities
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = number::<f32>(0.0..))]
    temperature: f32,
    /// Draw from the N best tokens; 0 for all [default: the model's setting, or 0]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(0..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<usize>,
    /// Draw from the best tokens that hold this probability [default: the model's setting, or 1]
    #[arg(long, value_name = "P", value_parser = number::<f32>(above_to(0.0, 1.0)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    /// Draw from tokens with this share of the best one's probability [default: the model's
    /// setting, or 0]
    #[arg(long, value_name = "P", value_parser = number::<f32>(0.0..=1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    min_p: Option<f32>,
    /// Make tokens seen before less likely, above 1 [default: the model's setting, or 1]
    #[arg(long, value_name = "X", value_parser = number::<f32>(above(0.0)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition_penalty: Option<f32>,
    /// Text that ends the output and is not part of it; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Show special tokens, which are left out otherwise
    #[arg(long)]
    show_special: bool,
    /// Go on after tokens that end a text
    #[arg(long)]
    ignore_eos: bool,
    /// Packed kernels, or the float32 reference
    #[arg(long, value_enum, default_value_t)]
    backend: BackendName,
    /// How keys and values of past tokens are held [default: as the package says, or float]
    #[arg(long, value_enum, value_name = "FORM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_cache: Option<KvPrecision>,
    #[command(flatten)]
    #[serde(flatten)]
    offers: Wanted,
}

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    text: &'a str,
    ids: &'a [u32],
    stop_reason: StopReason,
    prompt_tokens: usize,
    generated_tokens: usize,
    prefill_tokens_per_second: f64,
    decode_tokens_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speculation: Option<Told>,
    settings: &'a GenerateSettings,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let opened = package::open(&args.model)?;
    let tokenizer = opened.tokenizer()?;
    // A model without a template is told before its weights are loaded.
    let template = args.chat.then(|| tokenizer.chat_template()).transpose()?;
    let mut session = Session::load(&opened, tokenizer, &args.settings, context)?;
    session.json = args.json;
    match (&args.settings.prompt, template) {
        (_, Some(template)) => chat(&mut session, &template, args.system.as_deref())?,
        (Some(prompt), None) => {
            session.answer(&tokenizer.encode(prompt, true)?)?;
        }
        (None, None) => anyhow::bail!(NO_PROMPT),
    }
    Ok(Outcome::Done)
}

const NO_PROMPT: &str = "nothing to continue\nhint: give `--prompt TEXT` or `--chat`";

/// Prints the prompt and what follows it.
pub(super) fn continue_prompt(
    model: &str,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<()> {
    let prompt = settings.prompt.as_deref().context(NO_PROMPT)?;
    let opened = package::open(model)?;
    let tokenizer = opened.tokenizer()?;
    let mut session = Session::load(&opened, tokenizer, settings, context)?;
    print(prompt)?;
    session.answer(&tokenizer.encode(prompt, true)?)?;
    Ok(())
}

impl Settings {
    /// Finds what can be wrong before a model is there to run.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.offers.check()?;
        self.prompt.is_some().then_some(()).context(NO_PROMPT)
    }

    /// With what is not given taken from the model.
    fn resolve(&self, tokenizer: &Tokenizer, seed: u64) -> anyhow::Result<GenerateSettings> {
        let model = tokenizer.generation()?;
        let model = model.as_ref();
        let plain = SamplingSettings::default();
        let penalty = or_model(self.repetition_penalty, model, "repetition_penalty")?;
        Ok(GenerateSettings {
            max_tokens: or_model(self.max_tokens, model, "max_new_tokens")?.unwrap_or(256),
            stop: self.stop.clone(),
            show_special: self.show_special,
            ignore_eos: self.ignore_eos,
            sampling: SamplingSettings {
                temperature: self.temperature,
                top_k: or_model(self.top_k, model, "top_k")?.unwrap_or(plain.top_k),
                top_p: or_model(self.top_p, model, "top_p")?.unwrap_or(plain.top_p),
                min_p: or_model(self.min_p, model, "min_p")?.unwrap_or(plain.min_p),
                repetition_penalty: penalty.unwrap_or(plain.repetition_penalty),
                seed,
            },
        })
    }
}

/// What is given, or what the model's authors have set.
fn or_model<T: serde::de::DeserializeOwned>(
    given: Option<T>,
    model: Option<&GenerationConfig>,
    key: &str,
) -> Result<Option<T>, TextError> {
    match (given, model) {
        (None, Some(model)) => model.get(key),
        (given, _) => Ok(given),
    }
}

/// A model and the tokens it has read.
struct Session<'a> {
    engine: Engine<'a>,
    speculation: Option<Speculation<'a>>,
    tokenizer: &'a Tokenizer,
    read: Vec<u32>,
    settings: GenerateSettings,
    json: bool,
    context: &'a Context,
}

impl<'a> Session<'a> {
    fn load(
        opened: &Opened,
        tokenizer: &'a Tokenizer,
        settings: &Settings,
        context: &'a Context,
    ) -> anyhow::Result<Self> {
        let offers = settings.offers.prepare(opened, settings.backend)?;
        let backend = settings.backend.backend();
        let model = with_kv_cache(&opened.model, settings.kv_cache);
        let engine = Engine::load(&model, &*backend, &context.team, context.progress())?;
        let offers = offers.map(|it| it.start(&engine, context.progress())).transpose()?;
        let speculation = offers.map(Offers::alone);
        let settings = settings.resolve(tokenizer, context.seed)?;
        let read = vec![];
        Ok(Self { engine, speculation, tokenizer, read, settings, json: false, context })
    }

    /// Continues `ids`, the whole text so far; prints and returns what follows.
    fn answer(&mut self, ids: &[u32]) -> anyhow::Result<Generated> {
        // What the model read before is kept as far as it is the same, up to the last token, whose
        // logits are wanted.
        let same = self.read.iter().zip(ids).take_while(|(a, b)| a == b).count();
        self.engine.truncate(same.min(ids.len().saturating_sub(1)));
        let begin = Instant::now();
        let mut first = None;
        let mut failed = None;
        let json = self.json;
        let mut receive = |piece: &str| {
            first.get_or_insert_with(Instant::now);
            if !json && !piece.is_empty() {
                failed = print(piece).err();
            }
            failed.is_none()
        };
        let mut plain = Speculation::new(Plain, 0);
        let speculation = self.speculation.as_mut().unwrap_or(&mut plain);
        let model = (&mut self.engine as &mut dyn NextToken, speculation);
        let done = generate_with(model, self.tokenizer, ids, &self.settings, &mut receive)?;
        if let Some(error) = failed {
            return Err(error);
        }
        let first = first.unwrap_or(begin);
        self.read = [ids, &done.ids].concat();
        self.read.truncate(self.engine.seen());
        self.tell(&done, (first - begin).as_secs_f64(), first.elapsed().as_secs_f64())?;
        Ok(done)
    }

    fn tell(&mut self, done: &Generated, prefill: f64, decode: f64) -> anyhow::Result<()> {
        let rate = |tokens: usize, seconds: f64| tokens as f64 / seconds.max(1e-9);
        // The first token comes from the prompt's logits; the others take a step each.
        let steps = done.ids.len().saturating_sub(1);
        let (prefill, decode) = (rate(done.prompt_tokens, prefill), rate(steps, decode));
        let told = self.speculation.as_mut().map(|it| Told::from(it.take_counts()));
        let offers = told.as_ref().map_or_else(String::new, |told| format!(", {told}"));
        if self.json {
            let answer = Answer {
                text: &done.text,
                ids: &done.ids,
                stop_reason: done.stop_reason,
                prompt_tokens: done.prompt_tokens,
                generated_tokens: done.ids.len(),
                prefill_tokens_per_second: prefill,
                decode_tokens_per_second: (steps > 0).then_some(decode),
                speculation: told,
                settings: &self.settings,
            };
            print(&(serde_json::to_string(&answer)? + "\n"))?;
        } else {
            print("\n")?;
        }
        self.context.note(format_args!(
            "read {} tokens at {prefill:.1}/s, wrote {} at {decode:.1}/s{}{offers}",
            done.prompt_tokens,
            done.ids.len(),
            match done.stop_reason {
                StopReason::Eos => "",
                StopReason::StopText => ", ended by a stop text",
                StopReason::MaxTokens => ", ended by --max-tokens",
                StopReason::ContextFull => ", the context is full",
                StopReason::Interrupted => ", interrupted",
            }
        ));
        Ok(())
    }
}

/// Lines from stdin are questions; the answers go to stdout.
fn chat(
    session: &mut Session<'_>,
    template: &ChatTemplate,
    system: Option<&str>,
) -> anyhow::Result<()> {
    let mut messages: Vec<Message> =
        system.map(|text| Message::new("system", text)).into_iter().collect();
    let mut line = String::new();
    loop {
        prompt_sign(session.context)?;
        line.clear();
        if std::io::stdin().lock().read_line(&mut line).context("stdin")? == 0 {
            return Ok(());
        }
        let said = line.trim();
        if said.is_empty() {
            continue;
        }
        messages.push(Message::new("user", said));
        let text = template.render(&messages, true)?;
        // The template writes BOS itself where the model wants it.
        let ids = session.tokenizer.encode(&text, false)?;
        let done = session.answer(&ids)?;
        messages.push(Message::new("assistant", done.text.trim()));
    }
}

/// `> ` on stderr, for people at a terminal.
fn prompt_sign(context: &Context) -> anyhow::Result<()> {
    if !context.quiet && std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        std::io::stderr().write_all(b"> ")?;
    }
    Ok(())
}

/// What the model writes: as it is for a program that reads it, and for a terminal without what the
/// terminal would obey.
fn print(text: &str) -> anyhow::Result<()> {
    if std::io::stdout().is_terminal() {
        return output::raw(&shown::terminal(text));
    }
    output::raw(text)
}
