//! Compares a package with its manifest.
use crate::{
    checkpoint::{Folder, parse_safetensors, sha256},
    linalg::Team,
    package::{
        Manifest, PackageError, Problem, Verification,
        trust::{Compared, by_manifest},
    },
    progress::Progress,
    tensor::{Bytes, RawTensor},
};
use std::collections::BTreeMap;

/// Compares every file of a package, and the tensors that its files hold.
pub(super) fn verify(
    name: &str,
    team: &Team,
    progress: &dyn Progress,
) -> Result<Verification, PackageError> {
    let changed = |_: &Folder, manifest: &Manifest, file: &str, bytes: &Bytes| {
        if file.ends_with(".safetensors") {
            changed_tensors(bytes, manifest, file)
        } else {
            Vec::new()
        }
    };
    let Compared { folder, manifest, mut result } = by_manifest(name, &changed, team, progress)?;
    let manifest = manifest.filter(|it| result.passed() && it.export.is_none());
    if let Some(manifest) = manifest {
        result.problems.extend(check_tensors(&folder, &manifest)?);
    }
    Ok(result)
}

/// Names of the tensors of a file that differ from the manifest.
fn changed_tensors(bytes: &Bytes, manifest: &Manifest, file: &str) -> Vec<String> {
    let tensors = match parse_safetensors(bytes) {
        Ok(tensors) => tensors,
        Err(error) => return vec![format!("header ({error})")],
    };
    let differs = |name: &str, raw: &RawTensor| {
        let same = manifest.tensors.get(name).is_some_and(|it| {
            (it.dtype, &it.shape) == (raw.dtype, &raw.shape) && it.sha256 == sha256(&raw.bytes)
        });
        raw.bytes.release();
        !same
    };
    let mut changed: Vec<String> = tensors
        .iter()
        .filter(|(name, raw)| differs(name, raw))
        .map(|(name, _)| format!("tensor `{name}`"))
        .collect();
    let expected = manifest.tensors.iter().filter(|(_, it)| it.file == file);
    let gone = expected.filter(|(name, _)| !tensors.contains_key(*name));
    changed.extend(gone.map(|(name, _)| format!("tensor `{name}` is gone")));
    if changed.is_empty() { vec!["header".into()] } else { changed }
}

/// The files hold the tensors that the manifest lists, where it says.
fn check_tensors(folder: &Folder, manifest: &Manifest) -> Result<Option<Problem>, PackageError> {
    let stored = folder.tensors()?;
    let listed: BTreeMap<&String, &String> =
        manifest.tensors.iter().map(|(name, it)| (name, &it.file)).collect();
    let missing: Vec<String> = listed
        .iter()
        .filter(|(name, file)| stored.files.get(**name) != Some(**file))
        .map(|(name, _)| (*name).clone())
        .collect();
    let extra: Vec<String> =
        stored.files.keys().filter(|name| !listed.contains_key(name)).cloned().collect();
    let wrong = !missing.is_empty() || !extra.is_empty();
    Ok(wrong.then_some(Problem::Tensors { missing, extra }))
}
