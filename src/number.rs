//! Numbers of settings and the ranges they lie in. Flags read them; keys of recipes, and settings
//! that a program made by itself, are read as their flags are.
use clap::{Arg, Args, Command};
use serde::Serialize;
use std::{
    error::Error as _,
    fmt::Display,
    ops::{Bound, RangeBounds},
    str::FromStr,
};
use toml::{Table, Value};

/// What a setting takes, told where something else was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct Expected(pub String);

/// A setting that is not what its flag takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}`: {reason}")]
pub struct OutOfRange {
    /// The setting.
    pub name: String,
    /// What it takes, and what was found.
    pub reason: String,
}

/// Checks each number of some settings as its flag would: for those that no flag and no key was read for.
pub fn check<T: Args + Serialize>(settings: &T) -> Result<(), OutOfRange> {
    let out_of_range = |name: &str, reason| Err(OutOfRange { name: name.to_owned(), reason });
    let table = match Table::try_from(settings) {
        Ok(table) => table,
        Err(error) => return out_of_range("settings", error.to_string()),
    };
    let flags = T::augment_args(Command::new(""));
    for flag in flags.get_arguments() {
        let name = flag.get_long().unwrap_or_default();
        // What was read from text has been checked, or was made by hand for good reasons.
        let number = table.get(name).filter(|it| it.is_integer() || it.is_float());
        if let Some(Err(reason)) = number.map(|value| check_value(flag, value)) {
            return out_of_range(name, reason);
        }
    }
    Ok(())
}

/// Reads a value as its flag does: its range is the key's as well.
pub fn check_value(flag: &Arg, value: &Value) -> Result<(), String> {
    let text = match value {
        Value::Array(values) => return values.iter().try_for_each(|it| check_value(flag, it)),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Ok(()),
    };
    let alone = Arg::new("value").allow_hyphen_values(true);
    let alone = alone.value_parser(flag.get_value_parser().clone());
    let command = Command::new("").no_binary_name(true).arg(alone);
    let Err(error) = command.try_get_matches_from([text.as_str()]) else {
        return Ok(());
    };
    match error.source() {
        Some(reason) if reason.is::<Expected>() => Err(format!("{reason}, found `{text}`")),
        Some(reason) => Err(reason.to_string()),
        // A word that is none of the flag's: the setting lists those that are.
        None => Ok(()),
    }
}

/// Reads whole numbers that lie in a range.
pub fn whole<T: TryFrom<u64>>(
    range: impl RangeBounds<u64> + Clone,
) -> impl Fn(&str) -> Result<T, Expected> + Clone {
    let expected = Expected(told("a whole number", &range));
    move |text| {
        let number = text.parse().ok().filter(|it| range.contains(it));
        number.and_then(|it: u64| it.try_into().ok()).ok_or_else(|| expected.clone())
    }
}

/// Reads numbers that are finite and lie in a range.
pub fn number<T: FromStr + Copy + Into<f64>>(
    range: impl RangeBounds<f64> + Clone,
) -> impl Fn(&str) -> Result<T, Expected> + Clone {
    let expected = Expected(told("a number", &range));
    move |text| {
        let number = text.parse().ok();
        let within = |it: &T| (*it).into().is_finite() && range.contains(&(*it).into());
        number.filter(within).ok_or_else(|| expected.clone())
    }
}

/// From `least` on.
pub fn above(least: f64) -> (Bound<f64>, Bound<f64>) {
    (Bound::Excluded(least), Bound::Unbounded)
}

/// From `least` on, which is outside, up to `most`, which is within.
pub fn above_to(least: f64, most: f64) -> (Bound<f64>, Bound<f64>) {
    (Bound::Excluded(least), Bound::Included(most))
}

fn told<T: Display>(kind: &str, range: &impl RangeBounds<T>) -> String {
    let end = match range.end_bound() {
        Bound::Included(end) => format!(" up to {end}"),
        Bound::Excluded(end) => format!(" below {end}"),
        Bound::Unbounded => String::new(),
    };
    match range.start_bound() {
        Bound::Included(start) if end.is_empty() => format!("{kind} of at least {start}"),
        Bound::Included(start) => format!("{kind} from {start}{end}"),
        Bound::Excluded(start) if end.is_empty() => format!("{kind} above {start}"),
        Bound::Excluded(start) => format!("{kind} above {start} and{end}"),
        Bound::Unbounded => format!("{kind}{end}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_outside_its_range_is_told_the_range() {
        let told = |result: Result<f64, Expected>| result.unwrap_err().to_string();
        assert_eq!(told(number(0.0..)("-1")), "expected a number of at least 0");
        assert_eq!(told(number(above(0.0))("0")), "expected a number above 0");
        assert_eq!(
            told(number(above_to(0.0, 0.5))("1")),
            "expected a number above 0 and up to 0.5"
        );
        assert_eq!(told(number(0.0..=1.0)("x")), "expected a number from 0 up to 1");
        for text in ["inf", "NaN", "1e999", ""] {
            assert!(number::<f64>(0.0..)(text).is_err(), "{text}");
        }
        assert!(number::<f32>(0.0..)("1e39").is_err(), "infinite as a float32");
        assert_eq!(number::<f64>(0.0..)("-0"), Ok(-0.0));
        let least = whole::<u16>(1..)("0").unwrap_err();
        assert_eq!(least.to_string(), "expected a whole number of at least 1");
        for text in ["-1", "0", "1.5", "1e3", "65536", "99999999999999999999"] {
            assert!(whole::<u16>(1..)(text).is_err(), "{text}");
        }
        assert_eq!(whole::<u16>(1..)("65535"), Ok(65535));
    }
}
