//! A GGUF file and its metadata.
use super::{
    error::{ContentError, GgufError, ParseError},
    names::key,
    parse::{TensorInfo, parse},
    value::{Array, Value},
};
use crate::tensor::Bytes;
use std::{collections::BTreeMap, path::Path};

/// A GGUF file. Tensors stay mapped; only the header is read.
#[derive(Debug)]
pub struct Gguf {
    /// As it was named.
    pub file: String,
    /// Version of the format.
    pub version: u32,
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors in the order of the file.
    pub tensors: Vec<TensorInfo>,
    /// Everything before the first tensor.
    pub header: Bytes,
    /// What lies behind each tensor and before the next, and where no tensor begins.
    pub padding: Vec<Bytes>,
}

/// Maps one file and reads its header.
pub(super) fn open_part(path: &Path) -> Result<Gguf, GgufError> {
    let file = path.display().to_string();
    let bytes = Bytes::map(path)?;
    Gguf::parse(&file, &bytes).map_err(|what| GgufError::Parse { file, what: Box::new(what) })
}

impl Gguf {
    /// Reads the bytes of a file that messages call `file`.
    pub fn parse(file: &str, bytes: &Bytes) -> Result<Self, ParseError> {
        let parsed = parse(bytes)?;
        Ok(Self {
            file: file.to_owned(),
            version: parsed.version,
            metadata: parsed.metadata,
            tensors: parsed.tensors,
            header: parsed.header,
            padding: parsed.padding,
        })
    }

    /// `general.architecture`.
    pub fn architecture(&self) -> Result<&str, ContentError> {
        self.text(key::ARCHITECTURE)?.ok_or_else(|| missing(key::ARCHITECTURE))
    }

    /// A tensor by its name in the file.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, ContentError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(key, "a text", other)),
        }
    }

    /// A bool.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ContentError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(wrong(key, "a bool", other)),
        }
    }

    /// A number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, ContentError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|x| x.is_finite());
        number.map(Some).ok_or_else(|| wrong(key, "a finite number", value))
    }

    /// A whole number of at least 0. An array counts as its element if all are equal: some writers
    /// repeat a size for every block.
    pub(super) fn size(&self, key: &str) -> Result<Option<u64>, ContentError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let number = match value {
            Value::Array(array) => {
                let mut all = array.numbers().map(|v| v.as_u64());
                let first = all.next().flatten();
                first.filter(|_| all.all(|other| other == first))
            }
            other => other.as_u64(),
        };
        let expected = "a whole number, the same for every block";
        number.map(Some).ok_or_else(|| wrong(key, expected, value))
    }

    /// Whole numbers of at least 0; a number that stands alone is one.
    pub(super) fn sizes(&self, key: &str) -> Result<Option<Vec<u64>>, ContentError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let sizes: Option<Vec<u64>> = match value {
            Value::Array(array) => {
                let all: Option<Vec<u64>> = array.numbers().map(|v| v.as_u64()).collect();
                all.filter(|all| all.len() == array.len())
            }
            other => other.as_u64().map(|size| vec![size]),
        };
        sizes.map(Some).ok_or_else(|| wrong(key, "whole numbers", value))
    }

    /// A whole number that must be there.
    pub(super) fn needed(&self, key: &str) -> Result<u64, ContentError> {
        self.size(key)?.ok_or_else(|| missing(key))
    }

    /// An array of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Option<&[String]>, ContentError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::Strings(all))) => Ok(Some(all)),
            Some(other) => Err(wrong(key, "an array of texts", other)),
        }
    }

    /// An array of numbers.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, ContentError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let Value::Array(array) = value else { return Err(wrong(key, "an array", value)) };
        let numbers: Option<Vec<f64>> = array.numbers().map(|v| v.as_f64()).collect();
        let all = numbers.filter(|numbers| numbers.len() == array.len());
        all.map(Some).ok_or_else(|| wrong(key, "an array of numbers", value))
    }
}

pub(super) fn missing(key: &str) -> ContentError {
    ContentError::NoKey { key: key.to_owned() }
}

pub(super) fn wrong(key: &str, expected: impl Into<String>, found: &Value) -> ContentError {
    ContentError::Key { key: key.to_owned(), expected: expected.into(), found: found.shown() }
}
