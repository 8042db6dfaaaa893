//! Markdown, for comments on merge requests and summaries of CI.
use super::{Sheet, rows};
use crate::shown::{code, markdown as cell};
use std::fmt::Write;

/// A report as a heading and tables.
pub fn markdown(report: &Sheet<'_>) -> String {
    let mut out = String::new();
    let verdict = match (report.gates.is_empty(), report.passed) {
        (true, _) => "measured",
        (false, true) => "passed",
        (false, false) => "FAILED",
    };
    // Writing to a string cannot fail.
    let _ = writeln!(out, "### `{}`: {verdict}\n", code(report.model));
    if let Some(reference) = report.reference {
        let _ = writeln!(out, "Against `{}`.\n", code(reference));
    }
    out.push_str("| figure | value |\n| --- | --- |\n");
    for (name, text) in &report.figures {
        let _ = writeln!(out, "| {} | {} |", cell(name), cell(text));
    }
    if !report.gates.is_empty() {
        out.push_str("\n| gate | bound | measured | |\n| --- | --- | --- | --- |\n");
        for gate in report.gates {
            let (bound, value) = (rows::bound(gate), rows::value(gate));
            let verdict = rows::verdict(gate.passed);
            let _ = writeln!(out, "| {} | {bound} | {value} | {verdict} |", cell(&gate.gate));
        }
        for (gate, note) in rows::notes(report.gates) {
            let _ = writeln!(out, "\n`{}`: {}.", code(gate), cell(note));
        }
    }
    let _ = writeln!(out, "\n{}", cell(&report.method));
    out
}
