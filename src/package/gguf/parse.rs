//! The bytes of a GGUF file, versions 2 and 3 (ggml `docs/gguf.md`). Nothing here trusts them:
//! every count is compared with the bytes that are left before anything is allocated.
use super::{
    error::ParseError,
    value::{Array, Value, ValueType, scalar},
};
use crate::{
    scheme::ggml::{BlockFormat, find_format},
    tensor::Bytes,
};
use std::collections::BTreeMap;

/// Longest key and tensor name; the format allows 65535 and 64 bytes.
const MAX_KEY: u64 = 65_535;
const MAX_NAME: u64 = 255;
/// Arrays in arrays.
const MAX_DEPTH: usize = 4;
/// Axes of a tensor in ggml.
const MAX_DIMS: u32 = 4;
pub(super) const MAGIC: [u8; 4] = *b"GGUF";
/// Where tensors begin, unless a file says otherwise: at multiples of this.
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;
const ALIGNMENT: &str = "general.alignment";

/// A shape without axes of 1 in front, which mean nothing in ggml: `[1, 64]` is `[64]` there, and
/// files say it either way.
pub(super) fn without_ones(shape: &[usize]) -> &[usize] {
    let ones = shape.iter().take_while(|axis| **axis == 1).count();
    &shape[ones.min(shape.len().saturating_sub(1))..]
}

/// Where a tensor lies and what it is.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// Its block format.
    pub format: &'static dyn BlockFormat,
    /// Shape, outermost axis first: the reverse of the file's order, and without outer axes of 1.
    pub shape: Vec<usize>,
    /// Its blocks.
    pub bytes: Bytes,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) version: u32,
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) header: Bytes,
    pub(super) padding: Vec<Bytes>,
}

/// A tensor as the header lists it.
struct Listed {
    name: String,
    format: &'static dyn BlockFormat,
    shape: Vec<usize>,
    bytes: usize,
    offset: u64,
}

/// Reads a whole file.
pub(super) fn parse(file: &Bytes) -> Result<Parsed, ParseError> {
    let mut reader = Reader { file, at: 0 };
    let magic: [u8; 4] = reader.array("the magic number")?;
    if magic != MAGIC {
        return Err(ParseError::Magic { found: magic });
    }
    let version = reader.u32("the version")?;
    match version {
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 2 | 3) => return Err(ParseError::BigEndian),
        found => return Err(ParseError::Version { found }),
    }
    // A tensor takes at least 8 + 4 + 8 + 4 + 8 bytes here, a key-value pair 8 + 4 + 1.
    let tensors = reader.u64("the number of tensors")?;
    let pairs = reader.u64("the number of key-value pairs")?;
    reader.fits(pairs, 13, "key-value pairs")?;
    reader.fits(tensors, 32, "tensors")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..pairs {
        let (key, value) = reader.pair()?;
        if metadata.contains_key(&key) {
            return Err(ParseError::KeyTwice { key });
        }
        metadata.insert(key, value);
    }
    let mut listed = Vec::new();
    for _ in 0..tensors {
        listed.push(reader.tensor()?);
    }
    let alignment = alignment(&metadata)?;
    let data = (reader.at as u64).next_multiple_of(alignment);
    let (tensors, padding) = place(file, data, alignment, listed)?;
    let start = usize::try_from(data).unwrap_or(usize::MAX).min(file.len());
    let header = file.slice(0..start).unwrap_or_else(|| Bytes::fixed(&[]));
    Ok(Parsed { version, metadata, tensors, header, padding })
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64, ParseError> {
    let Some(value) = metadata.get(ALIGNMENT) else { return Ok(DEFAULT_ALIGNMENT) };
    value
        .as_u64()
        .filter(|a| a.is_power_of_two() && *a <= MAX_ALIGNMENT)
        .ok_or_else(|| ParseError::Alignment { found: value.shown() })
}

/// Finds the bytes of every tensor, aligned, inside the file, no two overlapping, and those of none.
fn place(
    file: &Bytes,
    data: u64,
    alignment: u64,
    listed: Vec<Listed>,
) -> Result<(Vec<TensorInfo>, Vec<Bytes>), ParseError> {
    let mut tensors = Vec::new();
    let mut spans = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for Listed { name, format, shape, bytes, offset } in listed {
        if !offset.is_multiple_of(alignment) {
            return Err(ParseError::Misaligned { tensor: name, offset, alignment });
        }
        let start = data.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(bytes as u64));
        let part = start.zip(end).and_then(|(start, end)| {
            file.slice(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
        });
        let Some(part) = part else {
            let (data, file) = (data, file.len());
            return Err(ParseError::Beyond { tensor: name, offset, bytes, data, file });
        };
        if !names.insert(name.clone()) {
            return Err(ParseError::TensorTwice { tensor: name });
        }
        spans.push((offset, offset + bytes as u64, tensors.len()));
        tensors.push(TensorInfo { name, format, shape, bytes: part });
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        let [(_, end, first), (start, _, second)] = [pair[0], pair[1]];
        if start < end {
            let name = |i: usize| tensors[i].name.clone();
            return Err(ParseError::Overlap { first: name(first), second: name(second), start });
        }
    }
    Ok((tensors, gaps(file, data, &spans)))
}

