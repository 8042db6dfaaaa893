//! Gates: bounds that a measurement must keep for a pipeline to go on.
use super::{EvalError, Figures};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A share: `2%` and `0.02` are the same. Written without `%` it lies in [0, 1): `2` alone could
/// mean either.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub struct Fraction(pub f64);

impl FromStr for Fraction {
    type Err = EvalError;
    fn from_str(text: &str) -> Result<Self, EvalError> {
        let wrong = || EvalError::Fraction { found: text.to_owned() };
        let (number, percent) = match text.trim().strip_suffix('%') {
            Some(number) => (number.trim_end(), true),
            None => (text.trim(), false),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        // 1.0 as a share is whole; 1 as an increase would be double: both are said with %.
        let known = number.is_finite() && number >= 0.0 && (percent || number < 1.0);
        // Divided, not multiplied by 0.01: 7% and 0.07 must be the same bits.
        if known { Ok(Self(if percent { number / 100.0 } else { number })) } else { Err(wrong()) }
    }
}

impl TryFrom<serde_json::Value> for Fraction {
    type Error = EvalError;
    fn try_from(value: serde_json::Value) -> Result<Self, EvalError> {
        match value {
            serde_json::Value::String(text) => text.parse(),
            other => other.to_string().parse(),
        }
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The bounds that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gates {
    /// Largest growth of the perplexity over the reference's, as a share of it.
    pub max_ppl_increase: Option<f64>,
    /// Largest mean KL divergence, nats.
    pub max_kl: Option<f64>,
    /// Smallest share of positions whose most likely token is the reference's.
    pub min_top1: Option<f64>,
}

/// A bound and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// The gate, as its flag is called: `max-kl`.
    pub gate: String,
    /// The bound.
    pub limit: f64,
    /// What was measured, not rounded; `null` in JSON when it is no number.
    pub value: Option<f64>,
    /// Whether the bound was kept; the bound itself is within.
    pub passed: bool,
}

const MAX_PPL_INCREASE: &str = "max-ppl-increase";
const MAX_KL: &str = "max-kl";
const MIN_TOP1: &str = "min-top1";

impl Gates {
    fn asked(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            (MAX_PPL_INCREASE, self.max_ppl_increase),
            (MAX_KL, self.max_kl),
            (MIN_TOP1, self.min_top1),
        ];
        all.into_iter().filter_map(|(name, limit)| Some((name, limit?)))
    }

    /// Before any work: bounds that make sense, and a reference where one is needed.
    pub fn check(&self, has_reference: bool) -> Result<(), EvalError> {
        for (gate, limit) in self.asked() {
            let most = if gate == MIN_TOP1 { 1.0 } else { f64::MAX };
            if !(0.0..=most).contains(&limit) {
                return Err(EvalError::Setting {
                    setting: gate,
                    found: limit.to_string(),
                    rule: format!("must lie in 0 to {most}"),
                    hint: "see `eval --help`",
                });
            }
            if !has_reference {
                return Err(EvalError::NoReference { gate });
            }
        }
        Ok(())
    }

    /// Compares with the figures. What is no number fails.
    pub fn judge(&self, figures: &Figures) -> Result<Vec<GateResult>, EvalError> {
        self.asked()
            .map(|(gate, limit)| {
                let against = figures.divergence.as_ref();
                let against = against.ok_or(EvalError::NoReference { gate })?;
                let value = match gate {
                    MAX_PPL_INCREASE => against.ppl_ratio.value - 1.0,
                    MAX_KL => against.kl_mean.value,
                    _ => against.top1_agreement,
                };
                // Comparisons with NaN are false.
                let passed = if gate == MIN_TOP1 { value >= limit } else { value <= limit };
                let value = value.is_finite().then_some(value);
                Ok(GateResult { gate: gate.to_owned(), limit, value, passed })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metric::tests::figures;

    #[test]
    fn shares_are_read_with_and_without_percent() {
        let read = |text: &str| text.parse::<Fraction>();
        for (text, share) in [("2%", 0.02), ("0.02", 0.02), (" 7 % ", 0.07), ("150%", 1.5)] {
            assert_eq!(read(text).unwrap(), Fraction(share), "{text}");
        }
        for text in ["2", "1", "-1%", "nan", "inf%", "", "%", "2%%"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Fraction>("\"2%\"").unwrap(), Fraction(0.02));
        assert_eq!(serde_json::from_str::<Fraction>("0.02").unwrap(), Fraction(0.02));
        assert!(serde_json::from_str::<Fraction>("2").is_err());
    }

    #[test]
    fn the_border_is_within_and_a_hair_beyond_is_not() {
        // The figures: increase 0.25, KL 0.125, top-1 0.5, exact in binary.
        let figures = figures(1.25, 0.125, 0.5);
        let passed = |gates: Gates| {
            let all = gates.judge(&figures).unwrap();
            assert_eq!(all.len(), 1);
            all[0].passed
        };
        let increase = |x| passed(Gates { max_ppl_increase: Some(x), ..Gates::default() });
        let kl = |x| passed(Gates { max_kl: Some(x), ..Gates::default() });
        let top1 = |x| passed(Gates { min_top1: Some(x), ..Gates::default() });
        assert!(increase(0.25) && !increase(0.25_f64.next_down()));
        assert!(kl(0.125) && !kl(0.125_f64.next_down()));
        assert!(top1(0.5) && !top1(0.5_f64.next_up()));
    }

    #[test]
    fn no_number_fails_every_gate() {
        let gates =
            Gates { max_ppl_increase: Some(1e300), max_kl: Some(1e300), min_top1: Some(0.0) };
        let all = gates.judge(&figures(f64::NAN, f64::NAN, f64::NAN)).unwrap();
        assert!(all.len() == 3 && all.iter().all(|gate| !gate.passed && gate.value.is_none()));
        let all = gates.judge(&figures(f64::INFINITY, f64::INFINITY, 0.0)).unwrap();
        assert_eq!(all.iter().map(|gate| gate.passed).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn a_gate_without_reference_or_sense_is_an_error() {
        let gates = Gates { max_kl: Some(0.1), ..Gates::default() };
        assert!(matches!(gates.check(false), Err(EvalError::NoReference { gate: "max-kl" })));
        assert!(gates.check(true).is_ok() && Gates::default().check(false).is_ok());
        for limit in [f64::NAN, -0.1, f64::INFINITY] {
            let gates = Gates { max_kl: Some(limit), ..Gates::default() };
            assert!(matches!(gates.check(true), Err(EvalError::Setting { .. })), "{limit}");
        }
    }
}
