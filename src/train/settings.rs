//! How a model learns: flags of `recover` and keys of a recipe alike.
use super::Schedule;
use crate::number::{above, number, whole};
use serde::{Deserialize, Serialize};

/// Settings of `recover`. Every field is a flag and a recipe key of the same name.
#[derive(Clone, Debug, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[group(id = "train")]
pub struct Settings {
    /// Passes over the text in which each block alone learns what its parent's gives; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = BLOCK_EPOCHS, value_parser = whole::<usize>(0..=MOST_EPOCHS))]
    pub block_epochs: usize,
    /// Peak rate of learning of blocks
    #[arg(long, value_name = "RATE", default_value_t = BLOCK_RATE, value_parser = number::<f64>(above(0.0)))]
    pub block_rate: f64,
    /// Passes over the text in which the whole model learns its parent's distributions; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = EPOCHS, value_parser = whole::<usize>(0..=MOST_EPOCHS))]
    pub epochs: usize,
    /// Peak rate of learning of the whole model
    #[arg(long, value_name = "RATE", default_value_t = RATE, value_parser = number::<f64>(above(0.0)))]
    pub learning_rate: f64,
    /// How the rate moves behind the first steps
    #[arg(long, value_enum, default_value_t)]
    pub schedule: Schedule,
    /// Windows of a step
    #[arg(long, value_name = "N", default_value_t = STEP_WINDOWS, value_parser = whole::<usize>(1..=65_536))]
    pub step_windows: usize,
    /// Temperature of the distributions that are learnt
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = number::<f64>(above(0.0)))]
    pub distill_temperature: f64,
    /// Largest norm of the gradient; a longer one is shortened
    #[arg(long, value_name = "X", default_value_t = CLIP, value_parser = number::<f64>(above(0.0)))]
    pub gradient_clip: f64,
    /// Share of the rate that matrices lose in a step
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = number::<f64>(0.0..))]
    pub weight_decay: f64,
}

const BLOCK_EPOCHS: usize = 2;
const BLOCK_RATE: f64 = 1e-3;
const EPOCHS: usize = 1;
const RATE: f64 = 1e-4;
const STEP_WINDOWS: usize = 4;
const CLIP: f64 = 1.0;
/// More passes than this are a slip of the pen.
const MOST_EPOCHS: u64 = 1000;

/// The share of the steps in which the rate rises.
const WARM_UP: f64 = 0.05;

impl Default for Settings {
    fn default() -> Self {
        Self {
            block_epochs: BLOCK_EPOCHS,
            block_rate: BLOCK_RATE,
            epochs: EPOCHS,
            learning_rate: RATE,
            schedule: Schedule::default(),
            step_windows: STEP_WINDOWS,
            distill_temperature: 1.0,
            gradient_clip: CLIP,
            weight_decay: 0.0,
        }
    }
}

impl Settings {
    /// The rate of step `step` of `steps` for a peak.
    pub fn rate(&self, peak: f64, step: usize, steps: usize) -> f32 {
        let warm_up = (WARM_UP * steps as f64) as usize;
        super::rate(peak, (step, steps), warm_up, self.schedule) as f32
    }

    /// Steps of a pass over so many windows.
    pub fn steps(&self, windows: usize) -> usize {
        windows.div_ceil(self.step_windows)
    }
}
