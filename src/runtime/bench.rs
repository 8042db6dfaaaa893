//! Speed of an engine beside the machine's limit.
use super::{Engine, bench_offers::OffersReport, spread::Spread};
use crate::forward::ForwardError;
use crate::linalg::Team;
use crate::model::Model;
use crate::scheme::KvPrecision;
use serde::Serialize;
use std::time::Instant;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct BenchSettings {
    /// Tokens of the prompt.
    pub prefill: usize,
    /// Tokens generated one by one.
    pub decode: usize,
    /// Tokens in the cache before those.
    pub context: usize,
    /// Counted rounds after one warm-up.
    pub repeats: usize,
}

/// Tokens per second, and what the machine allows.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// Version of this form.
    pub schema: u32,
    /// The model as it was named.
    pub model: String,
    /// Instruction set of the integer kernels.
    pub isa: &'static str,
    /// Threads.
    pub threads: usize,
    /// Tokens of the prompt.
    pub prefill_tokens: usize,
    /// Tokens generated.
    pub decode_tokens: usize,
    /// Tokens in the cache before those.
    pub context_tokens: usize,
    /// How keys and values are held.
    pub kv_cache: KvPrecision,
    /// Bytes of keys and values of a token.
    pub kv_bytes_per_token: u64,
    /// Tokens per second of the prompt.
    pub prefill_tokens_per_second: Spread,
    /// Tokens per second of generation.
    pub decode_tokens_per_second: Spread,
    /// Bytes of weights as stored that one generated token needs.
    pub weight_bytes_per_token: u64,
    /// Bytes per second that the same threads read from a buffer of that size (at most 1 GiB).
    pub read_bytes_per_second: f64,
    /// Tokens per second if reading the weights were all there is to do.
    pub decode_limit_tokens_per_second: f64,
    /// Decoding with offers beside that without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offers: Option<OffersReport>,
}

fn token(stride: usize, i: usize, vocab: usize) -> u32 {
    ((stride * i + 13) % vocab) as u32
}

/// Tokens of a prompt that means nothing, spread over the vocabulary.
pub fn prompt_tokens(count: usize, vocab: usize) -> Vec<u32> {
    (0..count).map(|i| token(7919, i, vocab)).collect()
}

/// Measures an engine on tokens spread over the vocabulary.
pub fn measure(
    engine: &mut Engine<'_>,
    vocab: usize,
    settings: BenchSettings,
) -> Result<(Spread, Spread), ForwardError> {
    let prompt = prompt_tokens(settings.prefill, vocab);
    let context = prompt_tokens(settings.context, vocab);
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for round in 0..=settings.repeats {
        engine.truncate(0);
        let began = Instant::now();
        engine.feed(&prompt)?;
        let middle = Instant::now();
        engine.truncate(0);
        if !context.is_empty() {
            engine.feed(&context)?;
        }
        let start = Instant::now();
        for i in 0..settings.decode {
            engine.feed(&[token(104_729, i, vocab)])?;
        }
        let end = Instant::now();
        if round > 0 {
            prefill.push(settings.prefill as f64 / (middle - began).as_secs_f64());
            decode.push(settings.decode as f64 / (end - start).as_secs_f64());
        }
    }
    Ok((Spread::of(prefill), Spread::of(decode)))
}

/// Stored bytes of the weights that one token passes: the block's matrices (of a mixture, the
/// chosen experts' share) and the head.
pub fn weight_bytes_per_token(model: &Model) -> u64 {
    let stored = |name: &str| -> u64 {
        let parts = model.weights.part_names(name);
        parts.iter().filter_map(|p| model.weights.raw.get(p)).map(|r| r.bytes.len() as u64).sum()
    };
    let of = |tensor: &crate::model::TensorSpec| {
        let all = stored(&tensor.name);
        match (tensor.block.map(|b| &model.spec.blocks[b].mlp), tensor.expert) {
            (
                Some(crate::model::Mlp::Experts { count, per_token, .. }),
                Some(crate::model::Expert::Routed(_)),
            ) => all * *per_token as u64 / *count as u64,
            _ => all,
        }
    };
    let blocks = model.spec.tensors.iter().filter(|t| t.role.is_block_linear()).map(of);
    blocks.sum::<u64>() + model.spec.head().map_or(0, of)
}

/// Bytes per second at which a team reads a buffer of `size` bytes (at most 1 GiB, which no cache
/// holds) over and over; the best of five passes.
pub fn read_rate(size: usize, team: &Team) -> f64 {
    const PART: usize = 1 << 18;
    const LARGEST: usize = 1 << 30;
    let buffer = vec![1_u64; (size.min(LARGEST) / 8).max(PART)];
    let parts = buffer.len().div_ceil(PART);
    let mut best = 0.0_f64;
    for _ in 0..5 {
        let began = Instant::now();
        team.run(parts, |part| {
            let words = &buffer[part * PART..buffer.len().min((part + 1) * PART)];
            let (lanes, rest) = words.as_chunks::<32>();
            let mut sums = [0_u64; 32];
            for lane in lanes {
                for (sum, word) in sums.iter_mut().zip(lane) {
                    *sum = sum.wrapping_add(*word);
                }
            }
            std::hint::black_box((sums, rest));
        });
        best = best.max((buffer.len() * 8) as f64 / began.elapsed().as_secs_f64());
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_two() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!(odd, Spread { min: 1.0, median: 2.0, max: 3.0 });
        let even = Spread::of(vec![4.0, 1.0, 2.0, 3.0]);
        assert!((even.median - 2.5).abs() < f64::EPSILON);
    }
}
