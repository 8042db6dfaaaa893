//! In which forms a result is written.
use crate::{
    checkpoint::check_file,
    cli::{Context, Outcome, output},
    report::{self, Sheet},
};
use serde::{Deserialize, Serialize};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

/// Where results go. Every field is a flag and a recipe key of the same name.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct OutputSettings {
    /// Write the result as JSON to a file, or to stdout (-)
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) json: Option<PathBuf>,
    /// Write the result as Markdown to a file, or to stdout (-)
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    markdown: Option<PathBuf>,
    /// Write the gates as JUnit XML to a file, or to stdout (-)
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    junit: Option<PathBuf>,
    /// Write failed gates as GitLab's code quality report
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    code_quality: Option<PathBuf>,
    /// Print failed gates as annotations of GitHub Actions (workflow commands)
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    annotate: bool,
}

impl OutputSettings {
    fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.json, &self.markdown, &self.junit, &self.code_quality]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    /// Whether a file of a form is written.
    pub(super) fn any(&self) -> bool {
        self.files().next().is_some()
    }

    /// Outputs that cannot be written are told before hours of work; `more` are files that are
    /// written beside them.
    pub(super) fn check<'a>(
        &'a self,
        more: impl Iterator<Item = &'a Path>,
        context: &Context,
    ) -> anyhow::Result<()> {
        let stdout = self.files().filter(|path| *path == Path::new("-")).count();
        anyhow::ensure!(
            stdout < 2,
            "only one result can go to stdout\nhint: write others to files"
        );
        for path in self.files().chain(more).filter(|path| *path != Path::new("-")) {
            let folder = path.parent().filter(|it| *it != Path::new(""));
            anyhow::ensure!(
                folder.is_none_or(Path::is_dir),
                "`{}` cannot be written: its folder is not there\nhint: make the folder first",
                path.display()
            );
            check_file(path, context.force)?;
        }
        Ok(())
    }

    /// Writes the forms that were asked for; the table, as `table` draws it in colour or not, when
    /// none goes to stdout. `place` is the file that code hosts put failed gates at.
    pub(super) fn write(
        &self,
        (sheet, value): (&Sheet<'_>, &impl Serialize),
        table: impl Fn(bool) -> String,
        place: &str,
        context: &Context,
    ) -> anyhow::Result<Outcome> {
        if !self.files().any(|path| path == Path::new("-")) {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            output::raw(&table(colour))?;
        }
        if let Some(path) = &self.json {
            output::json(path, value, context)?;
        }
        if let Some(path) = &self.markdown {
            output::file_or_stdout(path, &report::markdown(sheet), context)?;
        }
        if let Some(path) = &self.junit {
            output::file_or_stdout(path, &report::junit(sheet), context)?;
        }
        if let Some(path) = &self.code_quality {
            output::file_or_stdout(path, &report::code_quality(sheet, place), context)?;
        }
        if self.annotate {
            output::raw(&report::github(sheet))?;
        }
        Ok(if sheet.passed { Outcome::Done } else { Outcome::GateFailed })
    }

    /// All that can be asked for, each to something.
    #[cfg(test)]
    pub(super) fn full() -> Self {
        Self {
            json: Some("j".into()),
            markdown: Some("m".into()),
            junit: Some("u".into()),
            code_quality: Some("c".into()),
            annotate: true,
        }
    }
}
