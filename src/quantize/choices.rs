//! Choices that settings offer by name.
use super::QuantizeError;
use std::{fmt, str::FromStr};

/// How much is done against the loss.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Effort {
    /// Scales searched, each weight rounded to nearest: needs no text
    Fast,
    /// Codes chosen on calibration text, layer after layer
    #[default]
    Balanced,
    /// As balanced, with everything that helps
    Best,
    /// What a chip vendor's toolkit does by default, to compare with
    VendorStandard,
}

/// How codes are chosen.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum CodeChoice {
    /// The nearest code of each weight; needs no text
    Nearest,
    /// The codes with the least error of each layer's output on calibration text
    #[default]
    Adaptive,
}

/// What scales int8 activations have.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationScales {
    /// One per token, found while the model runs
    #[default]
    Dynamic,
    /// One per layer, chosen on calibration text: what most NPUs want
    Static,
}

/// What becomes of embeddings and head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Embeddings {
    /// int8, one scale per row
    #[default]
    #[value(name = "8")]
    Eight,
    /// int4 in the groups of the scheme
    #[value(name = "4")]
    Four,
    /// As in the checkpoint
    #[value(name = "float")]
    Float,
}

impl FromStr for Embeddings {
    type Err = QuantizeError;
    fn from_str(text: &str) -> Result<Self, QuantizeError> {
        match text {
            "8" => Ok(Self::Eight),
            "4" => Ok(Self::Four),
            "float" => Ok(Self::Float),
            _ => Err(QuantizeError::Value { found: text.to_owned(), expected: "8, 4 or float" }),
        }
    }
}

impl fmt::Display for Embeddings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eight => "8",
            Self::Four => "4",
            Self::Float => "float",
        })
    }
}

/// What to do with a weight whose columns the group size does not divide.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum GroupFallback {
    /// Stop before any work
    #[default]
    Error,
    /// One scale per row for this weight
    Channel,
}
