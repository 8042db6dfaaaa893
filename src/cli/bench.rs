//! `milm-compress bench`: tokens per second beside what the machine allows.
use super::{
    Context, Outcome,
    model::{BackendName, with_kv_cache},
    output,
    speculation::{Prepared, TOKENS, Told, Wanted},
};
use crate::{
    number::{number, whole},
    package::{self, Opened},
    runtime::{
        self, BenchReport, BenchSettings, Engine, OffersReport, Scripted, Speculation, Spread,
    },
    scheme::KvPrecision,
    text::Tokenizer,
};
use std::path::PathBuf;

/// Measure prefill and decode speed
///
/// Each round reads a prompt into an empty cache, then generates tokens one by one from an empty
/// cache (or one of --context tokens), after one round of warm-up. Beside the speed stands the rate at which the same threads
/// read a buffer as large as the weights: generating a token must read all weights once.
///
/// With offers (--lookup, --draft, --medusa, --mtp, --acceptance) a text is written in turn without and
/// with them, and the ratio of both speeds stands below: --decode tokens behind --prompt, or behind the
/// tokens of --prefill.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress bench builtin:milm-mini\n  \
    milm-compress bench ./package --threads 1 --repeats 9 --json bench.json\n  \
    milm-compress bench ./package --lookup --prompt 'Copy this list:'\n  \
    milm-compress bench ./package --acceptance 0.7 --draft-tokens 4")]
pub(super) struct Args {
    /// Checkpoint, package, or builtin:milm-mini
    model: String,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = whole::<usize>(1..))]
    prefill: usize,
    /// Tokens to generate
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = whole::<usize>(1..))]
    decode: usize,
    /// Tokens in the cache before generation begins
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = whole::<usize>(0..))]
    context: usize,
    /// How keys and values of past tokens are held [default: as the package says, or float]
    #[arg(long, value_enum, value_name = "FORM")]
    kv_cache: Option<KvPrecision>,
    /// Counted rounds
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = whole::<u16>(1..=u16::MAX.into()))]
    repeats: u16,
    /// Packed kernels, or the float32 reference
    #[arg(long, value_enum, default_value_t)]
    backend: BackendName,
    #[command(flatten)]
    offers: Wanted,
    /// Offer tokens that are right with this probability, at no cost
    #[arg(long, value_name = "P", value_parser = number::<f64>(0.0..=1.0))]
    #[arg(conflicts_with_all = ["draft", "lookup", "medusa", "mtp"])]
    acceptance: Option<f64>,
    /// Text that offers are measured behind
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Write the result as JSON to a file, or to stdout (-)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let opened = package::open(&args.model)?;
    args.check(opened.model.spec.max_positions)?;
    let prepared = args.prepare(&opened)?;
    let model = with_kv_cache(&opened.model, args.kv_cache);
    let backend = args.backend.backend();
    let mut engine = Engine::load(&model, &*backend, &context.team, context.progress())?;
    let settings = BenchSettings {
        prefill: args.prefill.max(1),
        decode: args.decode.max(1),
        context: args.context,
        repeats: args.repeats.into(),
    };
    let (prefill, decode) = runtime::measure(&mut engine, model.spec.vocab, settings)?;
    let offers = prepared.map(|it| it.measure(&mut engine, args, context)).transpose()?;
    let bytes = runtime::weight_bytes_per_token(&model);
    let rate = runtime::read_rate(bytes as usize, &context.team);
    let report = BenchReport {
        schema: 1,
        model: args.model.clone(),
        isa: args.backend.isa(),
        threads: context.team.threads(),
        prefill_tokens: settings.prefill,
        decode_tokens: settings.decode,
        context_tokens: settings.context,
        kv_cache: model.spec.kv_cache,
        kv_bytes_per_token: model.spec.kv_cache_bytes_per_token() as u64,
        prefill_tokens_per_second: prefill,
        decode_tokens_per_second: decode,
        weight_bytes_per_token: bytes,
        read_bytes_per_second: rate,
        decode_limit_tokens_per_second: rate / bytes as f64,
        offers,
    };
    match &args.json {
        Some(path) => output::json(path, &report, context)?,
        None => output::text(&table(&report))?,
    }
    Ok(Outcome::Done)
}

