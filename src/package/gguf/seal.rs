//! Hashes that cover every byte of a file: of the header, whose own digits count as zeros, and of
//! each tensor. What lies between tensors is padding and zero.
use super::{
    file::Gguf,
    names::key,
    value::{Array, Value, write_text},
};
use crate::checkpoint::sha256;

/// Digits of a hash.
const HASH: usize = 64;

/// The metadata that [`fill`] completes: as many hashes as there are tensors and one more, and those
/// of values where `coded` says that a tensor has one.
pub(super) fn open_pairs(coded: &[bool]) -> [(String, Value); 2] {
    let text = |digits: bool| "0".repeat(if digits { HASH } else { 0 });
    let list = |all: Vec<String>| Value::Array(Array::Strings(all));
    let values = coded.iter().map(|it| text(*it)).collect();
    [
        (key::SHA256.into(), list(vec![text(true); coded.len() + 1])),
        (key::VALUES.into(), list(values)),
    ]
}

/// Writes the hashes of tensors and of their values, and at last its own, into a header.
pub(super) fn fill(header: &mut [u8], tensors: &[String], values: &[String]) {
    let own = "0".repeat(HASH);
    put(header, key::SHA256, std::iter::once(&own).chain(tensors));
    put(header, key::VALUES, values.iter());
    let own = header_sha256(header).unwrap_or(own);
    put(header, key::SHA256, std::iter::once(&own));
}

/// The hash of everything before the tensors; nothing if the header does not hold its place.
pub fn header_sha256(header: &[u8]) -> Option<String> {
    let start = texts_start(header, key::SHA256)? + 8;
    let mut open = header.to_vec();
    open.get_mut(start..start + HASH)?.fill(b'0');
    Some(sha256(&open))
}

/// Puts texts over those of an array, which are as long.
fn put<'a>(header: &mut [u8], key: &str, texts: impl Iterator<Item = &'a String>) {
    let Some(mut at) = texts_start(header, key) else { return };
    for text in texts {
        // Each has its length before it.
        let start = at + 8;
        at = start + text.len();
        header[start..at].copy_from_slice(text.as_bytes());
    }
}

/// Where the elements of an array of texts begin in a header.
fn texts_start(header: &[u8], key: &str) -> Option<usize> {
    let mut text = Vec::new();
    write_text(key, &mut text);
    let start = header.windows(text.len()).position(|it| it == text)?;
    // Type, type of elements and their number.
    Some(start + text.len() + 4 + 4 + 8)
}

/// What a file that this program wrote records.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    /// Hash of the header; `None` in files of versions that did not record one.
    pub header: Option<&'a str>,
    /// Hash of each tensor, in the order of the file.
    pub tensors: &'a [String],
}

impl Gguf {
    /// The hashes that the file records; `None` where this program did not write it.
    pub fn sealed(&self) -> Option<Sealed<'_>> {
        let texts = |key| self.texts(key).ok().flatten();
        let sealed = match texts(key::SHA256) {
            Some([header, tensors @ ..]) => Sealed { header: Some(header), tensors },
            _ => Sealed { header: None, tensors: texts(key::TENSORS_SHA256)? },
        };
        (sealed.tensors.len() == self.tensors.len()).then_some(sealed)
    }

    /// SHA-256 of the values of each tensor, alike; empty where none is recorded.
    pub fn value_hashes(&self) -> Option<&[String]> {
        self.texts(key::VALUES).ok().flatten()
    }
}
