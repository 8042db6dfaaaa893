//! Results on stdout or in a file.
use super::Context;
use crate::{checkpoint, shown};
use serde::Serialize;
use std::{io::Write as _, path::Path};

/// Text on stdout, without what a terminal or a pipeline would obey.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    raw(&shown::lines(text))
}

/// Text on stdout as it is: colours of this program, commands of this program to a pipeline.
pub(super) fn raw(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// JSON on stdout (`-`) or in a file.
pub(super) fn json(path: &Path, value: &impl Serialize, context: &Context) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    if path == Path::new("-") {
        return raw(&shown::json(&text));
    }
    file_or_stdout(path, &text, context)
}

/// Text on stdout (`-`) or in a file, which `--force` may replace.
pub(super) fn file_or_stdout(path: &Path, content: &str, context: &Context) -> anyhow::Result<()> {
    if path == Path::new("-") {
        return text(content);
    }
    Ok(checkpoint::write_file(path, content.as_bytes(), context.force)?)
}
