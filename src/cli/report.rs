//! `milm-compress report`: one HTML page about several runs.
use super::{Context, Outcome, output};
use crate::{
    package::{MANIFEST_FILE, holds_weights},
    report::{Run, html},
    tensor::read_text,
};
use anyhow::Context as _;
use std::path::{Path, PathBuf};

/// Lay several runs out in one HTML page
///
/// A run is a package, a checkpoint, or a result: of `eval --json`, `eval --tasks` (its JSON and its
/// JSON lines) or `quantize --json`. Files with commas between them belong to one run; the first
/// run is the base of comparisons. The page needs no network and runs no scripts.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress report float=./model,float.json int4=./w4a16,int4.json -o report.html\n  \
    milm-compress report base.jsonl int8.jsonl int4.jsonl --title \"HellaSwag\" -o report.html")]
pub(super) struct Args {
    /// Files and folders of a run, with commas between them, and what it is called
    #[arg(value_name = "[NAME=]PATH[,PATH…]", required = true)]
    runs: Vec<String>,
    /// HTML file to write; `-`: stdout
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Heading of the page
    #[arg(long, default_value = "What compression cost")]
    title: String,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let runs = args.runs.iter().map(|text| read(text)).collect::<anyhow::Result<Vec<Run>>>()?;
    let page = html(&args.title, &runs)?;
    output::file_or_stdout(&args.output, &page, context)?;
    Ok(Outcome::Done)
}

const HINT: &str = "name results, packages or checkpoints";

fn read(text: &str) -> anyhow::Result<Run> {
    // A path with `=` in it is meant when it exists.
    let named = text.split_once('=').filter(|_| !Path::new(text).exists());
    let (name, paths) = named.unwrap_or_else(|| {
        let first = text.split(',').next().unwrap_or(text);
        let stem = Path::new(first).file_stem().and_then(|it| it.to_str());
        (stem.unwrap_or(first), text)
    });
    let mut run = Run::new(name);
    for path in paths.split(',') {
        add(&mut run, Path::new(path))?;
    }
    Ok(run)
}

fn add(run: &mut Run, path: &Path) -> anyhow::Result<()> {
    let unreadable = || format!("cannot read `{}`\nhint: {HINT}", path.display());
    if path.is_dir() {
        let bytes = weights(path).with_context(unreadable)?;
        run.bytes = run.bytes.or(Some(bytes).filter(|it| *it > 0));
        let manifest = path.join(MANIFEST_FILE);
        return if manifest.is_file() { add(run, &manifest) } else { Ok(()) };
    }
    if holds_weights(path) {
        run.bytes = Some(std::fs::metadata(path).with_context(unreadable)?.len());
        return Ok(());
    }
    let text = read_text(path, HINT)?;
    Ok(run.add(&path.display().to_string(), &text)?)
}

/// Bytes of a folder's files of weights.
fn weights(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if holds_weights(&entry.path()) {
            bytes += std::fs::metadata(entry.path())?.len();
        }
    }
    Ok(bytes)
}
