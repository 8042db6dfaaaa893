//! Speed with offers beside that without, of one text.
use super::{
    decode::{Counts, GenerateError, GenerateSettings, Plain, Speculation, generate_with},
    engine::Engine,
    spread::Spread,
};
use crate::text::Tokenizer;
use serde::Serialize;
use std::time::Instant;

/// Decoding with offers and without, in turn.
#[derive(Clone, Debug, Serialize)]
pub struct OffersReport {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens written behind it, the best each time.
    pub written_tokens: usize,
    /// Tokens per second without offers.
    pub plain_tokens_per_second: Spread,
    /// Tokens per second with offers.
    pub tokens_per_second: Spread,
    /// Their ratio, of pairs that were measured one after the other.
    pub ratio: Spread,
    /// What came of the offers.
    #[serde(flatten)]
    pub counts: Counts,
    /// Offered tokens that a pass saved the reading of.
    pub accepted_per_pass: f64,
    /// Both wrote the same.
    pub same_text: bool,
}

/// Continues `prompt` by `tokens` tokens, without offers and with those that `offers` makes for the
/// whole text, in turn; `repeats` pairs count after one of warm-up.
pub fn measure_offers<'a>(
    engine: &mut Engine<'_>,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    (tokens, repeats): (usize, usize),
    offers: impl FnOnce(&[u32]) -> Speculation<'a>,
) -> Result<OffersReport, GenerateError> {
    let settings =
        GenerateSettings { max_tokens: tokens, ignore_eos: true, ..GenerateSettings::default() };
    let mut write = |speculation: &mut Speculation<'_>| {
        let mut first = None;
        let mut receive = |_: &str| {
            first.get_or_insert_with(Instant::now);
            true
        };
        engine.truncate(0);
        let model = (engine as &mut Engine<'_> as _, speculation);
        let done = generate_with(model, tokenizer, prompt, &settings, &mut receive)?;
        let seconds = first.map_or(0.0, |it: Instant| it.elapsed().as_secs_f64());
        // The first token comes from the prompt's logits.
        let steps = done.ids.len().saturating_sub(1) as f64;
        Ok::<_, GenerateError>((done.ids, steps / seconds.max(1e-9)))
    };
    let mut plain = Speculation::new(Plain, 0);
    let (text, _) = write(&mut plain)?;
    let mut offered = offers(&[prompt, &text].concat());
    let mut same_text = write(&mut offered)?.0 == text;
    offered.take_counts();
    let (mut rates, mut plain_rates) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let (_, plain) = write(&mut plain)?;
        let (ids, rate) = write(&mut offered)?;
        plain_rates.push(plain);
        rates.push(rate);
        same_text &= ids == text;
    }
    let counts = offered.take_counts();
    let ratios = rates.iter().zip(&plain_rates).map(|(rate, plain)| rate / plain).collect();
    Ok(OffersReport {
        prompt_tokens: prompt.len(),
        written_tokens: text.len(),
        plain_tokens_per_second: Spread::of(plain_rates),
        tokens_per_second: Spread::of(rates),
        ratio: Spread::of(ratios),
        accepted_per_pass: counts.accepted_per_pass(),
        counts,
        same_text,
    })
}
