//! What the cost of a cut, or the gain of a recovery, is measured on.
use super::eval;
use crate::{eval::Window, number::whole, package::Opened, pipeline::Measured, text::Form};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the cost is measured on.
#[derive(clap::Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[expect(clippy::struct_field_names, reason = "fields are flags among those of other structs")]
pub(super) struct Measure {
    /// Text to measure the cost on; may be repeated [default: windows of the calibration text that
    /// are not calibrated on]
    #[arg(long, value_name = "FILE")]
    measure: Vec<PathBuf>,
    /// Windows to measure on, of each text; 0 measures nothing
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = whole::<usize>(0..=u32::MAX.into()))]
    measure_windows: usize,
    /// Tokens of a window to measure on in a text of its own [default: 2048, or what the model allows]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(2..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    measure_tokens: Option<usize>,
    /// How the files to measure on hold their documents
    #[arg(long, value_enum, default_value_t)]
    measure_form: Form,
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            measure: Vec::new(),
            measure_windows: 4,
            measure_tokens: None,
            measure_form: Form::Auto,
        }
    }
}

impl Measure {
    /// Windows of the calibration text that are left to measure on.
    pub(super) fn held_out(&self) -> usize {
        if self.measure.is_empty() { self.measure_windows } else { 0 }
    }

    /// Windows of each text, or those of the calibration text that are held out.
    pub(super) fn texts(
        &self,
        opened: &Opened,
        held_out: Vec<Vec<u32>>,
    ) -> anyhow::Result<Vec<Measured>> {
        let window = |ids: Vec<u32>| Window { scored: 1..ids.len(), ids };
        if self.measure.is_empty() {
            let windows: Vec<Window> = held_out.into_iter().map(window).collect();
            let name = "calibration text, held out".to_owned();
            let any = !windows.is_empty();
            return Ok(any.then_some(Measured { name, windows }).into_iter().collect());
        }
        let texts = self.measure.iter().filter(|_| self.measure_windows > 0);
        texts
            .map(|path| {
                let settings = eval::Settings {
                    text: vec![path.clone()],
                    text_form: self.measure_form,
                    ctx: self.measure_tokens,
                    windows: Some(self.measure_windows),
                    ..eval::Settings::default()
                };
                let name = path.display().to_string();
                Ok(Measured { windows: eval::windows(opened, &settings)?, name })
            })
            .collect()
    }
}
