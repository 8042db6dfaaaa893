//! `milm-compress sbom`: what a package is made of, for whoever has to account for it.
use super::{Context, Outcome, output};
use crate::package;
use std::path::PathBuf;

/// Write a bill of materials of a package
///
/// CycloneDX 1.6 (JSON) with the model, its base model and license, the recipe, every file with its
/// hash, and the texts that it was calibrated on. The same package gives the same bytes. The bill
/// stands beside the package: a file inside would be one that `verify` does not know.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress sbom ./package\n  \
    milm-compress sbom ./package -o package.cdx.json")]
pub(super) struct Args {
    /// The package
    package: String,
    /// File to write, `-` for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let bill = package::sbom(&package::open(&args.package)?)?;
    output::json(&args.output, &bill, context)?;
    Ok(Outcome::Done)
}
