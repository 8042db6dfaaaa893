//! Tables for the terminal.
use super::{EvalReport, rows};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

/// A report for people: at most `width` columns (without one, those of
/// the terminal, if stdout is one), green and red if `colour`.
pub fn table(report: &EvalReport, width: Option<u16>, colour: bool) -> String {
    let start = |header: &[&str]| {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = width {
            table.set_width(width);
        }
        table.set_header(header);
        table
    };
    let mut figures = start(&["figure", &report.model]);
    for (name, text) in rows::figures(report) {
        figures.add_row([name, &text]);
    }
    let mut out = format!("{}\n{}\n", lines(&figures), rows::method(report));
    if !report.gates.is_empty() {
        let mut gates = start(&["gate", "bound", "measured", ""]);
        for gate in &report.gates {
            let mut verdict = Cell::new(rows::verdict(gate.passed));
            if colour {
                verdict = verdict.fg(if gate.passed { Color::Green } else { Color::Red });
            }
            gates.add_row(vec![
                Cell::new(&gate.gate),
                Cell::new(rows::bound(gate)),
                Cell::new(rows::value(gate)),
                verdict,
            ]);
        }
        if colour {
            gates.enforce_styling();
        }
        out.push_str(&lines(&gates));
        out.push('\n');
    }
    out
}

/// The table without spaces at the ends of its lines.
fn lines(table: &Table) -> String {
    table.trim_fmt()
}
