//! What chips take: profiles, and packages or plans compared with them.
//!
//! A profile is a TOML file under `recipes/devices/`, or one of a user's own. Add a chip: one file,
//! one line in [`PROFILES`], one row in docs/devices.md.
mod check;

pub use check::{Candidate, Misfit};

use crate::{
    quantize::{ShardSize, TargetEngine},
    scheme::Activations,
};
use serde::Deserialize;

/// The profiles that the program carries.
pub const PROFILES: &[(&str, &str)] = &[
    ("arm-cpu", include_str!("../../recipes/devices/arm-cpu.toml")),
    ("hexagon-llama.cpp", include_str!("../../recipes/devices/hexagon-llama.cpp.toml")),
    ("hexagon-npu", include_str!("../../recipes/devices/hexagon-npu.toml")),
    ("mediatek-npu", include_str!("../../recipes/devices/mediatek-npu.toml")),
    ("x86", include_str!("../../recipes/devices/x86.toml")),
];

/// What a chip takes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// Its name; that of the file.
    #[serde(skip)]
    pub name: String,
    /// What it is, in a sentence.
    pub description: String,
    /// Where each limit is written.
    pub sources: Vec<String>,
    /// What packages for it have to load in.
    #[serde(rename = "for")]
    pub engine: TargetEngine,
    /// What quantized weights may be, embeddings and head among them.
    pub weights: Vec<Rule>,
    /// Outlier columns are known.
    #[serde(default)]
    pub outliers: bool,
    /// What divides the columns of every weight.
    #[serde(default = "one")]
    pub columns_multiple: usize,
    /// Weights with more rows run, but not on this chip.
    #[serde(default)]
    pub npu_rows: Option<usize>,
    /// Bytes of all tensors together.
    #[serde(default)]
    pub max_bytes: Option<ShardSize>,
    /// Bytes of weights, keys and values, unless a budget is named.
    #[serde(default)]
    pub memory: Option<ShardSize>,
    /// Tokens whose keys and values count as memory.
    #[serde(default = "context")]
    pub context: usize,
    /// Settings that recipes get for this chip, `STEP.KEY=VALUE`.
    #[serde(default)]
    pub set: Vec<String>,
}

/// One kind of weights that a chip multiplies with.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Bits of a code.
    pub bits: u32,
    /// No zero points.
    #[serde(default)]
    pub symmetric: bool,
    /// What divides the size of a group; none where there are no groups.
    #[serde(default)]
    pub group_multiple: Option<usize>,
    /// One scale per row is known.
    #[serde(default)]
    pub channel: bool,
    /// How activations may be held.
    pub activations: Vec<Inputs>,
}

/// How activations are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inputs {
    /// As floats, or in 16 bits that the engine chooses.
    Float,
    /// int8 with a scale per token.
    Int8Token,
    /// int8 with one scale.
    Int8Static,
}

impl From<Activations> for Inputs {
    fn from(activations: Activations) -> Self {
        match activations {
            Activations::Float => Self::Float,
            Activations::Int8PerToken => Self::Int8Token,
            Activations::Int8Static => Self::Int8Static,
        }
    }
}

impl std::fmt::Display for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Float => "float",
            Self::Int8Token => "int8 per token",
            Self::Int8Static => "static int8",
        })
    }
}

fn one() -> usize {
    1
}

fn context() -> usize {
    2048
}

/// A profile that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The text is no profile.
    #[error("device profile `{name}`: {reason}\nhint: docs/devices.md lists the keys")]
    Profile {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A value that no chip has.
    #[error("device profile `{name}`: `{key}` is {found}, expected {expected}")]
    Value {
        /// Its name.
        name: String,
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
}

impl Profile {
    /// Reads a profile.
    pub fn parse(name: &str, text: &str) -> Result<Self, DeviceError> {
        let wrong = |error: toml::de::Error| DeviceError::Profile {
            name: name.to_owned(),
            reason: crate::shown::toml_error(text, &error),
        };
        let profile = Self { name: name.to_owned(), ..toml::from_str(text).map_err(wrong)? };
        let value = |key, found: usize, expected| DeviceError::Value {
            name: name.to_owned(),
            key,
            found: found.to_string(),
            expected,
        };
        if profile.columns_multiple == 0 {
            return Err(value("columns-multiple", 0, "at least 1"));
        }
        for rule in &profile.weights {
            if !matches!(rule.bits, 4 | 8) {
                return Err(value("bits", rule.bits as usize, "4 or 8"));
            }
            if rule.group_multiple == Some(0) {
                return Err(value("group-multiple", 0, "at least 1"));
            }
        }
        Ok(profile)
    }

    /// A profile that the program carries.
    pub fn carried(name: &str) -> Option<Result<Self, DeviceError>> {
        let (_, text) = PROFILES.iter().find(|(it, _)| *it == name)?;
        Some(Self::parse(name, text))
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "int{}{}", self.bits, if self.symmetric { " sym" } else { "" })?;
        match (self.group_multiple, self.channel) {
            (Some(1), _) => write!(f, " in any groups")?,
            (Some(n), true) => write!(f, " in groups of {n}·k or rows")?,
            (Some(n), false) => write!(f, " in groups of {n}·k")?,
            (None, _) => write!(f, " in rows")?,
        }
        let names = self.activations.iter().map(ToString::to_string);
        write!(f, " with {} activations", names.collect::<Vec<_>>().join(" or "))
    }
}
