//! Files that the command line names.
use anyhow::Context as _;
use std::path::Path;

/// The text of a file; `hint` says what to do when it cannot be read.
#[expect(clippy::disallowed_methods, reason = "the file is an argument of the command line")]
pub(super) fn text(path: &Path, hint: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path);
    text.with_context(|| format!("cannot read `{}`\nhint: {hint}", path.display()))
}
