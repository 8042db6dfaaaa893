//! What is wanted of a cut: flags of `prune` and keys of a recipe alike.
use super::{PruneError, RefitSettings, RepairTarget, score};
use crate::number::{self, above_to, number, whole};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Settings of `prune`. Every field is a flag and a recipe key of the same name. Exactly one kind
/// of target is given: parameters, bytes, a share, widths, or a number of layers.
#[derive(Clone, Debug, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[group(id = "prune")]
pub struct Settings {
    /// Largest number of parameters, e.g. 3.5B or 350M
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_params: Option<Amount>,
    /// Largest size of the weights, e.g. 7GB
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_bytes: Option<Amount>,
    /// Share of the parameters beside embeddings and head that stays, e.g. 0.54
    #[arg(long, value_name = "SHARE", value_parser = number::<f64>(above_to(0.0, 1.0)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<f64>,
    /// Inner width of attention, heads x head width of the queries
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attn_width: Option<usize>,
    /// Hidden units of the MLP, or of each routed expert
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ffn_width: Option<usize>,
    /// Drop so many whole layers instead of cutting widths
    #[arg(long, value_name = "N", conflicts_with_all = ["attn_width", "ffn_width", "allocate"], value_parser = whole::<usize>(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_layers: Option<usize>,
    /// How units are ranked
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SCORE)]
    pub score: String,
    /// How the layers that read cut units are repaired
    #[arg(long, value_enum, default_value_t)]
    pub repair: Repair,
    /// What repaired layers are fitted to
    #[arg(long, value_enum, default_value_t)]
    pub repair_target: RepairTarget,
    /// What attention loses [default: pairs; groups where queries and keys are normalized]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attn_unit: Option<AttnUnit>,
    /// How the value channels of narrower heads are chosen
    #[arg(long, value_enum, default_value_t)]
    pub values: ValueMethod,
    /// Whether all heads keep the same rotary pairs
    #[arg(long, value_enum, default_value_t)]
    pub pairs: Pairs,
    /// Cut in so many steps, with statistics taken again between them
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = whole::<usize>(1..=MAX_SHOTS))]
    pub shots: usize,
    /// Spread the cut of the MLPs over the layers by what it costs; stock engines want equal widths
    #[arg(long)]
    pub allocate: bool,
    /// How much attention loses beside the MLPs: 1 cuts the same share of both widths, 0 cuts
    /// attention only when the MLPs cannot give more
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = number::<f64>(0.0..=1.0))]
    pub balance: f64,
    /// MLP widths are multiples of this [default: 256; 128 below 2048, 64 below 1024, 32 below 512]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiple: Option<usize>,
    /// Ridge of the repair, relative to the mean of the diagonal of the inputs' covariance
    #[arg(long, value_name = "X", default_value_t = DEFAULT_DAMPING, value_parser = number::<f64>(0.0..))]
    pub damping: f64,
}

const DEFAULT_SCORE: &str = "transact-product";
const DEFAULT_DAMPING: f64 = 0.1;
/// More shots than this are a slip of the pen.
const MAX_SHOTS: u64 = 64;

impl Default for Settings {
    fn default() -> Self {
        Self {
            target_params: None,
            target_bytes: None,
            keep: None,
            attn_width: None,
            ffn_width: None,
            drop_layers: None,
            score: DEFAULT_SCORE.to_owned(),
            repair: Repair::default(),
            repair_target: RepairTarget::default(),
            attn_unit: None,
            values: ValueMethod::default(),
            pairs: Pairs::default(),
            shots: 1,
            allocate: false,
            balance: 0.0,
            multiple: None,
            damping: DEFAULT_DAMPING,
        }
    }
}

/// The one kind of target that is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    Params(u64),
    Bytes(u64),
    Keep(f64),
    Widths { attn: Option<usize>, ffn: Option<usize> },
    Layers(usize),
}

impl Settings {
    /// How consumers are refitted.
    pub fn refit(&self) -> RefitSettings {
        RefitSettings { target: self.repair_target, damping: self.damping }
    }

