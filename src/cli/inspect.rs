//! `milm-compress inspect`: what a model consists of.
use super::{Context, Outcome, output};
use crate::{
    package::{self, Inspection},
    shown::line,
};
use comfy_table::{CellAlignment, Table, presets};
use std::path::Path;

/// Show architecture, parameters, bytes and weight outliers of a model
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress inspect builtin:milm-mini\n  \
    milm-compress inspect model.gguf\n  \
    milm-compress inspect ./package --json")]
pub(super) struct Args {
    /// Checkpoint, package, GGUF file, or builtin:milm-mini
    path: String,
    /// Print everything as JSON, each tensor too
    #[arg(long)]
    json: bool,
    /// Take the outlier statistics from all weights, not from some 256 million
    #[arg(long)]
    full: bool,
}

/// Weights that the statistics are taken from unless all are asked for.
const SAMPLE: u64 = 1 << 28;

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let sample = if args.full { u64::MAX } else { SAMPLE };
    let (team, progress) = (&context.team, context.progress());
    let found = package::inspect(&args.path, sample, team, progress)?;
    if args.json {
        let mut value = serde_json::to_value(&found.figures)?;
        value["model"] = args.path.clone().into();
        value["kind"] = found.kind.into();
        output::json(Path::new("-"), &value, context)?;
    } else {
        output::text(&table(&args.path, &found.figures))?;
    }
    Ok(Outcome::Done)
}

fn table(path: &str, found: &Inspection) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "role",
        "tensors",
        "parameters",
        "MB",
        "bits",
        "stored",
        "max/rms",
        "kurtosis",
        "beyond 6 rms",
    ]);
    for role in &found.roles {
        table.add_row([
            role.role.clone(),
            role.tensors.to_string(),
            role.parameters.to_string(),
            format!("{:.2}", role.bytes as f64 / 1e6),
            format!("{:.3}", role.bits_per_weight),
            line(&role.stored.join(", ")).into_owned(),
            format!("{:.1}", role.max_over_rms),
            format!("{:.1}", role.kurtosis),
            format!("{:.1e}", role.beyond_6_rms),
        ]);
    }
    for column in [1, 2, 3, 4, 6, 7, 8] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let tied = if found.tied { "tied head" } else { "own head" };
    let mut text = vec![format!(
        "{}: {}, {} blocks of width {}, vocabulary {}, {tied}\n\
         {} parameters, {:.2} MB, {:.3} bits per weight\n\n{table}\n",
        line(path),
        line(&found.architecture),
        found.blocks,
        found.hidden,
        found.vocab,
        found.parameters,
        found.bytes as f64 / 1e6,
        found.bits_per_weight
    )];
    if found.sampled < 0.999 {
        text.push(format!(
            "\nmax/rms, kurtosis and outliers: from {:.1} % of the weights (--full takes all)\n",
            found.sampled * 100.0
        ));
    }
    if !found.carried.is_empty() {
        text.push(format!(
            "\nnot of the architecture: {}\n",
            found.carried.iter().map(|it| line(it)).collect::<Vec<_>>().join(", ")
        ));
    }
    text.concat()
}
