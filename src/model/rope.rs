//! Rotary position embedding (`RoPE`, arXiv 2104.09864) and the ways to stretch it.
use super::config::{Config, ConfigError, unfit};
use serde_json::{Map, Value};
use std::f64::consts::PI;

/// Frequencies of the rotary pairs of a head.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Positions of the model (`max_position_embeddings`).
    pub max_positions: usize,
    /// How the frequencies are stretched.
    pub scaling: RopeScaling,
    /// Heads that kept pairs of their own of a wider head; `None` where pair `i` of every head
    /// turns alike.
    pub kept: Option<KeptPairs>,
}

/// Pairs that heads kept of wider ones, which differ from head to head: a form of this project,
/// `"rope_type": "kept-pairs"`.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptPairs {
    /// Width of the heads before; even.
    pub head_dim: usize,
    /// Pairs of the wider head, ascending: `[blocks][kv_heads][head_dim / 2]` of the narrow heads.
    pub pairs: Vec<Vec<Vec<usize>>>,
}

/// The `rope_type` of a config.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// Position interpolation (arXiv 2306.15595): every frequency is divided by the factor.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// The base grows once the sequence is longer than the model's positions.
    Dynamic {
        /// At least 1.
        factor: f64,
    },
    /// Llama 3.1: low frequencies are divided, high ones kept, the middle blended.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low` are low frequencies.
        low: f64,
        /// Wavelengths below `original / high` are high frequencies.
        high: f64,
        /// Positions of the model before stretching.
        original: f64,
    },
    /// `YaRN` (arXiv 2309.00071).
    Yarn {
        /// Divisor of low frequencies.
        factor: f64,
        /// First and last pair of the ramp.
        ramp: (f64, f64),
        /// Cosines and sines are multiplied by this.
        attention: f64,
    },
    /// `LongRoPE` (arXiv 2402.13753): a divisor per pair.
    LongRope {
        /// Up to `original` positions.
        short: Vec<f64>,
        /// Beyond.
        long: Vec<f64>,
        /// Border between the two.
        original: usize,
        /// Cosines and sines are multiplied by this.
        attention: f64,
    },
}

impl Rope {
    /// Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` of a config that
    /// [`complete`] has gone over.
    pub(super) fn parse(config: Config<'_>, head_dim: usize) -> Result<Self, ConfigError> {
        let max_positions = config.size(POSITIONS)?;
        let nested = nested_key(config).and_then(|key| config.get(key));
        let nested = Config(nested.unwrap_or(&Value::Null));
        let theta = config.number(THETA, f64::NAN)?;
        let theta = nested.number(THETA, theta)?;
        if theta.is_nan() || theta <= 1.0 {
            return Err(unfit(THETA, "a number above 1", &theta.into()));
        }
        for whole in [config, nested] {
            let share = whole.number("partial_rotary_factor", 1.0)?;
            if (share - 1.0).abs() > f64::EPSILON {
                return Err(unfit("partial_rotary_factor", "1 (whole heads)", &share.into()));
            }
        }
        if kind(nested).and_then(Value::as_str) != Some(KEPT_PAIRS) {
            let scaling = scaling(nested, theta, (head_dim, max_positions))?;
            return Ok(Self { theta, max_positions, scaling, kept: None });
        }
        let kept = kept_pairs(nested, head_dim)?;
        let parent = Config(nested.get("parent").unwrap_or(&Value::Null));
        let scaling = scaling(parent, theta, (kept.head_dim, max_positions))?;
        Ok(Self { theta, max_positions, scaling, kept: Some(kept) })
    }

    /// Angle per position of each pair of a head of block `block`, `[head_dim / 2]`, for a
    /// sequence of `tokens` positions.
    pub fn head_frequencies(
        &self,
        (block, kv_head): (usize, usize),
        head_dim: usize,
        tokens: usize,
    ) -> Vec<f64> {
        let Some(kept) = &self.kept else { return self.frequencies(head_dim, tokens) };
        let all = self.frequencies(kept.head_dim, tokens);
        let pairs = kept.pairs.get(block).and_then(|heads| heads.get(kv_head));
        pairs.into_iter().flatten().map(|pair| all[*pair]).collect()
    }

