//! What was learnt.
use super::prune::grid;
use super::rows::digits;
use crate::pipeline::{Gain, LearntHeads, Recovered};
use std::fmt::Write;

/// What was learnt and what it gained, for the terminal.
pub fn recovery_table(recovered: &Recovered) -> String {
    let mut out = String::new();
    if !recovered.blocks.is_empty() {
        let mean = |of: &dyn Fn(&crate::train::BlockLoss) -> f64| {
            recovered.blocks.iter().map(of).sum::<f64>() / recovered.blocks.len() as f64
        };
        let _ = writeln!(
            out,
            "blocks: squared distance to the parent's streams, mean over {} blocks: {} → {}",
            recovered.blocks.len(),
            digits(mean(&|it| it.before)),
            digits(mean(&|it| it.after))
        );
    }
    if !recovered.whole.is_empty() {
        let row = |noted: &crate::train::Noted| {
            let learnt = noted.learnt.map_or(String::new(), digits);
            [noted.tokens.to_string(), learnt, digits(noted.measured), String::new()]
        };
        let rows: Vec<_> = recovered.whole.iter().map(row).collect();
        out.push_str(&grid(&["tokens", "KL, learnt from", "KL, held out", ""], &rows));
    }
    for gain in &recovered.gains {
        out.push('\n');
        out.push_str(&grid(&[&gain.text, "parent", "before", "recovered"], &figures(gain)));
    }
    out
}

/// Figures of the parent, of the model as it was and as it is.
fn figures(gain: &Gain) -> Vec<[String; 4]> {
    let (Some(before), Some(after)) = (&gain.before.divergence, &gain.after.divergence) else {
        return Vec::new();
    };
    let row = |name: &str, parent: Option<f64>, before: f64, after: f64| {
        [name.to_owned(), parent.map_or(String::new(), digits), digits(before), digits(after)]
    };
    let (cut, recovered) = (gain.before.perplexity.value, gain.after.perplexity.value);
    vec![
        row("perplexity", Some(before.reference.value), cut, recovered),
        row("KL divergence", None, before.kl_mean.value, after.kl_mean.value),
        row(
            "same first choice, %",
            None,
            100.0 * before.top1_agreement,
            100.0 * after.top1_agreement,
        ),
    ]
}

/// What heads get right, for the terminal.
pub fn heads_table(learnt: &LearntHeads) -> String {
    let percent = |share: f64| digits(100.0 * share);
    let heads = learnt.after.right.iter().zip(&learnt.after.accepted).zip(&learnt.before.accepted);
    let rows: Vec<_> = heads
        .enumerate()
        .map(|(i, ((right, after), before))| {
            [format!("head {}", i + 1), percent(*right), percent(*before), percent(*after)]
        })
        .collect();
    let mut out = grid(&["held out, %", "right", "accepted before", "accepted"], &rows);
    let _ = writeln!(
        out,
        "tokens per pass: {} → {}",
        digits(learnt.before.tokens_per_pass),
        digits(learnt.after.tokens_per_pass)
    );
    out
}