impl Args {
    /// Compares the tokens with the positions that the model was made for.
    fn check(&self, positions: usize) -> anyhow::Result<()> {
        let decoded = self.context.saturating_add(self.decode);
        for (what, found) in [("--prefill", self.prefill), ("--context and --decode", decoded)] {
            anyhow::ensure!(
                found <= positions,
                "{what}: {found} tokens, and the model was made for {positions}\n\
                 hint: measure with at most that many"
            );
        }
        Ok(())
    }

    /// Opens what offers tokens, and the text that is written on.
    fn prepare<'a>(&self, opened: &'a Opened) -> anyhow::Result<Option<Measured<'a>>> {
        let offers = if self.acceptance.is_some() {
            None
        } else {
            match self.offers.prepare(opened, self.backend)? {
                Some(offers) => Some(offers),
                None if self.prompt.is_none() => return Ok(None),
                None => anyhow::bail!(
                    "`--prompt`: nothing offers tokens\n\
                     hint: give `--lookup`, `--draft MODEL`, `--medusa DIR`, `--mtp` or `--acceptance P`"
                ),
            }
        };
        let tokenizer = opened.tokenizer()?;
        let prompt = match &self.prompt {
            Some(text) => tokenizer.encode(text, true)?,
            None => runtime::prompt_tokens(self.prefill, opened.model.spec.vocab),
        };
        let (found, positions) = (prompt.len() + self.decode, opened.model.spec.max_positions);
        anyhow::ensure!(
            found <= positions,
            "--prompt and --decode: {found} tokens, and the model was made for {positions}\n\
             hint: measure with at most that many"
        );
        Ok(Some(Measured { offers, tokenizer, prompt }))
    }
}

/// What offers are measured on.
struct Measured<'a> {
    /// None: they are scripted.
    offers: Option<Prepared>,
    tokenizer: &'a Tokenizer,
    prompt: Vec<u32>,
}

impl Measured<'_> {
    fn measure(
        &self,
        engine: &mut Engine<'_>,
        args: &Args,
        context: &Context,
    ) -> anyhow::Result<OffersReport> {
        let offers =
            self.offers.as_ref().map(|it| it.start(engine, context.progress())).transpose()?;
        let make = |text: &[u32]| {
            if let Some(offers) = offers {
                return offers.alone();
            }
            let share = args.acceptance.unwrap_or(0.0);
            let tokens = args.offers.draft_tokens.unwrap_or(TOKENS);
            Speculation::new(Scripted::new(text, share, context.seed), tokens).paced()
        };
        let counts = (args.decode.max(1), args.repeats.into());
        Ok(runtime::measure_offers(engine, self.tokenizer, &self.prompt, counts, make)?)
    }
}

fn offers_table(report: &OffersReport) -> String {
    let row = |name: &str, s: Spread, digits: usize| {
        format!("{name}   {:>9.digits$} {:>9.digits$} {:>9.digits$}\n", s.min, s.median, s.max)
    };
    format!(
        "\nbehind {} tokens    min    median       max\n{}{}{}{}; {} text\n",
        report.prompt_tokens,
        row("plain        ", report.plain_tokens_per_second, 1),
        row("with offers  ", report.tokens_per_second, 1),
        row("ratio        ", report.ratio, 2),
        Told::from(report.counts.clone()),
        if report.same_text { "the same" } else { "another" },
    )
}

fn table(report: &BenchReport) -> String {
    let row = |name: &str, tokens: usize, s: Spread| {
        format!("{name} {tokens:>5}   {:>9.1} {:>9.1} {:>9.1}\n", s.min, s.median, s.max)
    };
    format!(
        "{}, {} threads, {}\n\ntokens/s           min    median       max\n{}{}\n\
         keys and values: {}, {} bytes a token; {} tokens before the decoded\n\
         reading the weights ({:.1} MB a token at {:.1} GB/s) allows {:.1} tokens/s of decode\n",
        report.model,
        report.threads,
        report.isa,
        row("prefill", report.prefill_tokens, report.prefill_tokens_per_second),
        row("decode ", report.decode_tokens, report.decode_tokens_per_second),
        report.kv_cache.name(),
        report.kv_bytes_per_token,
        report.context_tokens,
        report.weight_bytes_per_token as f64 / 1e6,
        report.read_bytes_per_second / 1e9,
        report.decode_limit_tokens_per_second,
    ) + &report.offers.as_ref().map_or_else(String::new, offers_table)
}