    /// Angle per position of each pair, `[head_dim / 2]`, for a sequence of `tokens` positions,
    /// of heads as wide as the scaling was made for; see [`Self::head_frequencies`].
    pub fn frequencies(&self, head_dim: usize, tokens: usize) -> Vec<f64> {
        let dim = head_dim as f64;
        let plain = |theta: f64| (0..head_dim / 2).map(move |i| theta.powf(-2.0 * i as f64 / dim));
        match &self.scaling {
            RopeScaling::Default => plain(self.theta).collect(),
            RopeScaling::Linear { factor } => plain(self.theta).map(|f| f / factor).collect(),
            RopeScaling::Dynamic { factor } => {
                let longer = tokens.max(self.max_positions) as f64 / self.max_positions as f64;
                let growth = (factor * longer - (factor - 1.0)).powf(dim / (dim - 2.0));
                plain(self.theta * growth).collect()
            }
            RopeScaling::Llama3 { factor, low, high, original } => plain(self.theta)
                .map(|f| {
                    let turns = original * f / (2.0 * PI);
                    let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - smooth) * f / factor + smooth * f
                })
                .collect(),
            RopeScaling::Yarn { factor, ramp: (from, to), .. } => plain(self.theta)
                .enumerate()
                .map(|(i, f)| {
                    let slow = ((i as f64 - from) / (to - from)).clamp(0.0, 1.0);
                    f / factor * slow + f * (1.0 - slow)
                })
                .collect(),
            RopeScaling::LongRope { short, long, original, .. } => {
                let divisors = if tokens > *original { long } else { short };
                plain(self.theta).zip(divisors).map(|(f, d)| f / d).collect()
            }
        }
    }

    /// Whether the frequencies depend on the length of the sequence.
    pub fn depends_on_length(&self) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. })
    }

    /// Multiplier of cosines and sines.
    pub fn attention_factor(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn { attention, .. } | RopeScaling::LongRope { attention, .. } => {
                attention
            }
            _ => 1.0,
        }
    }
}

const THETA: &str = "rope_theta";
const POSITIONS: &str = "max_position_embeddings";
const ORIGINAL: &str = "original_max_position_embeddings";
const OLD: &str = "rope_scaling";
const NEW: &str = "rope_parameters";

