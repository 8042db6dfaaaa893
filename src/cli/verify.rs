//! `milm-compress verify`: is a package what it was when it was made.
use super::{Context, Outcome, output, sign::read};
use crate::package;
use std::path::{Path, PathBuf};

/// Find any changed bit, missing or extra file of a package
///
/// Compares every file with the hashes of milm.json, and milm.json with its own, or with its
/// signature. Exit code 2 when something is wrong.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  milm-compress verify ./package\n  \
    milm-compress verify ./package --key release.pub")]
pub(super) struct Args {
    /// The package
    package: String,
    /// Public key that the package must be signed with, see `sign`
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    if let Some(key) = &args.key {
        package::check_signature(&args.package, &read(key)?)?;
        context.note("the signature of milm.json is that of the key");
    }
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
