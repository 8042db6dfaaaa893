//! How layers are rounded on calibration text, and how that went.
use serde::{Deserialize, Serialize};

/// How layers are rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundingSettings {
    /// What they should give.
    pub target: RoundingTarget,
    /// Ridge of the least-squares target towards the weights, relative to the mean of H's
    /// diagonal.
    pub target_damping: f64,
    /// Added to H's diagonal when codes are chosen, relative to its mean.
    pub damping: f64,
    /// Rounds of descent on codes and scales after GPTQ.
    pub sweeps: usize,
}

/// What a layer is rounded towards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoundingTarget {
    /// Its float weights
    Weights,
    /// What the float layer gives in the float model
    Output,
    /// As `output`, and the float model's residual stream where a layer adds to it: errors of the
    /// layers before are made up for
    #[default]
    Stream,
}

/// How one layer was rounded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Block.
    pub block: usize,
    /// Weight.
    pub tensor: String,
    /// `tr((W* − Q)·H·(W* − Q)ᵀ) / tr(W*·H·W*ᵀ)` with W* what it was rounded towards.
    pub error: f64,
    /// Damping that was used, relative to the mean of H's diagonal.
    pub damping: f64,
    /// Times that the damping had to be raised until the factorization held.
    pub raised: u32,
    /// Tokens that the input was seen for.
    pub tokens: u64,
    /// Columns that were kept at int8.
    #[serde(default)]
    pub outliers: usize,
    /// The layer saw too few tokens and was rounded to nearest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nearest: bool,
}
