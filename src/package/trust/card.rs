//! The model card: what a package is, in words, from its manifest alone.
use super::{Manifest, Tool};
use crate::package::EngineFit;
use crate::shown::{code, line, markdown};
use serde_json::Value;
use std::fmt::Write;

/// The card's file name.
pub(in crate::package) const CARD_FILE: &str = "README.md";
/// The name that the source's own card gets beside it.
pub(in crate::package) const SOURCE_CARD: &str = "README.source.md";

/// The license that the front matter of a card names.
pub(in crate::package) fn license(card: &str) -> Option<String> {
    let (matter, _) = card.strip_prefix("---\n")?.split_once("\n---")?;
    let value = matter.lines().find_map(|line| line.strip_prefix("license:"))?;
    let value = value.trim().trim_matches(['"', '\'']);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
    (!value.is_empty() && value.chars().all(plain)).then(|| value.to_owned())
}

/// The card of a package; `engines` are those that its shape was compared with.
pub(in crate::package) fn card(manifest: &Manifest, engines: &[EngineFit]) -> String {
    let mut out = String::from("---\n");
    let source = &manifest.source;
    // Writing to a string cannot fail.
    let _ = writeln!(out, "license: {}", line(source.license.as_deref().unwrap_or("unknown")));
    let _ = writeln!(out, "base_model: {}", json(&source.name));
    let kind = if manifest.quantized.is_empty() { "finetune" } else { "quantized" };
    let _ = writeln!(out, "base_model_relation: {kind}\ntags:\n- milm-compress");
    if !manifest.quantized.is_empty() {
        out.push_str("- compressed-tensors\n");
    }
    let _ = writeln!(out, "---\n# {}, compressed\n", markdown(&source.name));
    let Tool { name, version } = &manifest.tool;
    let (name, version) = (markdown(name), markdown(version));
    let _ = writeln!(
        out,
        "Made by {name} {version} from `{}` (SHA-256 of its tensors `{}`); everything below is from \
         `milm.json`.\n",
        code(&source.name),
        code(&source.sha256)
    );
    sizes(&mut out, manifest);
    schemes(&mut out, manifest);
    accuracy(&mut out, manifest.evaluation.as_ref());
    out.push_str("## Engines\n\n| engine | loads it |\n| --- | --- |\n");
    for fit in engines {
        let told = fit.loads.as_ref().map_or_else(
            |reason| format!("no: {reason}"),
            |()| {
                if fit.note.is_empty() {
                    "yes".to_owned()
                } else {
                    format!("its shape: {}", fit.note)
                }
            },
        );
        let _ = writeln!(out, "| {} | {} |", fit.engine, markdown(&told));
    }
    out.push('\n');
    for form in &manifest.beyond_standard {
        let _ = writeln!(out, "- Beyond the standard: {}.", markdown(form));
    }
    let _ = writeln!(out, "\n## Recipe\n\n```json\n{:#}\n```\n", manifest.recipe);
    let _ = writeln!(
        out,
        "## License\n\nThat of the base model: {}. Files of the base model that were carried along lie \
         beside this one.\n\n## Check\n\n`milm-compress verify DIR` compares every file and tensor with \
         `milm.json`.",
        markdown(source.license.as_deref().unwrap_or("not named by its card"))
    );
    out
}

fn sizes(out: &mut String, manifest: &Manifest) {
    let bytes = manifest
        .tensors
        .values()
        .map(|it| (it.shape.iter().product::<usize>() * it.dtype.bitsize() / 8) as u64);
    let bytes: u64 = bytes.sum();
    let source = &manifest.source;
    let _ = writeln!(
        out,
        "| | base model | package |\n| --- | ---: | ---: |\n| tensors, MB | {:.2} | {:.2} |\n\
         | bits per parameter of the base model | {:.2} | {:.2} |\n\n{} parameters.\n",
        source.bytes as f64 / 1e6,
        bytes as f64 / 1e6,
        per_parameter(source.bytes, source.parameters),
        per_parameter(bytes, source.parameters),
        source.parameters
    );
}

fn per_parameter(bytes: u64, parameters: u64) -> f64 {
    bytes as f64 * 8.0 / parameters.max(1) as f64
}

/// How many weights have which scheme.
fn schemes(out: &mut String, manifest: &Manifest) {
    let mut counts = std::collections::BTreeMap::<String, (usize, u64)>::new();
    for tensor in manifest.quantized.values() {
        let activations = serde_json::to_value(tensor.scheme.activations).unwrap_or_default();
        let inputs = activations.as_str().unwrap_or_default().replace('_', " ");
        let (count, weights) = counts.entry(format!("{} | {inputs}", tensor.scheme)).or_default();
        *count += 1;
        *weights += tensor.shape.iter().map(|n| *n as u64).product::<u64>();
    }
    if counts.is_empty() {
        return;
    }
    out.push_str("| weights | inputs | matrices | parameters |\n| --- | --- | ---: | ---: |\n");
    for (scheme, (count, weights)) in counts {
        let _ = writeln!(out, "| {scheme} | {count} | {weights} |");
    }
    out.push('\n');
}

/// What an evaluation of the package told, if there was one.
fn accuracy(out: &mut String, evaluation: Option<&Value>) {
    out.push_str("## Accuracy\n\n");
    let Some(evaluation) = evaluation else {
        out.push_str("Not evaluated.\n\n");
        return;
    };
    let rows = [
        ("perplexity", "ppl"),
        ("perplexity of the base model", "ppl_reference"),
        ("mean KL divergence from it, nats", "kl_mean"),
        ("share of tokens with its first choice", "top1_agreement"),
        ("scored tokens", "tokens"),
    ];
    out.push_str("| figure | value |\n| --- | ---: |\n");
    for (name, key) in rows {
        if let Some(value) = evaluation.get(key).filter(|it| it.is_number()) {
            let _ = writeln!(out, "| {name} | {value} |");
        }
    }
    let method = |key: &str| {
        markdown(&evaluation["method"].get(key).map_or_else(String::new, Value::to_string))
    };
    let _ = writeln!(
        out,
        "\nProtocol {}, windows of {}, text {} (SHA-256 {}).\n",
        method("protocol"),
        method("ctx"),
        method("text"),
        method("data_sha256")
    );
}

/// A text as YAML takes it.
fn json(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licenses_come_from_front_matter_only() {
        let card = "---\nlanguage: en\nlicense: \"apache-2.0\"\n---\n# x\nlicense: mit\n";
        assert_eq!(license(card).as_deref(), Some("apache-2.0"));
        for other in ["# x\nlicense: mit\n", "---\nlicense:\n---\n", "---\nlicense: a\tb c\n---\n"]
        {
            assert_eq!(license(other), None, "{other:?}");
        }
    }
}
