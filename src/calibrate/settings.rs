//! What a model is calibrated on: flags of every verb that calibrates and keys of a recipe alike.
use super::CalibrateError;
use crate::number::whole;
use std::{fmt, str::FromStr};

/// Settings of a calibration. Every field is a flag and a recipe key of the same name.
#[derive(Clone, Debug, PartialEq, clap::Args, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[group(id = "calibrate")]
pub struct Settings {
    /// Text to calibrate on: plain UTF-8, or jsonl with `text` or `messages`; may be repeated,
    /// with a weight each [default: builtin:en and builtin:zh]
    #[arg(long, value_name = "FILE[=WEIGHT]")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calibration: Vec<Source>,
    /// Samples to calibrate on
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = whole::<usize>(1..=u32::MAX.into()))]
    pub calibration_samples: usize,
    /// Tokens of a sample [default: 512, or what the model allows]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(2..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_tokens: Option<usize>,
    /// Let the model write the text that it is calibrated on
    #[arg(long, conflicts_with = "calibration")]
    pub self_generate: bool,
    /// Go on with fewer tokens than a covariance has rows
    #[arg(long)]
    pub allow_rank_deficient: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            calibration: Vec::new(),
            calibration_samples: 128,
            calibration_tokens: None,
            self_generate: false,
            allow_rank_deficient: false,
        }
    }
}

/// Tokens of a sample unless it is said.
const TOKENS: usize = 512;

impl Settings {
    /// Tokens of a sample.
    pub fn tokens(&self) -> usize {
        self.calibration_tokens.unwrap_or(TOKENS)
    }

    /// The settings for a model of so many positions: the default gives way, a wish is refused.
    pub fn within(&self, positions: usize) -> Result<Self, CalibrateError> {
        match self.calibration_tokens {
            Some(found) if found > positions => Err(CalibrateError::Positions { found, positions }),
            _ => {
                Ok(Self { calibration_tokens: Some(self.tokens().min(positions)), ..self.clone() })
            }
        }
    }

    /// The sources, or those that the program carries.
    pub fn sources(&self) -> Vec<Source> {
        let carried = ["builtin:en", "builtin:zh"];
        match self.calibration.as_slice() {
            [] => carried.map(|name| Source { name: name.to_owned(), weight: 1.0 }).to_vec(),
            given => given.to_vec(),
        }
    }
}

/// A text and its weight among others.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// A path, `builtin:en` or `builtin:zh`.
    pub name: String,
    /// Share of the samples, relative to the other sources; above 0.
    pub weight: f64,
}

impl FromStr for Source {
    type Err = CalibrateError;
    fn from_str(text: &str) -> Result<Self, CalibrateError> {
        // A name may hold `=`: only a number behind the last one is a weight.
        let (name, weight) = match text.rsplit_once('=') {
            Some((name, number)) => match number.parse::<f64>() {
                Ok(weight) => (name, weight),
                Err(_) => (text, 1.0),
            },
            None => (text, 1.0),
        };
        if weight > 0.0 && weight.is_finite() && !name.is_empty() {
            return Ok(Self { name: name.to_owned(), weight });
        }
        Err(CalibrateError::Setting {
            setting: "calibration",
            found: text.to_owned(),
            rule: "FILE or FILE=WEIGHT with a weight above 0",
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::float_cmp, reason = "exactly this weight is the default")]
        if self.weight == 1.0 && !self.name.contains('=') {
            return f.write_str(&self.name);
        }
        write!(f, "{}={}", self.name, self.weight)
    }
}

impl serde::Serialize for Source {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Source {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_behind_the_last_sign_is_a_weight() {
        let source = |text: &str| text.parse::<Source>().unwrap();
        assert_eq!(source("a.txt"), Source { name: "a.txt".into(), weight: 1.0 });
        assert_eq!(source("a=b.txt=0.5"), Source { name: "a=b.txt".into(), weight: 0.5 });
        assert_eq!(source("a=b.txt").name, "a=b.txt");
        for text in ["a.txt=2.5", "a.txt", "a=b.txt=1"] {
            assert_eq!(source(&source(text).to_string()), source(text));
        }
        for wrong in ["a=0", "a=-1", "a=inf", "a=nan", "=2", ""] {
            assert!(wrong.parse::<Source>().unwrap_err().to_string().contains("WEIGHT"), "{wrong}");
        }
    }

    #[test]
    fn the_default_gives_way_to_short_models_and_a_wish_does_not() {
        let tokens = |tokens, positions| {
            let settings = Settings { calibration_tokens: tokens, ..Settings::default() };
            settings.within(positions).map(|it| it.tokens()).map_err(|error| error.to_string())
        };
        assert_eq!((tokens(None, 8192), tokens(None, 128)), (Ok(512), Ok(128)));
        assert_eq!(tokens(Some(64), 128), Ok(64));
        let refused = tokens(Some(512), 128).unwrap_err();
        assert!(refused.contains("512") && refused.contains("at most 128"), "{refused}");
    }

    #[test]
    fn settings_survive_json() {
        let settings =
            Settings { calibration: vec!["a.txt=2".parse().unwrap()], ..Settings::default() };
        let json = serde_json::to_value(&settings).unwrap();
        assert_eq!(json["calibration"][0], "a.txt=2");
        assert_eq!(serde_json::from_value::<Settings>(json).unwrap(), settings);
    }
}
