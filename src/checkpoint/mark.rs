//! What tells an output folder of this program from any other: the list of its files.
//!
//! A folder with a manifest (`milm.json`) is listed there. Every other one gets a file of its own,
//! [`MARK_FILE`], when it is complete. Only files that are listed are ever removed.
use super::{
    CheckpointError,
    place::{is_temporary, write_error},
};
use crate::tensor::read_file;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path};

/// The list of files of a folder without a manifest.
pub(super) const MARK_FILE: &str = ".milm-output.json";
/// The manifest, whose `files` are all others.
const MANIFEST: &str = "milm.json";
/// What may stand beside a manifest later.
const SIGNATURE: &str = "milm.json.minisig";
/// The largest list that is read; a manifest of 100,000 tensors has some 20 MB.
const MAX_MARK: u64 = 64 << 20;
/// Strangers that an error names.
const NAMED: usize = 5;

/// The names that a folder lists as its own, the list's last; `None` when it has no list.
fn listed(folder: &Path) -> Option<Vec<String>> {
    let read = |name: &str| -> Option<Value> {
        let path = folder.join(name);
        let own = path.symlink_metadata().is_ok_and(|it| it.is_file());
        let text = own.then(|| read_file(&path, MAX_MARK).ok()).flatten()?;
        serde_json::from_slice(&text).ok()
    };
    let tool = env!("CARGO_PKG_NAME");
    if let Some(manifest) = read(MANIFEST).filter(|it| it["tool"]["name"] == tool) {
        let mut names: Vec<String> = manifest["files"].as_object()?.keys().cloned().collect();
        names.extend([SIGNATURE, MANIFEST].map(str::to_owned));
        return Some(names);
    }
    let mark = read(MARK_FILE).filter(|it| it["tool"] == tool)?;
    let mut names: Vec<String> = serde_json::from_value(mark["files"].clone()).ok()?;
    names.push(MARK_FILE.to_owned());
    Some(names)
}

/// The text of the mark of a folder that is complete; `None` where its manifest is one.
pub(super) fn mark(folder: &Path) -> Result<Option<String>, CheckpointError> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(write_error(folder))? {
        names
            .insert(entry.map_err(write_error(folder))?.file_name().to_string_lossy().into_owned());
    }
    if names.contains(MANIFEST) {
        return Ok(None);
    }
    Ok(Some(format!("{:#}\n", json!({ "tool": env!("CARGO_PKG_NAME"), "files": names }))))
}

/// Refuses to replace what is not an output of this program, or holds something else, too.
pub(super) fn check_replaceable(folder: &Path) -> Result<(), CheckpointError> {
    let path = folder.to_owned();
    let found = folder.symlink_metadata().map_err(write_error(folder))?;
    if !found.is_dir() {
        return Err(CheckpointError::NotReplaceable { path });
    }
    let names = listed(folder).unwrap_or_default();
    refuse_strangers(folder, |name| names.iter().any(|it| it == name || is_temporary(name, it)))
}

/// Removes an output that was set aside: the files that it lists, and the folder. Without a list it
/// is one that was never complete.
pub(super) fn discard(folder: &Path) -> std::io::Result<()> {
    let Some(names) = listed(folder) else { return fs::remove_dir_all(folder) };
    let ours = |name: &str| names.iter().any(|it| it == name || is_temporary(name, it));
    remove_own(folder, ours, &[MARK_FILE, MANIFEST])
}

/// Removes the files of a folder that are `ours`, those that tell so `last`, and the folder. What
/// else came into it is kept under a name that can be seen, and told.
pub(super) fn remove_own(
    folder: &Path,
    ours: impl Fn(&str) -> bool,
    last: &[&str],
) -> std::io::Result<()> {
    let mut others = false;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (name, plain) = (entry.file_name(), entry.file_type()?.is_file());
        match name.to_str() {
            Some(name) if plain && last.contains(&name) => {}
            Some(name) if plain && ours(name) => fs::remove_file(entry.path())?,
            _ => others = true,
        }
    }
    if others {
        let kept = folder.with_file_name(kept_name(folder));
        fs::rename(folder, &kept)?;
        tracing::warn!("what else was put into the old folder is kept in `{}`", kept.display());
        return Ok(());
    }
    for name in last {
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::remove_dir(folder)
}

/// `.out.tmp-abc123` becomes `out.kept-abc123`.
fn kept_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.trim_start_matches('.').replacen(".tmp-", ".kept-", 1)
}

/// The error about entries of a folder that are not `ours`, if there are any.
pub(super) fn refuse_strangers(
    folder: &Path,
    ours: impl Fn(&str) -> bool,
) -> Result<(), CheckpointError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(write_error(folder))? {
        let entry = entry.map_err(write_error(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) || !ours(&name) {
            names.push(name);
        }
    }
    names.sort();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let path = folder.to_owned();
    if names.is_empty() { Ok(()) } else { Err(CheckpointError::Strangers { path, names, more }) }
}
