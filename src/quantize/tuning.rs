//! What of a rounded model learns: flags of `quantize` and keys of a recipe alike.
use crate::number::{above, number, whole};

/// Part of [`Settings`](super::Settings). Every field is a flag and a recipe key of the same name.
#[derive(Clone, Debug, PartialEq, clap::Args, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[group(id = "tuning")]
pub struct Tuning {
    /// Let the rounded model learn the float model's distributions on the calibration text; its form stays
    #[arg(long, value_enum, value_name = "WHAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tune: Option<Tune>,
    /// Windows of the text to tune on, beside those that codes are chosen on; where there are fewer, what
    /// there is is shared
    #[arg(long, value_name = "N", default_value_t = SAMPLES, value_parser = whole::<usize>(1..=u32::MAX.into()))]
    pub tune_samples: usize,
    /// Passes over these windows
    #[arg(long, value_name = "N", default_value_t = EPOCHS, value_parser = whole::<usize>(1..=1000))]
    pub tune_epochs: usize,
    /// Peak rate of tuning: the share of a scale that a step moves it by
    #[arg(long, value_name = "RATE", default_value_t = RATE, value_parser = number::<f64>(above(0.0)))]
    pub tune_rate: f64,
}

/// What is tuned.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Tune {
    /// The scales of weights on one grid, norms and biases
    Scales,
}

const SAMPLES: usize = 128;
const EPOCHS: usize = 1;
const RATE: f64 = 1e-3;

impl Default for Tuning {
    fn default() -> Self {
        Self { tune: None, tune_samples: SAMPLES, tune_epochs: EPOCHS, tune_rate: RATE }
    }
}
