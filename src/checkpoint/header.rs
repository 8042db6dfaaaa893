//! The safetensors format: 8 bytes of header length, a JSON header, data.
//!
//! Written here rather than taken from the `safetensors` crate, whose errors name neither file
//! nor tensor. The rules are the crate's: at most 100 MB of header, data without holes.
use super::HeaderError;
use crate::tensor::{Bytes, Dtype, RawTensor};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;

/// Longest header that is read, as in the safetensors crate.
pub(super) const MAX_HEADER: u64 = 100_000_000;
const PREFIX: usize = 8;

#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// Entries in the order of the header, repeated names included.
struct Entries(Vec<(String, Entry)>);

impl<'de> serde::Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Entries;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut all = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        all.push((name, map.next_value()?));
                    }
                }
                Ok(Entries(all))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// The tensors of a safetensors file, sharing its bytes. Tensors need not be aligned.
pub fn parse(file: &Bytes) -> Result<BTreeMap<String, RawTensor>, HeaderError> {
    let short = HeaderError::TooSmall { bytes: file.len() };
    let prefix = *file.first_chunk::<PREFIX>().ok_or(short)?;
    let header = u64::from_le_bytes(prefix);
    let long = || HeaderError::Length { header, bytes: file.len() };
    if header > MAX_HEADER {
        return Err(long());
    }
    let start = PREFIX + header as usize;
    let text = file.get(PREFIX..start).ok_or_else(long)?;
    let Entries(entries) = serde_json::from_slice(text)?;
    let data = file.slice(start..file.len()).ok_or_else(long)?;
    check_layout(&entries, data.len())?;
    let mut tensors = BTreeMap::new();
    for (name, entry) in entries {
        let dtype = check_size(&name, &entry)?;
        let (start, end) = entry.data_offsets;
        let beyond = HeaderError::Beyond { tensor: name.clone(), end, data: data.len() };
        let bytes = data.slice(start..end).ok_or(beyond)?;
        let tensor = RawTensor { dtype, shape: entry.shape, bytes };
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(HeaderError::Twice { tensor: name });
        }
    }
    Ok(tensors)
}

/// Type and shape agree with the offsets.
/// An entry of the metadata of a safetensors file; `None` when there is none or no header.
pub fn metadata(file: &[u8], key: &str) -> Option<String> {
    let header = u64::from_le_bytes(*file.first_chunk::<PREFIX>()?);
    let end = usize::try_from(header).ok()?.checked_add(PREFIX)?;
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(file.get(PREFIX..end)?).ok()?;
    Some(header.get("__metadata__")?.get(key)?.as_str()?.to_owned())
}

fn check_size(name: &str, entry: &Entry) -> Result<Dtype, HeaderError> {
    let tensor = name.to_owned();
    let named = serde_json::Value::String(entry.dtype.clone());
    let Ok(dtype) = serde_json::from_value::<Dtype>(named) else {
        return Err(HeaderError::Type { tensor, dtype: entry.dtype.clone() });
    };
    let bits = entry
        .shape
        .iter()
        .try_fold(1_usize, |product, n| product.checked_mul(*n))
        .and_then(|elements| elements.checked_mul(dtype.bitsize()));
    let Some(bits) = bits.filter(|bits| bits.is_multiple_of(8)) else {
        let (shape, dtype) = (entry.shape.clone(), entry.dtype.clone());
        return Err(HeaderError::Size { tensor, shape, dtype });
    };
    let ((start, end), expected) = (entry.data_offsets, bits / 8);
    let found = end as i128 - start as i128;
    if found != expected as i128 {
        let shape = entry.shape.clone();
        return Err(HeaderError::Offsets { tensor, shape, expected, start, end, found });
    }
    Ok(dtype)
}

/// Tensors follow each other without overlaps and holes, up to the end of the file.
fn check_layout(entries: &[(String, Entry)], data: usize) -> Result<(), HeaderError> {
    let mut order: Vec<&(String, Entry)> = entries.iter().collect();
    order.sort_by_key(|(_, entry)| entry.data_offsets);
    let (mut at, mut before) = (0, "");
    for (name, entry) in order {
        let (start, end) = entry.data_offsets;
        if end > data {
            return Err(HeaderError::Beyond { tensor: name.clone(), end, data });
        }
        if start < at {
            return Err(HeaderError::Overlap { first: before.to_owned(), second: name.clone() });
        }
        if start > at {
            return Err(HeaderError::Hole { bytes: start - at, what: format!("tensor `{name}`") });
        }
        (at, before) = (end.max(start), name);
    }
    if at < data {
        return Err(HeaderError::Hole { bytes: data - at, what: "the end of the file".into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(header: &str, data: usize) -> Bytes {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 7);
        Bytes::owned(bytes)
    }

    fn error(header: &str, data: usize) -> String {
        parse(&file(header, data)).unwrap_err().to_string()
    }

    const A: &str = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;

    #[test]
    fn tensors_share_the_bytes_of_the_file() {
        let b = r#""b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}"#;
        let meta = r#""__metadata__":{"format":"pt"}"#;
        let all = parse(&file(&format!("{{{meta},{b},{A}}} "), 11)).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((all["a"].dtype, &*all["b"].shape), (Dtype::F32, &[3][..]));
        assert_eq!(&*all["b"].bytes, &[7; 3]);
    }

    #[test]
    fn each_defect_is_named() {
        let one = |shape, offsets: &str| {
            format!(r#"{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        assert!(error(&one("[2]", "[0,9]"), 9).contains("`x`: shape [2] needs 8 bytes"));
        assert!(error(&one("[2]", "[8,0]"), 8).contains("belong to no tensor"));
        assert!(error(&one("[2]", "[0,8]"), 7).contains("`x` ends at 8, the file's data at 7"));
        assert!(error(&one("[2]", "[0,8]"), 9).contains("1 bytes before the end"));
        assert!(error(&one("[4294967296,4294967296,9]", "[0,8]"), 8).contains("has no size"));
        assert!(error(&one("[-1]", "[0,8]"), 8).starts_with("header: invalid value"));
        assert!(error(&one("[2]", "[0,8]").replace("F32", "F33"), 8).contains("type `F33`"));
        let overlap = A.replace("\"a\"", "\"b\"").replace("[0,8]", "[4,12]");
        assert_eq!(error(&format!("{{{A},{overlap}}}"), 12), "tensors `a` and `b` overlap");
        let empty = r#""a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
        assert_eq!(error(&format!("{{{empty},{A}}}"), 8), "tensor `a` is listed twice");
        assert!(error("{\"x\"", 0).starts_with("header: EOF"));
        let huge = parse(&Bytes::owned(vec![255; 40])).unwrap_err().to_string();
        assert!(huge.contains("header of 18446744073709551615 bytes in a file of 40"));
        let short = parse(&Bytes::owned(vec![1; 7])).unwrap_err().to_string();
        assert!(short.contains("truncated: 7 bytes"));
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(at in 0_usize..120, byte in any::<u8>(), keep in 0_usize..130) {
            let b = r#""b":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]}"#;
            let mut bytes = file(&format!("{{{A},{b}}}"), 16).to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(keep + 2);
            if let Ok(all) = parse(&Bytes::owned(bytes)) {
                for tensor in all.values() {
                    prop_assert_eq!(tensor.len() * tensor.dtype.bitsize() / 8, tensor.bytes.len());
                }
            }
        }
    }
}
