//! One HTML page about several runs: self-contained, without scripts and network.
//!
//! [`Run`] collects what is known of one candidate from files of other commands; [`html`] lays all
//! runs out beside each other, the first as the base. Charts are SVG of the `plotters` crate
//! (charts.rs), the page is template.html. Add a section: a view here, a part of the template.
mod charts;
mod run;
mod drawn;
mod views;

pub use run::Run;

use minijinja::{AutoEscape, Environment, syntax::SyntaxConfig, value::Serde};
use serde_json::json;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A file that no command of this program wrote.
    #[error(
        "`{file}` holds no result that a report can show: {detail}\nhint: give it results of eval, quantize --json or eval --tasks, or packages"
    )]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// Two runs of one name.
    #[error("two runs are called `{name}`\nhint: name them with NAME=FILE")]
    Twice {
        /// The name.
        name: String,
    },
    /// No runs.
    #[error("no runs to report\nhint: name results or packages")]
    Empty,
    /// A chart cannot be drawn.
    #[error("chart `{chart}`: {detail}\nhint: this is an error of the program")]
    Chart {
        /// The chart.
        chart: String,
        /// The library's reason.
        detail: String,
    },
    /// The template failed.
    #[error("the page cannot be written: {0}\nhint: this is an error of the program")]
    Template(#[from] minijinja::Error),
}

/// The page about runs, the first as the base of comparisons; `title` heads it.
pub fn html(title: &str, runs: &[Run]) -> Result<String, PageError> {
    if runs.is_empty() {
        return Err(PageError::Empty);
    }
    for (index, run) in runs.iter().enumerate() {
        if runs[..index].iter().any(|it| it.name == run.name) {
            return Err(PageError::Twice { name: run.name.clone() });
        }
    }
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page", include_str!("template.html"))?;
    let legend: Vec<_> =
        runs.iter().enumerate().map(|(at, run)| charts::key(at, &run.name)).collect();
    let page = environment.get_template("page")?.render(Serde(json!({
        "title": title,
        "style": include_str!("style.css"),
        "tool": concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")),
        "legend": legend,
        "overview": views::overview(runs),
        "charts": drawn::charts(runs)?,
        "gates": views::gates(runs),
        "worst": views::worst(runs),
        "recipes": views::recipes(runs),
        "methods": views::methods(runs),
        "warnings": views::warnings(runs),
    })))?;
    Ok(page)
}

#[cfg(test)]
mod tests;
