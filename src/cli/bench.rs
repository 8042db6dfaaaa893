//! `milm-compress bench`: tokens per second beside what the machine allows.
use super::{
    Context, Outcome,
    model::{BackendName, with_kv_cache},
    output,
};
use crate::{
    number::whole,
    package,
    runtime::{self, BenchReport, BenchSettings, Engine, Spread},
    scheme::KvPrecision,
};
use std::path::PathBuf;

/// Measure prefill and decode speed
///
/// Each round reads a prompt into an empty cache, then generates tokens one by one from an empty
/// cache (or one of --context tokens), after one round of warm-up. Beside the speed stands the rate at which the same threads
/// read a buffer as large as the weights: generating a token must read all weights once.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress bench builtin:milm-mini\n  \
    milm-compress bench ./package --threads 1 --repeats 9 --json bench.json")]
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
    /// Write the result as JSON to a file, or to stdout (-)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let opened = package::open(&args.model)?;
    args.check(opened.model.spec.max_positions)?;
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
    )
}