    /// The kind of target, and a score that there is.
    pub(super) fn target(&self) -> Result<Target, PruneError> {
        number::check(self)?;
        let widths = self.attn_width.is_some() || self.ffn_width.is_some();
        let (attn, ffn) = (self.attn_width, self.ffn_width);
        let given: Vec<(&'static str, Target)> = [
            self.target_params.map(|n| ("--target-params", Target::Params(n.0))),
            self.target_bytes.map(|n| ("--target-bytes", Target::Bytes(n.0))),
            self.keep.map(|share| ("--keep", Target::Keep(share))),
            widths.then_some(("--attn-width, --ffn-width", Target::Widths { attn, ffn })),
            self.drop_layers.map(|n| ("--drop-layers", Target::Layers(n))),
        ]
        .into_iter()
        .flatten()
        .collect();
        let [(_, target)] = given.as_slice() else {
            let found: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
            return Err(PruneError::Targets {
                found: if found.is_empty() { "none".into() } else { found.join(" and ") },
            });
        };
        score::find(&self.score)?;
        Ok(*target)
    }
}

pub(super) fn setting(
    name: &'static str,
    found: impl fmt::Display,
    expected: &'static str,
) -> PruneError {
    PruneError::Setting { name, found: found.to_string(), expected: expected.to_owned() }
}

/// How consumers of cut units are repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// They stay as they were cut
    None,
    /// Refitted to the float model's output on the inputs that are left
    #[default]
    LeastSquares,
}

/// What attention loses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttnUnit {
    /// Rotary pairs of queries and keys, and as many value channels: narrower heads
    #[default]
    Pairs,
    /// Query heads, equally many of each group
    Heads,
    /// Key/value heads with their query heads
    Groups,
}

/// How value channels are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValueMethod {
    /// Whitened singular value decomposition: the head's values are rotated, then truncated
    #[default]
    Svd,
    /// The channels with the highest score
    Select,
}

/// Whether heads keep the same rotary pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pairs {
    /// The same in every head and layer, which stock engines can run
    #[default]
    Shared,
    /// Each head's own, for this project's runtime only
    PerHead,
}

/// A number of parameters or bytes: `3.5B`, `350M`, `7GB`, or plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub u64);

impl From<u64> for Amount {
    fn from(amount: u64) -> Self {
        Self(amount)
    }
}

const UNITS: [(&str, u64); 8] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("G", 1_000_000_000),
    ("B", 1_000_000_000),
    ("M", 1_000_000),
    ("K", 1_000),
];

impl FromStr for Amount {
    type Err = PruneError;
    fn from_str(text: &str) -> Result<Self, PruneError> {
        let upper = text.trim().to_ascii_uppercase();
        let unit = UNITS.iter().find_map(|(unit, by)| Some((upper.strip_suffix(unit)?, *by)));
        let (number, by) = unit.unwrap_or((&upper, 1));
        let amount = number.trim().parse::<f64>().ok().map(|number| number * by as f64);
        // Beyond 2^53 the product is not exact, and no model is that large.
        match amount.filter(|amount| (1.0..9e15).contains(amount)) {
            Some(amount) => Ok(Self(amount.round() as u64)),
            None => Err(setting("target", text, "an amount such as 3.5B, 350M or 7GB")),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Amount {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Word {
            Number(u64),
            Text(String),
        }
        let text = match Word::deserialize(deserializer)? {
            Word::Number(number) => number.to_string(),
            Word::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Settings)) -> Result<Target, PruneError> {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.target()
    }

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, amount) in
            [("3.5B", 3_500_000_000), ("350m", 350_000_000), ("7GB", 7_000_000_000), ("12", 12)]
        {
            assert_eq!(text.parse::<Amount>().unwrap().0, amount, "{text}");
        }
        for text in ["", "B", "-1", "0", "NaN", "inf", "1e40", "3,5B"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
        let settings = Settings { target_params: Some(Amount(12)), ..Settings::default() };
        let json = serde_json::to_value(&settings).unwrap();
        assert_eq!(serde_json::from_value::<Settings>(json).unwrap(), settings);
    }

    #[test]
    fn exactly_one_kind_of_target() {
        assert!(with(|s| s.keep = Some(0.5)).is_ok());
        assert!(with(|s| (s.attn_width, s.ffn_width) = (Some(64), Some(64))).is_ok());
        let told = |error: PruneError| error.to_string();
        assert!(told(with(|_| ()).unwrap_err()).contains("found none"));
        let both = with(|s| (s.keep, s.drop_layers) = (Some(0.5), Some(1)));
        assert!(told(both.unwrap_err()).contains("--keep and --drop-layers"));
        for keep in [0.0, -1.0, 1.5, f64::NAN] {
            let error = told(with(|s| s.keep = Some(keep)).unwrap_err());
            assert!(error.contains("`keep`: expected a number above 0 and up to 1"), "{error}");
        }
        assert!(told(with(|s| s.ffn_width = Some(0)).unwrap_err()).contains("`ffn-width`"));
    }
}
