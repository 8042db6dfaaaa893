//! Names of outputs, and those that they have before they are complete.
use super::CheckpointError;
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// Random letters behind the name.
pub(super) const RANDOM: usize = 6;
/// What an old output's name ends in.
pub(super) const OLD: &str = ".old";

pub(super) fn write_error(path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError + '_ {
    |source| CheckpointError::Write { path: path.to_owned(), source }
}

/// Target's parent and name; parents are taken as they are, the name must be one.
pub(super) fn split(target: &Path) -> Result<(&Path, &OsStr), CheckpointError> {
    let name = target.file_name();
    let name = name.ok_or_else(|| CheckpointError::OutputName { path: target.to_owned() })?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")), name))
}

/// What the temporary names of an output begin with.
pub(super) fn prefix(name: &OsStr) -> String {
    format!(".{}.tmp-", name.to_string_lossy())
}

/// Whether a name is a temporary one of the output `of`.
pub(super) fn is_temporary(name: &str, of: &str) -> bool {
    name.strip_prefix(&prefix(OsStr::new(of))).is_some_and(is_random)
}

pub(super) fn is_random(text: &str) -> bool {
    text.len() == RANDOM && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The name of an old output beside the new one.
pub(super) fn old_name(temp: &Path) -> PathBuf {
    let mut name = temp.to_owned().into_os_string();
    name.push(OLD);
    name.into()
}

/// Where unfinished work on an output lies.
pub(super) fn partial(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}
