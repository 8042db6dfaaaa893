//! `milm-compress verify`: is a package what it was when it was made.
use super::{Context, Outcome, output};
use crate::package;
use std::path::Path;

/// Find any changed bit, missing or extra file of a package
///
/// Compares every file with the hashes of milm.json, and milm.json with its own. Exit code 2 when
/// something is wrong.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  milm-compress verify ./package")]
pub(super) struct Args {
    /// The package
    package: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let result = package::verify(&args.package, &context.team, context.progress())?;
    if args.json {
        let mut value = serde_json::to_value(&result)?;
        value["schema"] = 1.into();
        value["passed"] = result.passed().into();
        output::json(Path::new("-"), &value, context)?;
    } else if result.passed() {
        output::text(&format!(
            "{}: {} files with {} tensors, {:.1} MB, are as they were made\n",
            args.package,
            result.files,
            result.tensors,
            result.bytes as f64 / 1e6
        ))?;
    }
    if result.passed() {
        return Ok(Outcome::Done);
    }
    let problems: Vec<String> = result.problems.iter().map(ToString::to_string).collect();
    anyhow::bail!(
        "`{}` is not as it was made:\n  {}\nhint: copy or make the package again",
        args.package,
        problems.join("\n  ")
    )
}
