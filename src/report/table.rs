//! Tables for the terminal.
use super::{Sheet, rows};
use crate::{eval::GateResult, shown::line};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

/// A report for people: at most `width` columns (without one, those of the terminal, if stdout is
/// one), green and red if `colour`.
pub fn table(sheet: &Sheet<'_>, width: Option<u16>, colour: bool) -> String {
    let mut figures = start(width, &["figure", &line(sheet.model)]);
    for (name, text) in &sheet.figures {
        figures.add_row([line(name), line(text)]);
    }
    let gates = gates_table(sheet.gates, width, colour);
    format!("{}\n{}\n{gates}", figures.trim_fmt(), line(&sheet.method))
}

/// The gates and their ends; nothing without gates.
pub fn gates_table(gates: &[GateResult], width: Option<u16>, colour: bool) -> String {
    if gates.is_empty() {
        return String::new();
    }
    let mut table = start(width, &["gate", "bound", "measured", ""]);
    for gate in gates {
        let mut verdict = Cell::new(rows::verdict(gate.passed));
        if colour {
            verdict = verdict.fg(if gate.passed { Color::Green } else { Color::Red });
        }
        table.add_row(vec![
            Cell::new(line(&gate.gate)),
            Cell::new(rows::bound(gate)),
            Cell::new(rows::value(gate)),
            verdict,
        ]);
    }
    if colour {
        table.enforce_styling();
    }
    let notes = rows::notes(gates).map(|(gate, note)| format!("{}: {}\n", line(gate), line(note)));
    format!("{}\n{}", table.trim_fmt(), notes.collect::<String>())
}

fn start(width: Option<u16>, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    table.set_header(header);
    table
}
