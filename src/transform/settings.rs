//! What is wanted of a transform: flags and keys of a recipe alike.
use crate::number::whole;
use serde::{Deserialize, Serialize};

/// Settings of the rotations. Every field is a flag and a recipe key of the same name; those that
/// are absent leave the choice to a preset, and without one to what their text says.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[group(id = "transform")]
pub struct Settings {
    /// Rotation of the residual stream, fused into the weights [default: as the preset has it]
    #[arg(long, value_enum, value_name = "KIND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotate>,
    /// Rotate in blocks of this width (hadamard and learned); divides the hidden size
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_block: Option<usize>,
    /// Rotate the values of each head, fused into the weights [default: with --rotate]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_values: Option<bool>,
    /// Multiply the input of down projections by a Hadamard matrix at run time [default: as the preset has it]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_down: Option<bool>,
    /// Multiply queries and keys by a Hadamard matrix at run time, after RoPE [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_keys: Option<bool>,
    /// What becomes of a head that is tied to the embedding [default: auto, the smaller]
    #[arg(long, value_enum, value_name = "FORM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tied_head: Option<TiedHead>,
}

impl Settings {
    /// The kind of rotation, `none` when nothing is said.
    pub fn kind(&self) -> Rotate {
        self.rotate.unwrap_or_default()
    }

    /// Whether values are rotated.
    pub fn values(&self) -> bool {
        self.rotate_values.unwrap_or(self.kind() != Rotate::None)
    }

    /// Whether anything changes.
    pub fn is_identity(&self) -> bool {
        let online = [self.rotate_down, self.rotate_keys].contains(&Some(true));
        self.kind() == Rotate::None && !self.values() && !online
    }

    /// Whether calibration activations are needed.
    pub fn needs_evidence(&self) -> bool {
        matches!(self.kind(), Rotate::Pca | Rotate::Resq | Rotate::Learned)
    }

    /// Fills what is absent from `other`, a preset.
    pub fn or(self, other: &Self) -> Self {
        Self {
            rotate: self.rotate.or(other.rotate),
            rotate_block: self.rotate_block.or(other.rotate_block),
            rotate_values: self.rotate_values.or(other.rotate_values),
            rotate_down: self.rotate_down.or(other.rotate_down),
            rotate_keys: self.rotate_keys.or(other.rotate_keys),
            tied_head: self.tied_head.or(other.tied_head),
        }
    }
}

/// Kinds of rotations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rotate {
    /// No rotation
    #[default]
    None,
    /// Hadamard matrix with random signs
    Hadamard,
    /// Random orthogonal matrix
    Random,
    /// Principal directions of calibration activations
    Pca,
    /// Principal directions in two parts, each rotated at random; the strong part is last
    Resq,
    /// Hadamard, then fitted to calibration activations
    Learned,
}

impl Rotate {
    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Hadamard => "hadamard",
            Self::Random => "random",
            Self::Pca => "pca",
            Self::Resq => "resq",
            Self::Learned => "learned",
        }
    }
}

/// What becomes of a tied head, which cannot take in the gain of the last norm alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TiedHead {
    /// Whichever is smaller
    #[default]
    Auto,
    /// Stays tied; a matrix of hidden × hidden before it (only this program computes that)
    Correction,
    /// Gets a matrix of its own
    Untie,
}

/// Directions of `n` that a share of them stands for: the nearest multiple of 8 that leaves both
/// parts at least 8, or half of `n` where that is impossible.
pub fn outlier_width(share: f64, n: usize) -> usize {
    if n < 16 {
        return n / 2;
    }
    let eighths = (share * n as f64 / 8.0).round().max(1.0) as usize;
    (8 * eighths).min((n - 8) / 8 * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_and_presets_fill_what_flags_leave() {
        let json = serde_json::json!({"rotate": "resq", "rotate-down": false});
        let read: Settings = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), json);
        let preset = Settings {
            rotate: Some(Rotate::Hadamard),
            rotate_down: Some(true),
            rotate_keys: Some(true),
            ..Settings::default()
        };
        let filled = read.or(&preset);
        assert_eq!((filled.kind(), filled.rotate_down), (Rotate::Resq, Some(false)));
        assert_eq!(filled.rotate_keys, Some(true));
        assert!(filled.values() && filled.needs_evidence());
        assert!(Settings::default().is_identity() && !preset.is_identity());
        assert!(!Settings { rotate_values: Some(false), ..preset }.values());
    }

    #[test]
    fn outliers_are_some_but_not_all() {
        assert_eq!([576, 64, 896, 16].map(|n| outlier_width(0.125, n)), [72, 8, 112, 8]);
        assert_eq!(outlier_width(0.9, 64), 56);
        assert_eq!(outlier_width(1e-9, 576), 8);
        assert_eq!(outlier_width(0.5, 8), 4);
        assert_eq!(outlier_width(0.99, 20), 8);
    }
}
