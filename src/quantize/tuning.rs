//! What of a rounded model learns: flags of `quantize` and keys of a recipe alike.
use super::{Effort, Plan, QuantizeError};
use crate::{
    model::Role,
    number::{above, number, whole},
    scheme::Activations,
};

/// Part of [`Settings`](super::Settings). Every field is a flag and a recipe key of the same name.
#[derive(Clone, Debug, PartialEq, clap::Args, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[group(id = "tuning")]
pub struct Tuning {
    /// Let the rounded model learn the float model's distributions on the calibration text; its form stays
    #[arg(long, value_enum, value_name = "WHAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tune: Option<Tune>,
    /// Passes over the text to tune in
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

const EPOCHS: usize = 2;
const RATE: f64 = 1e-3;

impl Default for Tuning {
    fn default() -> Self {
        Self { tune: None, tune_epochs: EPOCHS, tune_rate: RATE }
    }
}

impl Tuning {
    /// Refuses what a plan leaves nothing to tune of, or what learns in float only.
    pub fn check(&self, plan: &Plan, preset: Effort) -> Result<(), QuantizeError> {
        if self.tune.is_none() {
            return Ok(());
        }
        if preset == Effort::VendorStandard {
            let found = "tune with preset vendor-standard".to_owned();
            let expected = "possible: it is what a vendor's toolkit does, to compare with";
            return Err(QuantizeError::Value { found, expected });
        }
        let blocks =
            plan.tensors.iter().filter(|(_, it)| it.role.is_some_and(Role::is_block_linear));
        let schemes = blocks.filter_map(|(name, it)| Some((name, it.scheme?)));
        let mut tuned = false;
        for (name, scheme) in schemes {
            if scheme.activations != Activations::Float {
                let found = format!("tune with int8 activations of `{name}`");
                let expected = "possible: scales are tuned for float activations (w4a16, w8a16)";
                return Err(QuantizeError::Value { found, expected });
            }
            tuned |= scheme.outliers == 0;
        }
        if !tuned {
            let found = "tune without a weight of a block on one grid".to_owned();
            let expected = "possible: --outliers leaves none, and neither does --rule re:.*=float";
            return Err(QuantizeError::Value { found, expected });
        }
        Ok(())
    }
}
