//! Architectures of llama.cpp, and which of them can say a model.
//!
//! Add one: a variant of [`Arch`], its name and rotation, and a case in [`accepts`].
use super::{error::Unsupported, experts};
use crate::model::{Block, Mlp, ModelSpec, Part, Role, Rope, RopeScaling};

/// `general.architecture` of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Llama, Mistral, Mixtral; with biases whatever Qwen2 is.
    Llama,
    /// As Llama, but blocks may differ in heads and widths.
    Deci,
    /// Biases on queries, keys and values; heads fill the residual stream exactly.
    Qwen2,
    /// Queries and keys are normalized per head.
    Qwen3,
    /// Qwen2 with routed experts and a shared one behind a gate.
    Qwen2Moe,
    /// Qwen3 with routed experts.
    Qwen3Moe,
}

impl Arch {
    /// Every architecture.
    pub const ALL: [Self; 6] =
        [Self::Llama, Self::Qwen2, Self::Qwen3, Self::Deci, Self::Qwen2Moe, Self::Qwen3Moe];

    /// Name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Deci => "deci",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen2Moe => "qwen2moe",
            Self::Qwen3Moe => "qwen3moe",
        }
    }

    /// The architecture of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.name() == name)
    }

    /// Whether the rows of queries and keys are interleaved: llama.cpp rotates neighbours for this
    /// architecture, where Hugging Face rotates halves. Frequency factors are read there only.
    pub fn interleaved(self) -> bool {
        matches!(self, Self::Llama | Self::Deci)
    }
}

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

/// The architecture under which stock llama.cpp computes what the model computes. A function of
/// shapes and switches alone: it can be asked before there are weights.
///
/// Sliding windows are written but llama.cpp does not look at them in these architectures: up to
/// the window's length it computes the same. Everything else that it cannot say is an error.
pub fn accepts(spec: &ModelSpec) -> Result<Arch, Unsupported> {
    let Some(first) = spec.blocks.first() else { return Err(Unsupported::NoBlocks) };
    online(spec)?;
    for (b, block) in spec.blocks.iter().enumerate() {
        if block.head_dim != first.head_dim {
            let (first, found) = (first.head_dim, block.head_dim);
            return Err(Unsupported::HeadWidths { block: b, first, found });
        }
        if block.window != first.window {
            return Err(Unsupported::Windows { block: b });
        }
    }
    let sizes = |b: &Block| (b.heads, b.kv_heads, b.mlp.clone());
    let differing = spec.blocks.iter().position(|b| sizes(b) != sizes(first));
    let factors = matches!(rotation(spec)?, Rotation::Factors(_));
    let mixture = spec.blocks.iter().any(|b| matches!(b.mlp, Mlp::Experts { .. }));
    let normed = spec.blocks.iter().any(|b| b.qk_norm);
    if normed {
        if let Some(block) = differing.filter(|_| !mixture) {
            return Err(Unsupported::NormedBlocksDiffer { block });
        }
        if factors {
            return Err(Unsupported::NormedFactors);
        }
        if let Some(bias) = spec.tensors.iter().find(|t| t.part == Part::Bias) {
            return Err(Unsupported::NormedBias { tensor: bias.name.clone() });
        }
    }
    if mixture {
        return experts::accepts(spec, differing, factors);
    }
    if normed {
        return Ok(Arch::Qwen3);
    }
    if differing.is_some() {
        return Ok(Arch::Deci);
    }
    let has = |role| spec.find(Some(0), role, None, Part::Bias).is_some();
    let qwen2 = has(Role::Q) && !has(Role::O) && !has(Role::Gate);
    let fills = first.heads * first.head_dim == spec.hidden;
    Ok(if qwen2 && fills && !factors { Arch::Qwen2 } else { Arch::Llama })
}

/// Rotations that are left to the forward pass cannot be said.
fn online(spec: &ModelSpec) -> Result<(), Unsupported> {
    let Some(transformed) = &spec.transformed else { return Ok(()) };
    for (there, what, flag) in [
        (
            transformed.head_correction,
            "a matrix stands between the last norm and the head",
            "--tied-head correction (--tied-head untie)",
        ),
        (
            transformed.down_input,
            "the inputs of down projections are rotated at run time",
            "--rotate-down",
        ),
        (transformed.keys, "queries and keys are rotated at run time", "--rotate-keys"),
    ] {
        if there {
            return Err(Unsupported::Online { what, flag });
        }
    }
    Ok(())
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

/// The row of the file that is row `row` of a checkpoint: in a head of width d, row i of the first
/// half stands at 2i and row i of the second half at 2i + 1.
pub(super) fn interleaved_row(row: usize, head: usize) -> usize {
    let (base, within) = (row / head * head, row % head);
    let half = head / 2;
    base + if within < half { 2 * within } else { 2 * (within - half) + 1 }
}

/// The row of a checkpoint that is row `row` of a file: the inverse of [`interleaved_row`].
pub(super) fn halved_row(row: usize, head: usize) -> usize {
    let (base, within) = (row / head * head, row % head);
    base + within / 2 + within % 2 * (head / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_rows_are_inverse() {
        let of_file: Vec<usize> = (0..8).map(|row| halved_row(row, 4)).collect();
        assert_eq!(of_file, [0, 2, 1, 3, 4, 6, 5, 7]);
        for head in [2, 6, 16] {
            for row in 0..3 * head {
                assert_eq!(interleaved_row(halved_row(row, head), head), row);
            }
        }
    }
}
