//! The calibration set of a verb, from its settings.
use super::Context;
use crate::{
    calibrate::{CalibrationSet, Generate, Settings, Source},
    forward::Reference,
    package::Opened,
    progress::Unit,
    runtime::{Engine, GenerateSettings, SamplingSettings, generate},
    tensor::Bytes,
    text::{Document, Tokenizer},
};
use std::path::Path;

/// What models are asked to continue (calibration-data/README.md).
const PROMPTS: &str = include_str!("../../calibration-data/prompts.txt");

/// Tokens after the prompt that are the best ones; the rest is drawn (LLM-QAT, arXiv 2305.17888,
/// takes 3 to 5).
const GREEDY: usize = 4;

/// Text that the program carries, written for it (calibration-data/).
pub(super) fn bundled(name: &str) -> Option<&'static str> {
    match name {
        "builtin:en" => Some(include_str!("../../calibration-data/en.txt")),
        "builtin:zh" => Some(include_str!("../../calibration-data/zh.txt")),
        _ => None,
    }
}

/// The calibration set of a model; notes are told on stderr.
pub(super) fn prepare(
    opened: &Opened,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<CalibrationSet> {
    with_held_out(opened, settings, 0, context).map(|(set, _)| set)
}

/// As [`prepare`], and up to `held_out` windows of the same text that are not calibrated on.
pub(super) fn with_held_out(
    opened: &Opened,
    settings: &Settings,
    held_out: usize,
    context: &Context,
) -> anyhow::Result<(CalibrationSet, Vec<Vec<u32>>)> {
    let settings = &settings.within(opened.model.spec.max_positions)?;
    let tokenizer = opened.tokenizer()?;
    let mut set = if settings.self_generate {
        written_by_itself(opened, &tokenizer, settings, held_out, context)?
    } else {
        drawn(&tokenizer, settings, (held_out, context.seed))?
    };
    for note in &set.notes {
        context.note(format_args!("calibration: {note}"));
    }
    let held_out = std::mem::take(&mut set.held_out);
    Ok((set, held_out))
}

fn drawn(
    tokenizer: &Tokenizer,
    settings: &Settings,
    (held_out, seed): (usize, u64),
) -> anyhow::Result<CalibrationSet> {
    let read = |source: Source| {
        let bytes = match bundled(&source.name) {
            Some(text) => Bytes::fixed(text.as_bytes()),
            None => Bytes::map(Path::new(&source.name))?,
        };
        Ok((source, bytes))
    };
    let texts: Vec<(Source, Bytes)> =
        settings.sources().into_iter().map(read).collect::<anyhow::Result<_>>()?;
    let texts: Vec<(Source, &[u8])> =
        texts.iter().map(|(source, bytes)| (source.clone(), &**bytes)).collect();
    let encode = |document: &Document| {
        tokenizer.encode_document(document).map_err(|error| error.to_string())
    };
    let render = |record: &serde_json::Value| {
        tokenizer.render_record(record).map_err(|error| error.to_string())
    };
    Ok(CalibrationSet::draw(settings, &texts, (&encode, &render), (held_out, seed))?)
}

fn written_by_itself(
    opened: &Opened,
    tokenizer: &Tokenizer,
    settings: &Settings,
    held_out: usize,
    context: &Context,
) -> anyhow::Result<CalibrationSet> {
    let progress = context.progress();
    let mut engine = Engine::load(&opened.model, &Reference, &context.team, progress)?;
    let windows = (settings.calibration_samples + held_out) as u64;
    progress.start("self-generate", windows * settings.tokens() as u64, Unit::Tokens);
    let mut write = |prompt: &[u32], tokens: usize, seed: u64| {
        engine.truncate(0);
        let mut ids = prompt.to_vec();
        let greedy = GREEDY.min(tokens);
        for (count, temperature) in [(greedy, 0.0), (tokens - greedy, 1.0)] {
            if count > 0 {
                let sampling = SamplingSettings { temperature, seed, ..Default::default() };
                let wanted = GenerateSettings {
                    max_tokens: count,
                    ignore_eos: true,
                    sampling,
                    ..Default::default()
                };
                let done = generate(&mut engine, tokenizer, &ids, &wanted, &mut |_| true);
                ids.extend(done.map_err(|error| error.to_string())?.ids);
            }
        }
        progress.advance(ids.len() as u64);
        Ok(ids.split_off(prompt.len()))
    };
    let encode = |document: &Document| {
        tokenizer.encode_document(document).map_err(|error| error.to_string())
    };
    let write: Generate<'_> = &mut write;
    let (prompts, seeds) = (("builtin:prompts", PROMPTS), (held_out, context.seed));
    let set = CalibrationSet::generate(settings, prompts, (&encode, write), seeds)?;
    progress.finish();
    Ok(set)
}
