//! Shares as people write them.
use crate::eval::EvalError;
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
