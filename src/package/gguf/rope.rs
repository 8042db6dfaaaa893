//! How a file says the rotation of queries and keys.
use super::error::Unsupported;
use crate::model::{ModelSpec, Rope, RopeScaling};

/// How a file says the rotation, beside `rope.freq_base`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rotation {
    /// Nothing more.
    Plain,
    /// Every frequency is divided.
    Linear { factor: f64 },
    /// `YaRN`; `attention` multiplies what llama.cpp computes from the factor.
    Yarn { factor: f64, original: u64, betas: Option<(f64, f64)>, attention: Option<f64> },
    /// Divisors of the frequencies, one per pair.
    Factors(Vec<f32>),
}

/// How a file says the model's rotation.
pub(super) fn rotation(spec: &ModelSpec) -> Result<Rotation, Unsupported> {
    let rope = &spec.rope;
    let head_dim = spec.blocks.first().map_or(0, |b| b.head_dim);
    if let RopeScaling::Dynamic { .. } = rope.scaling {
        return Err(Unsupported::DynamicRope);
    }
    if let RopeScaling::LongRope { short, long, attention, .. } = &rope.scaling {
        if short != long {
            return Err(Unsupported::LongRope);
        }
        if !near(*attention, 1.0) {
            return Err(Unsupported::LongRopeAttention { found: *attention });
        }
    }
    if rope.kept.is_some() {
        if !near(rope.attention_factor(), 1.0) {
            return Err(Unsupported::LongRopeAttention { found: rope.attention_factor() });
        }
        return kept(spec, head_dim);
    }
    Ok(match rope.scaling {
        RopeScaling::Default | RopeScaling::Dynamic { .. } => Rotation::Plain,
        RopeScaling::Linear { factor } if near(factor, 1.0) => Rotation::Plain,
        RopeScaling::Linear { factor } => Rotation::Linear { factor },
        RopeScaling::Yarn { factor, ramp, attention } => {
            yarn(rope, head_dim, (factor, ramp, attention))?
        }
        RopeScaling::Llama3 { .. } | RopeScaling::LongRope { .. } => {
            factors(rope.theta, &rope.frequencies(head_dim, 1))
        }
    })
}

/// Heads that kept pairs of wider ones: one list of divisors if all kept the same.
fn kept(spec: &ModelSpec, head_dim: usize) -> Result<Rotation, Unsupported> {
    let frequencies = |b, head| spec.rope.head_frequencies((b, head), head_dim, 1);
    let first = frequencies(0, 0);
    for (b, block) in spec.blocks.iter().enumerate() {
        if let Some(head) = (0..block.kv_heads).find(|head| frequencies(b, *head) != first) {
            return Err(Unsupported::KeptPairs { block: b, head });
        }
    }
    Ok(factors(spec.rope.theta, &first))
}

/// What plain frequencies are divided by to become these; nothing where that is one everywhere.
fn factors(theta: f64, frequencies: &[f64]) -> Rotation {
    let pairs = frequencies.len() as f64;
    let plain = |i: usize| theta.powf(-(i as f64) / pairs);
    let divisors: Vec<f32> =
        frequencies.iter().enumerate().map(|(i, f)| (plain(i) / f) as f32).collect();
    let ones = divisors.iter().all(|d| (d - 1.0).abs() <= f32::EPSILON);
    if ones { Rotation::Plain } else { Rotation::Factors(divisors) }
}

/// llama.cpp makes the ramp anew, of whole pairs, from the original positions and two numbers of
/// turns. The usual ones (32 and 1) are left out; else they are chosen in the middle between those
/// that give the pairs next to the ramp's.
fn yarn(
    rope: &Rope,
    head_dim: usize,
    (factor, (from, to), attention): (f64, (f64, f64), f64),
) -> Result<Rotation, Unsupported> {
    use std::f64::consts::PI;
    let dim = head_dim as f64;
    // A ramp of no length is given a thousandth; llama.cpp does so, too.
    let to = if to - from < 0.01 { from } else { to };
    if !near(from, from.round()) || !near(to, to.round()) {
        return Err(Unsupported::YarnRamp { from, to });
    }
    let pair = |original: f64, turns: f64| {
        dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * rope.theta.ln())
    };
    let usual = |original: f64| {
        let (low, high) = (pair(original, 32.0).floor(), pair(original, 1.0).ceil());
        near(low.max(0.0), from) && near(high.min(dim - 1.0), to)
    };
    let positions = rope.max_positions as f64;
    let candidates = [(positions / factor).round().max(1.0), positions];
    let computed = 1.0 + 0.1 * factor.ln();
    let attention = (!near(attention, computed)).then_some(attention / computed);
    let found = candidates.into_iter().find(|original| usual(*original));
    let original = found.unwrap_or(positions);
    let turns = |pair: f64| original / (2.0 * PI) * rope.theta.powf(-2.0 * pair / dim);
    let betas = found.is_none().then(|| (turns(from + 0.5), turns(to - 0.5)));
    Ok(Rotation::Yarn { factor, original: original as u64, betas, attention })
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}
