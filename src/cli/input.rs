//! Files that the command line names.
use crate::tensor::read_file;
use anyhow::Context as _;
use std::path::Path;

/// The largest file that is read as a whole; lists of results are the largest ones.
pub(super) const MAX: u64 = 1 << 30;

/// The text of a file; `hint` says what to do when it cannot be read.
pub(super) fn text(path: &Path, hint: &str) -> anyhow::Result<String> {
    let bytes = read_file(path, MAX).map_err(|error| match error.to_string() {
        told if told.contains("\nhint: ") => error.into(),
        told => anyhow::anyhow!("{told}\nhint: {hint}"),
    })?;
    let text = String::from_utf8(bytes)
        .with_context(|| format!("`{}` is not UTF-8\nhint: {hint}", path.display()))?;
    // Editors of some systems put a mark before the first letter.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
