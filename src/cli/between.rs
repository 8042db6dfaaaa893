//! The pruned checkpoint `OUTPUT.pruned` that a recipe keeps between its first two steps.
use super::Context;
use crate::{
    checkpoint::{CheckpointError, Folder, OutputDir, difference},
    package::Manifest,
};
use anyhow::Context as _;
use serde_json::Value;
use std::path::Path;

/// The key in its manifest's recipe that names the output that it is made for.
pub(super) const MADE_FOR: &str = "made-for";

/// That name, without the folders above it.
pub(super) fn shown(output: &Path) -> Value {
    output.file_name().unwrap_or_default().to_string_lossy().into()
}

/// One of an earlier run is replaced on request; a folder that happens to have its name is not.
pub(super) fn check(between: &Path, output: &Path, context: &Context) -> anyhow::Result<()> {
    if between.symlink_metadata().is_err() {
        return Ok(());
    }
    let name = between.display();
    anyhow::ensure!(
        context.force,
        "`{name}` exists: the pruned checkpoint of an earlier run\n\
         hint: go on from it with --resume, or start anew with --force"
    );
    let manifest = Folder::open(&between.to_string_lossy()).map(|it| Manifest::read(&it));
    let made_for = manifest.ok().and_then(Result::ok).flatten();
    anyhow::ensure!(
        made_for.is_some_and(|it| it.recipe[MADE_FOR] == shown(output)),
        "`{name}` would hold the pruned checkpoint, and is not one of an earlier run for this \
         output: it is not replaced\nhint: choose another --output, or move it away"
    );
    Ok(OutputDir::check(between, true)?)
}

/// A pruned checkpoint that is there was made from the same model, text and settings.
pub(super) fn check_same(folder: &Path, step: &Value) -> anyhow::Result<()> {
    let name = folder.to_string_lossy();
    let manifest = Manifest::read(&Folder::open(&name)?)?;
    let manifest = manifest.with_context(|| format!("`{name}` was not made by this program"))?;
    let path = folder.to_owned();
    match difference(&manifest.recipe["step"][0], step) {
        None => Ok(()),
        Some((what, begun, now)) => {
            Err(CheckpointError::OtherWork { path, what, begun, now }.into())
        }
    }
}
