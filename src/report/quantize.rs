//! What adaptive rounding did.
use crate::{
    pipeline::{Allocation, Bases, Offer, Quantized, Trial, UnitLoss},
    shown::line,
    transform,
};
use std::{collections::BTreeMap, fmt::Write};

/// The layers with the largest errors and those that needed more damping, for the terminal.
pub fn quantized_text(quantized: &Quantized) -> String {
    let mut out = quantized.allocation.as_ref().map_or(String::new(), allocation_text);
    out.push_str(&trials_text(&quantized.trials));
    let notes = quantized.tuned.as_deref().unwrap_or_default();
    if let (Some(first), Some(last)) = (notes.first(), notes.last()) {
        let best = notes.iter().map(|it| it.measured).fold(f64::INFINITY, f64::min);
        let _ = writeln!(
            out,
            "scales tuned over {} tokens: KL divergence {:.4} before, {best:.4} kept (held-out text)",
            last.tokens, first.measured
        );
    }
    if let Some((loss, divergence)) =
        quantized.loss.as_ref().and_then(|it| Some((it, it.divergence.as_ref()?)))
    {
        let _ = writeln!(
            out,
            "on held-out calibration text: KL divergence {:.4}, perplexity {:.2} for {:.2}, {} tokens",
            divergence.kl_mean.value,
            loss.perplexity.value,
            divergence.reference.value,
            loss.tokens
        );
    }
    if let Some(worst) = &quantized.worst {
        let _ = writeln!(
            out,
            "worst layer: {}, relative error {:.4} of its output over {} calibration tokens",
            line(&worst.tensor),
            worst.error,
            worst.tokens
        );
    }
    for layer in quantized.layers.iter().filter(|it| it.raised > 0) {
        let _ =
            writeln!(out, "{}: damping had to be raised to {}", line(&layer.tensor), layer.damping);
    }
    for layer in quantized.layers.iter().filter(|it| it.nearest) {
        let _ = writeln!(
            out,
            "{}: rounded to nearest, it saw {} calibration tokens",
            line(&layer.tensor),
            layer.tokens
        );
    }
    out
}

/// What an engine costs a quantization before it begins: coordinates that are given up, engines that
/// do not load the model in any.
pub fn bases_text(bases: &Bases) -> String {
    let mut out = String::new();
    for Offer { transform, refused } in &bases.offers {
        if let Some(reason) = refused {
            let rotation = rotation(transform);
            let _ = writeln!(out, "{rotation} is given up: {} (--for milm)", line(reason));
        }
    }
    for note in &bases.notes {
        let _ = writeln!(out, "note: {}", line(note));
    }
    out
}

fn rotation(transform: &transform::Settings) -> String {
    let online = if transform.rotate_down == Some(true) { " and before down" } else { "" };
    format!("rotation {}{online}", transform.kind().name())
}

/// Which coordinates were tried, the chosen ones marked.
fn trials_text(trials: &[Trial]) -> String {
    let taken = trials.iter().filter(|it| it.refused.is_none());
    let least = taken.map(|it| it.error).fold(f64::INFINITY, f64::min);
    let mut out = String::new();
    for Trial { transform, error, refused, .. } in trials {
        let rotation = rotation(transform);
        let chosen = match refused {
            Some(reason) => format!(", not taken: {} (--for milm)", line(reason)),
            None if *error <= least => ", taken".to_owned(),
            None => String::new(),
        };
        let _ = writeln!(out, "{rotation}: error {error:.5} in trial{chosen}");
    }
    out
}

/// How a budget was spread: what each scheme got, and the units of the largest losses.
fn allocation_text(allocation: &Allocation) -> String {
    let mut out = format!(
        "{:.2} MB of a budget of {:.2} MB ({:.3} bits per weight), spread by losses on {} tokens:\n",
        allocation.bytes as f64 / 1e6,
        allocation.budget as f64 / 1e6,
        allocation.bits_per_weight,
        allocation.tokens
    );
    let mut schemes: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for unit in &allocation.units {
        let (units, weights) = schemes.entry(&unit.scheme).or_default();
        (*units, *weights) = (*units + 1, *weights + unit.weights);
    }
    for (scheme, (units, weights)) in schemes {
        let _ = writeln!(out, "  {scheme}: {units} units, {:.2} M weights", weights as f64 / 1e6);
    }
    let loss = |unit: &UnitLoss| {
        let choice = unit.choices.iter().find(|it| it.scheme == unit.scheme);
        choice.map_or(0.0, |it| it.loss)
    };
    let mut worst: Vec<(f64, &UnitLoss)> =
        allocation.units.iter().map(|it| (loss(it), it)).collect();
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (loss, unit) in worst.iter().take(3) {
        let _ = writeln!(out, "  {} at {}: loss {loss:.2e} nats", line(&unit.unit), unit.scheme);
    }
    out
}