/// The key that holds the rotary settings: of two that hold any, engines take the old one.
fn nested_key(config: Config<'_>) -> Option<&'static str> {
    let filled = |key: &&str| match config.get(key) {
        Some(Value::Object(keys)) => !keys.is_empty(),
        other => other.is_some(),
    };
    [OLD, NEW].into_iter().find(filled)
}

/// Leaves one form of the rotary settings in a `config.json` and states in it what it means:
/// `theta` and the positions where they are absent, the original positions inside, `rope_type`
/// beside its old name.
pub(super) fn complete(keys: &mut Map<String, Value>, theta: f64) -> Result<(), ConfigError> {
    let positions = keys.get(POSITIONS).cloned().unwrap_or(Value::Null);
    let given =
        |keys: &Map<String, Value>, key: &str| keys.get(key).filter(|it| !it.is_null()).cloned();
    let outer = given(keys, THETA);
    let Some(key) = nested_key(Config(&Value::Object(keys.clone()))) else {
        keys.insert(THETA.to_owned(), outer.unwrap_or_else(|| theta.into()));
        keys.retain(|key, _| key != NEW);
        return Ok(());
    };
    let Some(mut nested) = keys.get(key).and_then(Value::as_object).cloned() else {
        return Err(unfit(key, "an object", &keys[key]));
    };
    keys.retain(|it, _| it == key || it != if key == OLD { NEW } else { OLD });
    let inner = given(&nested, THETA);
    let theta = inner.clone().or(outer.clone()).unwrap_or_else(|| theta.into());
    if key == NEW || inner.is_some() {
        nested.insert(THETA.to_owned(), theta.clone());
    }
    if key == OLD || outer.is_some() {
        keys.insert(THETA.to_owned(), theta);
    }
    if nested.get("truncate").is_some_and(Value::is_null) {
        nested.insert("truncate".to_owned(), false.into());
    }
    nested.retain(|_, value| !value.is_null());
    let kind = given(&nested, "rope_type").or_else(|| given(&nested, "type"));
    let kind = kind.unwrap_or_else(|| "default".into());
    for name in ["rope_type", "type"] {
        if name == "rope_type" || nested.contains_key(name) {
            nested.insert(name.to_owned(), kind.clone());
        }
    }
    let own = nested.iter().find(|(name, value)| value.is_object() && *name != "parent");
    if let Some((name, value)) = own {
        return Err(unfit(&format!("{key}.{name}"), "one rope for all layers", value));
    }
    if matches!(kind.as_str(), Some("llama3" | "yarn" | "longrope" | "su")) {
        let original = keys.remove(ORIGINAL).filter(|it| !it.is_null());
        let original = original.or_else(|| given(&nested, ORIGINAL)).unwrap_or(positions.clone());
        if let (None, Some("yarn" | "longrope" | "su"), Some(all), Some(some)) =
            (nested.get("factor"), kind.as_str(), positions.as_f64(), original.as_f64())
        {
            nested.insert("factor".to_owned(), (all / some).into());
        }
        nested.insert(ORIGINAL.to_owned(), original);
    }
    keys.insert(key.to_owned(), Value::Object(nested));
    Ok(())
}

/// `rope_type` of heads whose kept pairs differ.
const KEPT_PAIRS: &str = "kept-pairs";

fn kind(nested: Config<'_>) -> Option<&Value> {
    nested.get("rope_type").or_else(|| nested.get("type"))
}

fn scaling(
    nested: Config<'_>,
    theta: f64,
    (head_dim, max_positions): (usize, usize),
) -> Result<RopeScaling, ConfigError> {
    let kind = kind(nested);
    match kind.map(|kind| kind.as_str().unwrap_or("")) {
        None | Some("default") => Ok(RopeScaling::Default),
        Some("linear") => Ok(RopeScaling::Linear { factor: factor(nested)? }),
        Some("dynamic") => Ok(RopeScaling::Dynamic { factor: factor(nested)? }),
        Some("llama3") => llama3(nested, max_positions),
        Some("yarn") => yarn(nested, theta, head_dim, max_positions),
        Some("longrope" | "su") => longrope(nested, head_dim, max_positions),
        Some(_) => {
            let known = "default, linear, dynamic, llama3, yarn, longrope or kept-pairs";
            Err(unfit("rope_type", known, kind.unwrap_or(&Value::Null)))
        }
    }
}

/// Widest head that kept pairs may come from.
const MAX_HEAD: usize = 1 << 16;

fn kept_pairs(nested: Config<'_>, head_dim: usize) -> Result<KeptPairs, ConfigError> {
    let key = "original_head_dim";
    let original = nested.size(key)?;
    if original < head_dim || original > MAX_HEAD || !original.is_multiple_of(2) {
        let expected = format!("an even number from {head_dim} to {MAX_HEAD}");
        return Err(unfit(key, expected, &original.into()));
    }
    let list = nested.get("pairs").ok_or(ConfigError::Missing { key: "pairs" })?;
    let pairs: Vec<Vec<Vec<usize>>> = serde_json::from_value(list.clone())
        .map_err(|_| unfit("pairs", "whole numbers per head of each block", list))?;
    let fits = |pairs: &Vec<usize>| {
        pairs.len() == head_dim / 2
            && pairs.is_sorted_by(|a, b| a < b)
            && pairs.last().is_some_and(|last| *last < original / 2)
    };
    match pairs.iter().flatten().find(|pairs| !fits(pairs)) {
        None => Ok(KeptPairs { head_dim: original, pairs }),
        Some(wrong) => {
            let expected = format!("{} ascending pairs below {}", head_dim / 2, original / 2);
            Err(unfit("pairs", expected, &wrong.as_slice().into()))
        }
    }
}

fn factor(config: Config<'_>) -> Result<f64, ConfigError> {
    let factor = config.number("factor", f64::NAN)?;
    if factor >= 1.0 {
        Ok(factor)
    } else {
        Err(unfit("rope factor", "a number of at least 1", &factor.into()))
    }
}

fn original(config: Config<'_>, max_positions: usize) -> Result<f64, ConfigError> {
    Ok(config.size_or(ORIGINAL, Some(max_positions))?.unwrap_or(max_positions) as f64)
}

fn llama3(config: Config<'_>, max_positions: usize) -> Result<RopeScaling, ConfigError> {
    let (low, high) = (config.needed("low_freq_factor")?, config.needed("high_freq_factor")?);
    if high <= low {
        return Err(unfit("high_freq_factor", format!("a number above {low}"), &high.into()));
    }
    let original = original(config, max_positions)?;
    Ok(RopeScaling::Llama3 { factor: factor(config)?, low, high, original })
}

fn yarn(
    config: Config<'_>,
    theta: f64,
    head_dim: usize,
    max_positions: usize,
) -> Result<RopeScaling, ConfigError> {
    let (factor, original) = (factor(config)?, original(config, max_positions)?);
    let magnitude = |weight: f64| 1.0 + 0.1 * weight * factor.max(1.0).ln();
    let (one, all) = (config.number("mscale", 0.0)?, config.number("mscale_all_dim", 0.0)?);
    let ratio = if one * all == 0.0 { magnitude(1.0) } else { magnitude(one) / magnitude(all) };
    let attention = config.number("attention_factor", ratio)?;
    // The pair that turns `turns` times over the original positions.
    let dim = head_dim as f64;
    let pair = |turns: f64| dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (from, to) =
        (pair(config.number("beta_fast", 32.0)?), pair(config.number("beta_slow", 1.0)?));
    let whole = config.flag("truncate", true)?;
    let (from, to) = if whole { (from.floor(), to.ceil()) } else { (from, to) };
    let (from, to) = (from.max(0.0), to.min(dim - 1.0));
    let to = if (to - from).abs() < f64::EPSILON { to + 0.001 } else { to };
    Ok(RopeScaling::Yarn { factor, ramp: (from, to), attention })
}

fn longrope(
    nested: Config<'_>,
    head_dim: usize,
    max_positions: usize,
) -> Result<RopeScaling, ConfigError> {
    let divisors = |key| {
        let list = nested.numbers(key)?;
        let fits = list.len() == head_dim / 2 && list.iter().all(|d| *d > 0.0);
        let expected = || format!("{} positive numbers", head_dim / 2);
        if fits { Ok(list) } else { Err(unfit(key, expected(), &list.len().into())) }
    };
    let (short, long) = (divisors("short_factor")?, divisors("long_factor")?);
    let original = nested.size_or(ORIGINAL, Some(max_positions))?.unwrap_or(max_positions);
    let factor = nested.number("factor", max_positions as f64 / original as f64)?;
    let stretch =
        if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() };
    let attention = nested.number("attention_factor", stretch)?;
    Ok(RopeScaling::LongRope { short, long, original, attention })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rope(config: serde_json::Value) -> Result<Rope, ConfigError> {
        let mut keys = config.as_object().cloned().unwrap();
        keys.entry(POSITIONS).or_insert(2048.into());
        complete(&mut keys, 10_000.0)?;
        Rope::parse(Config(&Value::Object(keys)), 8)
    }

    #[test]
    fn both_forms_of_a_config_say_the_same() {
        let old = json!({"rope_theta": 500.0, "max_position_embeddings": 64,
            "rope_scaling": {"type": "linear", "factor": 2.0}});
        let new = json!({"max_position_embeddings": 64,
            "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}});
        assert_eq!(rope(old).unwrap(), rope(new).unwrap());
    }

    #[test]
    fn dynamic_scaling_starts_beyond_the_models_positions() {
        let base = json!({"rope_theta": 10_000.0, "max_position_embeddings": 64});
        let mut stretched = base.clone();
        stretched["rope_scaling"] = json!({"rope_type": "dynamic", "factor": 2.0});
        let (plain, dynamic) = (rope(base).unwrap(), rope(stretched).unwrap());
        assert_eq!(plain.frequencies(8, 64), dynamic.frequencies(8, 64));
        // At twice the positions: base · (2·2 − 1)^(8/6), so pair 1 turns at that to the -2/8.
        let want = (10_000.0 * 3.0_f64.powf(8.0 / 6.0)).powf(-0.25);
        assert!((dynamic.frequencies(8, 128)[1] - want).abs() < 1e-12);
    }

    #[test]
    fn longrope_changes_its_divisors_beyond_the_original_positions() {
        let config = json!({"max_position_embeddings": 128, "rope_scaling": {
            "rope_type": "longrope", "short_factor": [1.0, 1.0, 1.0, 1.0],
            "long_factor": [2.0, 2.0, 2.0, 4.0], "original_max_position_embeddings": 64}});
        let rope = rope(config).unwrap();
        let (short, long) = (rope.frequencies(8, 64), rope.frequencies(8, 65));
        assert!((short[3] / long[3] - 4.0).abs() < 1e-12);
        // factor 2 over 64 positions: √(1 + ln 2 / ln 64) = √(7/6)
        assert!((rope.attention_factor() - (7.0_f64 / 6.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn unusable_settings_name_their_key() {
        for (config, key) in [
            (json!({"rope_theta": -1.0}), "rope_theta"),
            (json!({"rope_scaling": {"rope_type": "spiral"}}), "rope_type"),
            (json!({"rope_scaling": {"rope_type": "linear"}}), "factor"),
            (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
            (
                json!({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0],
                "long_factor": [1.0]}}),
                "short_factor",
            ),
        ] {
            let error = rope(config).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
