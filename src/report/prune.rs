//! What pruning will do, and what it did.
use super::rows::digits;
use crate::{
    package::EngineFit,
    pipeline::{Cost, Pruned},
    prune::{BlockShape, Plan, Size},
    shown::line,
};
use comfy_table::{Cell, CellAlignment, Table, presets};
use std::fmt::Write;

/// A plan and the engines that load its result, for people.
pub fn pruning_plan(plan: &Plan, engines: &[EngineFit]) -> String {
    let mut out = grid(&["", "before", "after", "kept"], &sizes(plan));
    for fit in engines {
        let note = if fit.note.is_empty() { String::new() } else { format!(" ({})", fit.note) };
        let _ = match &fit.loads {
            Ok(()) => writeln!(out, "{}: loads it{note}", fit.engine),
            Err(reason) => writeln!(out, "{}: does not: {}", fit.engine, line(reason)),
        };
    }
    for note in &plan.notes {
        let _ = writeln!(out, "note: {}", line(note));
    }
    out
}

/// What was done and what it cost, for the terminal.
pub fn pruning_table(pruned: &Pruned) -> String {
    let mut out = grid(&["", "before", "after", "kept"], &sizes(&pruned.plan));
    for cost in &pruned.costs {
        out.push('\n');
        out.push_str(&grid(&[&cost.text, "float", "cut", "repaired"], &figures(cost)));
    }
    out + &worst(pruned)
}

/// The same as Markdown.
pub fn pruning_markdown(pruned: &Pruned) -> String {
    let mut out = String::from("### Pruned\n\n");
    out.push_str(&pipes(&["", "before", "after", "kept"], &sizes(&pruned.plan)));
    for cost in &pruned.costs {
        out.push('\n');
        out.push_str(&pipes(&[&cost.text, "float", "cut", "repaired"], &figures(cost)));
    }
    out + "\n" + &worst(pruned)
}

type Rows = Vec<[String; 4]>;

/// Shapes and sizes before and after.
fn sizes(plan: &Plan) -> Rows {
    let Size { by_role, .. } = &plan.before;
    let mut rows = Rows::new();
    let widths = |shapes: &[BlockShape], of: &dyn Fn(&BlockShape) -> usize| {
        let all: Vec<usize> = shapes.iter().map(of).collect();
        match (all.iter().min(), all.iter().max()) {
            (Some(low), Some(high)) if low < high => format!("{low} to {high}"),
            (Some(width), _) => width.to_string(),
            _ => String::new(),
        }
    };
    let mut width = |name: &str, of: &dyn Fn(&BlockShape) -> usize| {
        let (before, after) = (widths(&plan.original, of), widths(&plan.blocks, of));
        rows.push([name.into(), before, after, String::new()]);
    };
    width("heads", &|shape| shape.heads);
    width("key/value heads", &|shape| shape.kv_heads);
    width("width of a head", &|shape| shape.head_dim);
    width("hidden units", &|shape| shape.mlp.values().copied().max().unwrap_or(0));
    let (original, blocks) = (plan.original.len(), plan.blocks.len());
    rows.push(["layers".into(), original.to_string(), blocks.to_string(), String::new()]);
    let mut share = |name: String, before: u64, after: u64| {
        let kept = format!("{:.1} %", 100.0 * after as f64 / before.max(1) as f64);
        rows.push([name, grouped(before), grouped(after), kept]);
    };
    let (before, after) = (&plan.before, &plan.after);
    share("parameters".into(), before.parameters, after.parameters);
    let inner = |size: &Size| size.parameters - size.ends;
    share("  beside the embeddings".into(), inner(before), inner(after));
    for (role, count) in by_role {
        share(format!("  {role}"), *count, after.by_role.get(role).copied().unwrap_or(0));
    }
    share("bytes".into(), before.bytes, after.bytes);
    share("KV bytes per token".into(), before.kv_bytes_per_token, after.kv_bytes_per_token);
    let context = before.context;
    share(format!("FLOPs per token at {context}"), before.flops_per_token, after.flops_per_token);
    rows
}

/// Figures of the float model, of the cut and of the repaired one.
fn figures(cost: &Cost) -> Rows {
    let (cut, repaired) = (&cost.before_repair, &cost.after_repair);
    let (Some(of_cut), Some(of_repaired)) = (&cut.divergence, &repaired.divergence) else {
        return Rows::new();
    };
    let row = |name: &str, float: Option<f64>, cut: f64, repaired: f64| {
        [name.to_owned(), float.map_or(String::new(), digits), digits(cut), digits(repaired)]
    };
    let percent = |share: f64| 100.0 * share;
    vec![
        row(
            "perplexity",
            Some(of_cut.reference.value),
            cut.perplexity.value,
            repaired.perplexity.value,
        ),
        row("KL divergence", None, of_cut.kl_mean.value, of_repaired.kl_mean.value),
        row(
            "same first choice, %",
            None,
            percent(of_cut.top1_agreement),
            percent(of_repaired.top1_agreement),
        ),
    ]
}

/// The layer that is furthest from what it should give.
fn worst(pruned: &Pruned) -> String {
    let raised = pruned.refits.iter().filter(|refit| refit.raised > 0);
    let mut out = String::new();
    for refit in raised {
        let (tensor, damping) = (&refit.tensor, refit.damping);
        let _ = writeln!(out, "{}: damping had to be raised to {damping}", line(tensor));
    }
    if let Some(refit) = &pruned.worst {
        let _ = writeln!(
            out,
            "worst layer: {}, relative error {} as cut, {} repaired (over the calibration tokens)",
            refit.tensor,
            digits(refit.error_before),
            digits(refit.error_after)
        );
    }
    out
}

/// 1234567 as `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

pub(super) fn grid(header: &[&str; 4], rows: &Rows) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let right = |text: &str| Cell::new(text).set_alignment(CellAlignment::Right);
    let cells =
        |row: [&str; 4]| vec![Cell::new(row[0]), right(row[1]), right(row[2]), right(row[3])];
    table.set_header(cells(*header));
    for [name, a, b, c] in rows {
        table.add_row(cells([name, a, b, c]));
    }
    table.trim_fmt() + "\n"
}

fn pipes(header: &[&str; 4], rows: &Rows) -> String {
    let mut out = format!("| {} |\n| --- | ---: | ---: | ---: |\n", header.join(" | "));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.join(" | ").trim());
    }
    out
}
