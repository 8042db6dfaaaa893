//! What code hosts show beside a change: workflow commands of GitHub, code quality of GitLab.
use super::{Sheet, rows};
use crate::{checkpoint::sha256, eval::GateResult};
use serde_json::json;

fn told(gate: &GateResult) -> String {
    let note = gate.note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
    format!("{} {}, measured {}{note}", gate.gate, rows::bound(gate), rows::value(gate))
}

/// A workflow command of GitHub Actions per failed gate (`error`), and per gate whose sample is too
/// small (`warning`); one `notice` when all are passed.
pub fn github(sheet: &Sheet<'_>) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let title = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let line = |level: &str, name: &str, text: &str| {
        format!("::{level} title={}::{}: {}\n", title(name), data(sheet.model), data(text))
    };
    let told = sheet.gates.iter().filter_map(|gate| match (gate.passed, &gate.note) {
        (false, _) => Some(line("error", &format!("gate {} failed", gate.gate), &told(gate))),
        (true, Some(_)) => Some(line("warning", &format!("gate {}", gate.gate), &told(gate))),
        (true, None) => None,
    });
    let mut out: String = told.collect();
    if sheet.passed && !sheet.gates.is_empty() {
        out += &line("notice", "gates passed", &format!("all of {}", sheet.gates.len()));
    }
    out
}

/// GitLab's code quality report: an issue per failed gate, placed at `path`, the file that holds
/// the gates or the recipe.
pub fn code_quality(sheet: &Sheet<'_>, path: &str) -> String {
    let failed = sheet.gates.iter().filter(|gate| !gate.passed);
    let issues: Vec<serde_json::Value> = failed
        .map(|gate| {
            json!({
                "description": format!("{}: {}", sheet.model, told(gate)),
                "check_name": gate.gate,
                "fingerprint": sha256(format!("{} {}", sheet.model, gate.gate).as_bytes()),
                "severity": "critical",
                "location": { "path": path, "lines": { "begin": 1 } },
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(issues))
}
