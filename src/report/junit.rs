//! `JUnit` XML, as CI systems read it: each gate is a test case.
use super::{Sheet, rows};
use std::fmt::Write;

/// A report as one test suite. Without gates it has one case that passes: the evaluation.
pub fn junit(report: &Sheet<'_>) -> String {
    let cases = report.gates.len().max(1);
    let failures = report.gates.iter().filter(|gate| !gate.passed).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<testsuites tests=\"{cases}\" failures=\"{failures}\">\n  \
         <testsuite name=\"milm-compress eval\" tests=\"{cases}\" failures=\"{failures}\" \
         errors=\"0\" skipped=\"0\">\n    <properties>"
    );
    for (name, text) in &report.figures {
        let _ =
            writeln!(out, "      <property name=\"{}\" value=\"{}\"/>", escape(name), escape(text));
    }
    out.push_str("    </properties>\n");
    let class = escape(report.model);
    if report.gates.is_empty() {
        let _ = writeln!(out, "    <testcase classname=\"{class}\" name=\"evaluation\"/>");
    }
    for gate in report.gates {
        let name = escape(&format!("{} {}", gate.gate, rows::bound(gate)));
        if gate.passed {
            let _ = writeln!(out, "    <testcase classname=\"{class}\" name=\"{name}\"/>");
            continue;
        }
        let note = gate.note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
        let message = format!("{}, measured {}{note}", rows::bound(gate), rows::value(gate));
        let message = escape(&message);
        let _ = writeln!(
            out,
            "    <testcase classname=\"{class}\" name=\"{name}\">\n      \
             <failure type=\"gate\" message=\"{message}\"/>\n    </testcase>"
        );
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

/// Text for attributes. Control characters that XML 1.0 cannot hold become `?`.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}
