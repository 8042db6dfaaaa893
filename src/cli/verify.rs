//! `milm-compress verify`: is a package what it was when it was made.
use super::{Context, Outcome, device::Device, output};
use crate::{
    package::{
        self, PackageError, Verification,
        compressed_tensors::{Refusal, vllm},
    },
    tensor::read_text,
};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Find any changed bit, missing or extra file of a package
///
/// Compares every file with the hashes of milm.json, and milm.json with its own, or with its
/// signature; --deep also decodes every weight, and --engine tells what another engine would refuse.
/// Exit code 2 when something is wrong.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  milm-compress verify ./package\n  \
    milm-compress verify ./package --deep\n  \
    milm-compress verify ./package --engine vllm\n  \
    milm-compress verify ./package --device hexagon-npu --memory 100MB\n  \
    milm-compress verify ./package --key release.pub")]
pub(super) struct Args {
    /// The package, or a GGUF file or ONNX folder that `export` wrote
    package: String,
    /// Public key that the package must be signed with, see `sign`
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Decode every weight too: finite scales, no stray bits, the values that were recorded
    #[arg(long)]
    deep: bool,
    /// Tell what an engine would refuse to load, by the rules of its sources
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    #[command(flatten)]
    device: Device,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Engines whose rules are known.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Engine {
    /// vLLM, for folders in compressed-tensors form
    Vllm,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    if let Some(key) = &args.key {
        package::check_signature(
            &args.package,
            &read_text(key, "name a key that `sign --new-key` or minisign made")?,
        )?;
        context.note("the signature of milm.json is that of the key");
    }
    let result = verified(args, context)?;
    let refusals = match args.engine.filter(|_| result.passed()) {
        Some(Engine::Vllm) => vllm(&package::open(&args.package)?),
        None => Vec::new(),
    };
    if args.json {
        let mut value = serde_json::to_value(&result)?;
        value["schema"] = 1.into();
        value["passed"] = result.passed().into();
        if args.engine.is_some() {
            value["engine"] = json!({ "name": "vllm", "refusals": refusals });
        }
        output::json(Path::new("-"), &value, context)?;
    } else if result.passed() && result.files > 0 {
        output::text(&said(args, &result))?;
    }
    if !result.passed() {
        let problems: Vec<String> = result.problems.iter().map(ToString::to_string).collect();
        anyhow::bail!(
            "`{}` is not as it was made:\n  {}\nhint: copy or make the package again",
            args.package,
            problems.join("\n  ")
        )
    }
    for refusal in refusals.iter().filter(|it| !it.always) {
        context.note(format_args!("vLLM may refuse this, by GPU and version: {refusal}"));
    }
    refuse(&args.package, &refusals)?;
    if args.device != Device::default() {
        args.device.check(&package::open(&args.package)?.model, context)?;
    }
    if args.engine.is_some() && !args.json {
        output::text(&format!("{}: vLLM has no rule against it\n", args.package))?;
    }
    Ok(Outcome::Done)
}

/// Refuses to do something with a package that is not as it was made.
pub(super) fn intact(package: &str, done: &str, context: &Context) -> anyhow::Result<()> {
    let verified = package::verify(package, &context.team, context.progress())?;
    match verified.problems.first() {
        None => Ok(()),
        Some(problem) => anyhow::bail!(
            "`{package}` is not as it was made, and is not {done}: {problem}\n\
             hint: `milm-compress verify` tells everything that has changed"
        ),
    }
}

/// The package beside its manifest. Another program's, which has none, can be asked for an engine.
fn verified(args: &Args, context: &Context) -> anyhow::Result<Verification> {
    let verify = if args.deep { package::verify_deep } else { package::verify };
    let result = match verify(&args.package, &context.team, context.progress()) {
        Err(PackageError::NoManifest { .. }) if args.engine.is_some() && !args.deep => {
            context
                .note("there is no milm.json: nothing is compared, the engine's rules are asked");
            Verification::default()
        }
        other => other?,
    };
    if !result.unpackaged.is_empty() {
        let names = result.unpackaged.join("`, `");
        context.note(format_args!(
            "`{names}` {} not of the package, and no engine reads {}: not compared",
            if result.unpackaged.len() == 1 { "is" } else { "are" },
            if result.unpackaged.len() == 1 { "it" } else { "them" },
        ));
    }
    if result.passed() && result.unrecorded > 0 {
        context.note(format_args!(
            "{} weights have no recorded hash of their values: the package is older than that",
            result.unrecorded
        ));
    }
    if result.passed() && result.uncovered {
        context.note(
            "an earlier version wrote the file: its metadata has no recorded hash and is not compared; \
             export it again to have one",
        );
    }
    Ok(result)
}

fn said(args: &Args, result: &Verification) -> String {
    let decoded = if args.deep { format!("; {} decoded", result.decoded) } else { String::new() };
    let open = if result.uncovered { "; metadata is not covered" } else { "" };
    format!(
        "{}: {} files with {} tensors, {:.1} MB, are as they were made{decoded}{open}\n",
        args.package,
        result.files,
        result.tensors,
        result.bytes as f64 / 1e6
    )
}

fn refuse(package: &str, refusals: &[Refusal]) -> anyhow::Result<()> {
    let always: Vec<String> =
        refusals.iter().filter(|it| it.always).map(ToString::to_string).collect();
    anyhow::ensure!(
        always.is_empty(),
        "vLLM would refuse `{package}`:\n  {}\nhint: in brackets stands what to change",
        always.join("\n  ")
    );
    Ok(())
}
