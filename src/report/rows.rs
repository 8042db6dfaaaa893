//! What tables show, as names and texts.
use super::{EvalReport, Yardstick};
use crate::eval::{Perplexity, Ratio};

/// A figure by name, as text.
pub(super) type Row = (&'static str, String);

/// Four significant digits: 0.00312 shows as 0.003120.
pub(super) fn digits(value: f64) -> String {
    significant(value, 4)
}

fn significant(value: f64, count: i32) -> String {
    if value.abs() < f64::MIN_POSITIVE {
        return "0".into();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs().log10().floor() as i32;
    if (-5..7).contains(&magnitude) {
        format!("{value:.*}", (count - 1 - magnitude).max(0) as usize)
    } else {
        format!("{value:.3e}")
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn shared(share: f64, interval: Option<[f64; 2]>) -> String {
    let ends = interval.map(|ends| ends.map(|end| format!("{:.2}", 100.0 * end)));
    let ends = ends.map(|[low, high]| format!(" (95 %: {low} to {high} %)"));
    percent(share) + &ends.unwrap_or_default()
}

fn with_error(value: f64, error: Option<f64>) -> String {
    match error {
        Some(error) => format!("{} ± {}", digits(value), significant(error, 2)),
        None => digits(value),
    }
}

/// All figures of a report, the main ones first.
pub(super) fn figures(report: &EvalReport) -> Vec<Row> {
    let perplexity = report.figures.perplexity;
    // Other tools' perplexities are quoted with five digits.
    let shown = |it: &Perplexity| {
        let error = it.standard_error.map(|error| format!(" ± {}", significant(error, 2)));
        significant(it.value, 5) + &error.unwrap_or_default()
    };
    let mut rows = vec![("perplexity", shown(&perplexity))];
    if let Some(words) = report.per_word {
        rows.push(("word perplexity", digits(words.word_perplexity)));
        rows.push(("bits per byte", digits(words.bits_per_byte)));
    }
    let Some(against) = report.figures.divergence else { return rows };
    let ratio = against.ppl_ratio;
    let interval = match (ratio.low, ratio.high) {
        (Some(low), Some(high)) => format!(" (95 %: {low:.4} to {high:.4})"),
        _ => String::new(),
    };
    if let Some(yardstick) = &report.yardstick {
        rows.push(("loss reduction", reduction(yardstick)));
    }
    let (kl, dp) = (against.kl, against.dp);
    let probability = |value: f64| format!("{:+.2} %", 100.0 * value);
    rows.extend([
        ("reference perplexity", shown(&against.reference)),
        ("perplexity ratio", format!("{:.4}{interval}", ratio.value)),
        ("KL mean", with_error(against.kl_mean.value, against.kl_mean.standard_error)),
        (
            "KL median, 90, 99, 99.9 %, max",
            [kl.median, kl.p90, kl.p99, kl.p99_9, kl.max].map(digits).join(", "),
        ),
        ("top-1 agreement", shared(against.top1_agreement, against.top1_interval)),
        ("top-5 agreement", shared(against.top5_agreement, against.top5_interval)),
        (
            "Δp of the right token, mean and RMS",
            format!("{}, {}", probability(against.dp_mean), percent(against.dp_rms)),
        ),
        (
            "Δp 1, 10, 50, 90, 99 %",
            [dp.p1, dp.p10, dp.median, dp.p90, dp.p99].map(probability).join(", "),
        ),
    ]);
    rows
}

/// How much less is lost than by another package.
fn reduction(yardstick: &Yardstick) -> String {
    let share = |ratio: Ratio| {
        let ends = ratio.low.zip(ratio.high);
        let ends =
            ends.map(|(low, high)| format!(" (95 %: {:.1} to {:.1} %)", 100.0 * low, 100.0 * high));
        format!("{:.1} %{}", 100.0 * ratio.value, ends.unwrap_or_default())
    };
    let Yardstick { model, kl_mean, reduction } = yardstick;
    format!(
        "KL {}, log-perplexity {} less than `{model}` (KL {})",
        share(reduction.kl),
        share(reduction.log_perplexity),
        kl_mean.map_or_else(|| "?".into(), digits)
    )
}

/// How it was measured, in words.
pub(super) fn method(report: &EvalReport) -> String {
    let method = &report.method;
    let bos = serde_json::to_value(method.bos).ok();
    let stride = method.stride.map(|stride| format!(", stride {stride}")).unwrap_or_default();
    let undefined = match report.undefined {
        0 => String::new(),
        count => format!(" ({count} of them with NaN or no distribution: no gate passes)"),
    };
    format!(
        "protocol {}, {} windows of {}{stride}, {} scored tokens{undefined}, BOS {}, {}, text {}",
        method.protocol,
        method.windows,
        method.ctx,
        report.tokens,
        bos.as_ref().and_then(|it| it.as_str()).unwrap_or("none"),
        method.backend,
        method.data_sha256.get(..12).unwrap_or(&method.data_sha256),
    )
}

/// A gate's bound as text: `≤ 0.05`.
pub(super) fn bound(gate: &crate::eval::GateResult) -> String {
    let sign = if gate.gate.starts_with("min") { '≥' } else { '≤' };
    format!("{sign} {}", gate.limit)
}

/// A gate's value as text: with all its digits, since it is compared with all of them.
pub(super) fn value(gate: &crate::eval::GateResult) -> String {
    let value = gate.value.map_or_else(|| "not a number".into(), |value| value.to_string());
    match gate.interval {
        Some([low, high]) => format!("{value} (95 %: {low:.4} to {high:.4})"),
        None => value,
    }
}

/// What readers should know of gates, each once.
pub(super) fn notes(gates: &[crate::eval::GateResult]) -> impl Iterator<Item = (&str, &str)> {
    gates.iter().filter_map(|gate| Some((gate.gate.as_str(), gate.note.as_deref()?)))
}

/// A gate's end in a word.
pub(super) fn verdict(passed: bool) -> &'static str {
    if passed { "passed" } else { "FAILED" }
}
