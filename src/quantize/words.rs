//! Values of settings that flags and recipes write as words.
use super::{Embeddings, QuantizeError};
use crate::scheme::{GROUP_SIZES, PRESETS, Preset, find_preset};
use std::{fmt, str::FromStr};

/// A preset by name, or an error that lists them.
pub(super) fn preset(name: &str) -> Result<&'static Preset, QuantizeError> {
    find_preset(name).ok_or_else(|| QuantizeError::Scheme {
        found: name.to_owned(),
        hint: {
            let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            format!("known are {}", names.join(", "))
        },
    })
}

/// Weights that share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupSize {
    /// A row.
    Channel,
    /// So many in a row: 32, 64 or 128.
    Of(usize),
}

impl GroupSize {
    /// The group sizes that packages may have.
    pub const SIZES: [usize; 3] = GROUP_SIZES;
}

impl FromStr for GroupSize {
    type Err = QuantizeError;
    fn from_str(text: &str) -> Result<Self, QuantizeError> {
        let size = text.parse().ok().filter(|size| Self::SIZES.contains(size));
        match size {
            Some(size) => Ok(Self::Of(size)),
            None if text == "channel" => Ok(Self::Channel),
            None => Err(QuantizeError::Value {
                found: text.to_owned(),
                expected: "a group size: 32, 64, 128 or channel",
            }),
        }
    }
}

impl fmt::Display for GroupSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel => f.write_str("channel"),
            Self::Of(size) => write!(f, "{size}"),
        }
    }
}

/// Another scheme for the weights that a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The exact name of a weight, with or without `.weight`, or `re:` and a regular expression
    /// that matches from the start of the name.
    pub pattern: String,
    /// `float`, or a preset, which `-g32`, `-g64`, `-g128` or `-channel` may follow.
    pub scheme: String,
}

impl FromStr for Rule {
    type Err = QuantizeError;
    fn from_str(text: &str) -> Result<Self, QuantizeError> {
        let wrong = || QuantizeError::Value {
            found: text.to_owned(),
            expected: "a rule of the form PATTERN=SCHEME",
        };
        let (pattern, scheme) = text.rsplit_once('=').ok_or_else(wrong)?;
        let rule = Self { pattern: pattern.to_owned(), scheme: scheme.to_owned() };
        rule.target()?;
        Ok(rule)
    }
}

impl Rule {
    /// Preset and group size, or `None` for float.
    pub fn target(&self) -> Result<Option<(&'static Preset, Option<GroupSize>)>, QuantizeError> {
        if self.scheme == "float" {
            return Ok(None);
        }
        let Some((name, group)) = self.scheme.split_once('-') else {
            return Ok(Some((preset(&self.scheme)?, None)));
        };
        let group = group.strip_prefix('g').unwrap_or(group).parse()?;
        Ok(Some((preset(name)?, Some(group))))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern, self.scheme)
    }
}

/// The largest safetensors file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardSize(pub u64);

impl Default for ShardSize {
    fn default() -> Self {
        Self(crate::checkpoint::DEFAULT_SHARD_BYTES)
    }
}

const UNITS: [(&str, u64); 4] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000), ("", 1)];

impl FromStr for ShardSize {
    type Err = QuantizeError;
    fn from_str(text: &str) -> Result<Self, QuantizeError> {
        let upper = text.trim().to_ascii_uppercase();
        UNITS
            .iter()
            .find_map(|(unit, bytes)| {
                let number: u64 = upper.strip_suffix(unit)?.trim().parse().ok()?;
                number.checked_mul(*bytes).filter(|bytes| *bytes > 0).map(Self)
            })
            .ok_or_else(|| QuantizeError::Value {
                found: text.to_owned(),
                expected: "a size such as 5GB or 500MB",
            })
    }
}

impl fmt::Display for ShardSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) =
            UNITS.iter().find(|(_, bytes)| self.0.is_multiple_of(*bytes)).unwrap_or(&UNITS[3]);
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

/// A value of a recipe where the command line has a word: text, or a number.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Word {
    Number(u64),
    Text(String),
}

/// Types that recipes write as their command-line text.
macro_rules! serde_as_text {
    ($($type:ty),+) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = match Word::deserialize(deserializer)? {
                    Word::Number(number) => number.to_string(),
                    Word::Text(text) => text,
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
serde_as_text!(GroupSize, Embeddings, Rule, ShardSize);