/// What spans of the data that follow one another leave of the file behind its header.
fn gaps(file: &Bytes, data: u64, spans: &[(u64, u64, usize)]) -> Vec<Bytes> {
    let end = (file.len() as u64).saturating_sub(data);
    let starts = spans.iter().map(|span| span.0).chain([end]);
    let ends = std::iter::once(0).chain(spans.iter().map(|span| span.1));
    let part = |(from, to): (u64, u64)| {
        let [from, to] = [from, to].map(|at| usize::try_from(data + at).ok());
        file.slice(from?..to?).filter(|it| !it.is_empty())
    };
    ends.zip(starts).filter_map(part).collect()
}

/// A place in the file.
struct Reader<'a> {
    file: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn left(&self) -> usize {
        self.file.len() - self.at
    }

    /// The next `count` bytes.
    fn take(&mut self, count: u64, what: &str) -> Result<Bytes, ParseError> {
        let part = usize::try_from(count)
            .ok()
            .and_then(|count| self.file.slice(self.at..self.at.checked_add(count)?));
        let truncated = || ParseError::Truncated {
            what: what.to_owned(),
            at: self.at,
            needed: count,
            left: self.left(),
        };
        let part = part.ok_or_else(truncated)?;
        self.at += part.len();
        Ok(part)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], ParseError> {
        let mut out = [0; N];
        out.copy_from_slice(&self.take(N as u64, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32, ParseError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, ParseError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Refuses a count of things that the rest of the file cannot hold.
    fn fits(&self, count: u64, bytes: usize, what: &str) -> Result<usize, ParseError> {
        let most = self.left() / bytes.max(1);
        usize::try_from(count).ok().filter(|count| *count <= most).ok_or_else(|| {
            ParseError::Count { what: what.to_owned(), at: self.at, count, left: self.left() }
        })
    }

    fn string(&mut self, longest: u64, what: &str) -> Result<String, ParseError> {
        let start = self.at;
        let length = self.u64(what)?;
        if length > longest {
            return Err(ParseError::Long { what: what.to_owned(), at: start, length, longest });
        }
        let bytes = self.take(length, what)?;
        let text = std::str::from_utf8(&bytes);
        Ok(text.map_err(|_| ParseError::NotUtf8 { what: what.to_owned(), at: start })?.to_owned())
    }

    fn kind(&mut self, key: &str) -> Result<ValueType, ParseError> {
        let at = self.at;
        let found = self.u32(key)?;
        ValueType::of(found).ok_or_else(|| ParseError::ValueType { key: key.into(), at, found })
    }

    fn pair(&mut self) -> Result<(String, Value), ParseError> {
        let key = self.string(MAX_KEY, "a key")?;
        let value = match self.kind(&key)? {
            ValueType::String => Value::String(self.string(u64::MAX, &key)?),
            ValueType::Array => Value::Array(self.elements(&key, 1)?),
            kind => self.number(kind, &key)?,
        };
        Ok((key, value))
    }

    fn number(&mut self, kind: ValueType, key: &str) -> Result<Value, ParseError> {
        let at = self.at;
        let bytes = self.take(kind.min_bytes() as u64, key)?;
        scalar(kind, &bytes).ok_or_else(|| ParseError::Bool { key: key.to_owned(), at })
    }

    fn elements(&mut self, key: &str, depth: usize) -> Result<Array, ParseError> {
        if depth > MAX_DEPTH {
            return Err(ParseError::Depth { key: key.to_owned(), at: self.at });
        }
        let kind = self.kind(key)?;
        let count = self.u64(key)?;
        let count = self.fits(count, kind.min_bytes(), &format!("elements of `{key}`"))?;
        Ok(match kind {
            ValueType::String => Array::Strings(
                (0..count).map(|_| self.string(u64::MAX, key)).collect::<Result<_, _>>()?,
            ),
            ValueType::Array => Array::Nested(
                (0..count).map(|_| self.elements(key, depth + 1)).collect::<Result<_, _>>()?,
            ),
            kind => {
                let start = self.at;
                let bytes = self.take((count * kind.min_bytes()) as u64, key)?;
                let wrong = bytes.iter().position(|b| kind == ValueType::Bool && *b > 1);
                if let Some(i) = wrong {
                    return Err(ParseError::Bool { key: key.to_owned(), at: start + i });
                }
                Array::Numbers { kind, bytes }
            }
        })
    }

    fn tensor(&mut self) -> Result<Listed, ParseError> {
        let name = self.string(MAX_NAME, "a tensor's name")?;
        let at = self.at;
        let axes = self.u32(&name)?;
        if axes == 0 || axes > MAX_DIMS {
            return Err(ParseError::Axes { tensor: name, at, found: axes });
        }
        let mut dims = Vec::new();
        for _ in 0..axes {
            dims.push(self.u64(&name)?);
        }
        let type_at = self.at;
        let id = self.u32(&name)?;
        let offset = self.u64(&name)?;
        let Some(format) = find_format(id) else {
            return Err(ParseError::TensorType { tensor: name, at: type_at, found: id });
        };
        let shape: Option<Vec<usize>> =
            dims.iter().rev().map(|d| usize::try_from(*d).ok().filter(|d| *d > 0)).collect();
        let weights =
            shape.as_ref().and_then(|s| s.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)));
        let (Some(shape), Some(weights)) = (shape, weights) else {
            return Err(ParseError::Shape { tensor: name, at, found: dims });
        };
        let shape = without_ones(&shape).to_vec();
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(format.block_len()) {
            let (format, block) = (format.name(), format.block_len());
            return Err(ParseError::Row { tensor: name, format, row, block });
        }
        let Some(bytes) = format.bytes(weights) else {
            return Err(ParseError::Shape { tensor: name, at, found: dims });
        };
        Ok(Listed { name, format, shape, bytes, offset })
    }
}
