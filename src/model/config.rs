//! `config.json` as Hugging Face writes it, before and since transformers 5.
use serde_json::Value;

/// A key of `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not a JSON object.
    #[error("config.json is not a JSON object")]
    NotAnObject,
    /// A key that the architecture needs.
    #[error("config.json: `{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value outside of what the key allows.
    #[error("config.json: `{key}`: expected {expected}, found `{found}`")]
    Value {
        /// The key.
        key: String,
        /// What may stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// No family of this name.
    #[error("architecture `{found}` is not supported\nhint: supported are {supported}")]
    Architecture {
        /// `architectures[0]`, or `model_type`.
        found: String,
        /// The supported ones.
        supported: String,
    },
}

/// Typed access to a `config.json`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config<'a>(pub(super) &'a Value);

/// Larger sizes are taken for a damaged file, so that no product of sizes overflows.
const MAX_SIZE: u64 = 1 << 24;

impl<'a> Config<'a> {
    /// The value of a key; `null` counts as absent.
    pub(super) fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// `architectures[0]`, else `model_type`.
    pub(super) fn architecture(self) -> Option<&'a str> {
        let first = self.get("architectures").and_then(|list| list.get(0)?.as_str());
        first.or_else(|| self.get("model_type")?.as_str())
    }

    /// A size of at least 1.
    pub(super) fn size(self, key: &'static str) -> Result<usize, ConfigError> {
        self.size_or(key, None)?.ok_or(ConfigError::Missing { key })
    }

    /// A size of at least 1, or a default when absent.
    pub(super) fn size_or(
        self,
        key: &str,
        default: Option<usize>,
    ) -> Result<Option<usize>, ConfigError> {
        self.get(key).map_or(Ok(default), |value| size_of(key, value).map(Some))
    }

    /// A size of at least 1 of block `b`: a number for all blocks, or a list with one entry per
    /// block. The list is a form of this project, for models whose blocks differ.
    pub(super) fn block_size(self, key: &'static str, b: usize) -> Result<usize, ConfigError> {
        self.block_size_or(key, b, None)?.ok_or(ConfigError::Missing { key })
    }

    /// As [`Self::block_size`], or a default when absent.
    pub(super) fn block_size_or(
        self,
        key: &str,
        b: usize,
        default: Option<usize>,
    ) -> Result<Option<usize>, ConfigError> {
        let Some(list) = self.get(key).and_then(Value::as_array) else {
            return self.size_or(key, default);
        };
        let blocks = self.size("num_hidden_layers")?;
        if let Some(value) = list.get(b).filter(|_| list.len() == blocks) {
            return size_of(&format!("{key}[{b}]"), value).map(Some);
        }
        let expected = format!("a number, or a list of {blocks}, one per block");
        Err(unfit(key, expected, &format!("a list of {}", list.len()).into()))
    }

    /// A finite number, or a default when absent.
    pub(super) fn number(self, key: &str, default: f64) -> Result<f64, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_f64().ok_or_else(|| unfit(key, "a number", value))
    }

    /// A number that must be there.
    pub(super) fn needed(self, key: &'static str) -> Result<f64, ConfigError> {
        self.get(key).ok_or(ConfigError::Missing { key })?;
        self.number(key, f64::NAN)
    }

    /// A list of numbers.
    pub(super) fn numbers(self, key: &'static str) -> Result<Vec<f64>, ConfigError> {
        let value = self.get(key).ok_or(ConfigError::Missing { key })?;
        let numbers = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        numbers.ok_or_else(|| unfit(key, "a list of numbers", value))
    }

    /// True or false, or a default when absent.
    pub(super) fn flag(self, key: &str, default: bool) -> Result<bool, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| unfit(key, "true or false", value))
    }
}

fn size_of(key: &str, value: &Value) -> Result<usize, ConfigError> {
    match value.as_u64() {
        Some(size @ 1..=MAX_SIZE) => Ok(size as usize),
        _ => Err(unfit(key, format!("a whole number from 1 to {MAX_SIZE}"), value)),
    }
}

/// A value that does not fit its key.
pub(super) fn unfit(key: &str, expected: impl Into<String>, found: &Value) -> ConfigError {
    let mut found = found.to_string();
    if found.len() > 80 {
        found = found.chars().take(80).chain("…".chars()).collect();
    }
    ConfigError::Value { key: key.to_owned(), expected: expected.into(), found }
}
