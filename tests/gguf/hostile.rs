//! Files that lie: each is an error that says where, never a panic or a large allocation.
use super::build::{Build, Field, string};
use milm_compress::{
    package::gguf::{Gguf, Import, ParseError},
    tensor::{Bytes, FloatType},
};
use proptest::prelude::*;

fn parse(bytes: Vec<u8>) -> Result<Gguf, ParseError> {
    Gguf::parse("test.gguf", &Bytes::owned(bytes))
}

fn error(build: &Build) -> String {
    parse(build.bytes()).unwrap_err().to_string()
}

fn says(build: &Build, words: &[&str]) {
    let text = error(build);
    for word in words {
        assert!(text.contains(word), "`{text}` lacks `{word}`");
    }
}

/// A small file with a value of every kind.
fn valid() -> Build {
    let nested = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &0_u32.to_le_bytes()].concat();
    let nested = [nested, 2_u64.to_le_bytes().into(), vec![5, 6]].concat();
    Build::default()
        .with("general.architecture", "llama".into())
        .with("a.u32", Field::U32(7))
        .with("a.f32", Field::F32(1e-5))
        .with("a.bool", Field::Bool(true))
        .with("a.texts", Field::Texts(vec!["x".into(), "yz".into()]))
        .with("a.i32s", Field::I32s(vec![-1, 2]))
        .with("a.f32s", Field::F32s(vec![0.5]))
        .with("a.nested", Field::Raw(9, nested))
        .floats("first.weight", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .tensor("second.weight", &[2, 32], 8, &[1; 68])
}

#[test]
fn a_valid_file_is_read_whole() {
    let gguf = parse(valid().bytes()).unwrap();
    assert_eq!(gguf.architecture().unwrap(), "llama");
    assert_eq!(gguf.metadata["a.f32"].as_f64(), Some(1e-5));
    assert_eq!(gguf.metadata.len(), 8);
    let second = gguf.tensor("second.weight").unwrap();
    assert_eq!((second.format.name(), &second.shape[..]), ("Q8_0", &[2, 32][..]));
    assert_eq!(&*second.bytes, &[1; 68]);
}

/// No part of a valid file is one, up to the padding behind the last tensor.
#[test]
fn every_truncation_is_an_error() {
    let bytes = valid().bytes();
    let padding = 96 - 68;
    for length in 0..bytes.len() - padding {
        let error = parse(bytes[..length].to_vec()).unwrap_err().to_string();
        assert!(!error.is_empty());
    }
    parse(bytes[..bytes.len() - padding].to_vec()).unwrap();
}

#[test]
fn another_format_is_named() {
    assert!(matches!(parse(b"PK\x03\x04....".into()), Err(ParseError::Magic { .. })));
    let mut bytes = valid().bytes();
    bytes[4] = 1;
    assert!(matches!(parse(bytes.clone()), Err(ParseError::Version { found: 1 })));
    bytes[4..8].copy_from_slice(&[0, 0, 0, 3]);
    assert!(matches!(parse(bytes), Err(ParseError::BigEndian)));
}

#[test]
fn absurd_counts_are_refused_before_anything_is_allocated() {
    for (at, what) in [(8, "tensors"), (16, "key-value pairs")] {
        for count in [u64::MAX, 1 << 40, 1 << 20] {
            let mut bytes = valid().bytes();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            let error = parse(bytes).unwrap_err();
            assert!(matches!(error, ParseError::Count { .. }), "{error}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}

#[test]
fn an_array_longer_than_the_file_is_refused() {
    for kind in [0_u32, 6, 8, 9, 12] {
        for count in [u64::MAX, u64::MAX / 8, 1 << 30] {
            let value = [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
            says(&Build::default().with("a.b", Field::Raw(9, value)), &["elements of `a.b`"]);
        }
    }
}

#[test]
fn deep_nesting_is_refused() {
    let mut value = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat().repeat(1000);
    value.extend([0; 64]);
    says(&Build::default().with("a.deep", Field::Raw(9, value)), &["a.deep", "nested"]);
}

#[test]
fn long_strings_are_refused() {
    let length = u64::MAX.to_le_bytes().to_vec();
    says(&Build::default().with("a.text", Field::Raw(8, length)), &["a.text", "truncated"]);
    let key = "k".repeat(70_000);
    says(&Build::default().with(&key, Field::U32(1)), &["a key", "at most 65535"]);
    let name = "t".repeat(300);
    says(&Build::default().info(&name, &[1], 0, 0), &["a tensor's name", "at most 255"]);
}

#[test]
fn text_must_be_text() {
    let bad = string(&[0xff, 0xfe]);
    says(&Build::default().with("a.text", Field::Raw(8, bad)), &["a.text", "UTF-8"]);
}

#[test]
fn values_must_have_a_known_type() {
    says(&Build::default().with("a.b", Field::Raw(13, vec![0; 8])), &["a.b", "type 13"]);
    says(&Build::default().with("a.b", Field::Raw(7, vec![2])), &["a.b", "bool"]);
}

#[test]
fn a_key_or_tensor_stands_once() {
    let twice = Build::default().with("a.b", Field::U32(1)).with("a.b", Field::U32(2));
    says(&twice, &["a.b", "twice"]);
    let twice = Build::default().floats("w", &[1], &[1.0]).floats("w", &[1], &[1.0]);
    says(&twice, &["`w`", "twice"]);
}

#[test]
fn the_alignment_must_be_a_power_of_two() {
    for bad in [0, 3, 48, 1 << 30] {
        let build = Build::default().with("general.alignment", Field::U32(bad));
        says(&build, &["general.alignment", &format!("`{bad}`")]);
    }
    says(&Build::default().with("general.alignment", "big".into()), &["general.alignment"]);
}

#[test]
fn shapes_must_have_a_size() {
    says(&Build::default().info("w", &[], 0, 0), &["`w`", "0 axes"]);
    says(&Build::default().info("w", &[1; 5], 0, 0), &["`w`", "5 axes"]);
    for dims in [&[0][..], &[u64::MAX], &[1 << 32, 1 << 32], &[1 << 62, 2], &[1 << 20; 4]] {
        says(&Build::default().info("w", dims, 0, 0), &["`w`", "no size"]);
    }
    says(&Build::default().info("w", &[33, 2], 8, 0), &["`w`", "33", "Q8_0"]);
}

#[test]
fn unread_types_are_named() {
    for (id, name) in [(16, "IQ2_XXS"), (31, "Q4_0_4_4"), (40, "NVFP4")] {
        says(&Build::default().info("w", &[256], id, 0), &["`w`", name]);
    }
    says(&Build::default().info("w", &[256], 4_000_000_000, 0), &["`w`", "4000000000"]);
}

#[test]
fn tensors_must_lie_in_the_file() {
    let with = |offset| Build::default().floats("v", &[8], &[0.0; 8]).info("w", &[8], 0, offset);
    says(&with(8), &["`w`", "multiple of 32"]);
    says(&with(32), &["`w`", "beyond"]);
    says(&with(u64::MAX - 31), &["`w`", "beyond"]);
    says(&with(0), &["`v`", "`w`", "overlap"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    /// Bytes anywhere may be wrong: reading and planning end, in whatever way.
    #[test]
    fn flipped_bytes_never_panic(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut bytes = super::tokenizers::tiny().bytes();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(gguf) = parse(bytes) {
            let _ = Import::plan(&gguf, FloatType::F32);
        }
    }

    #[test]
    fn random_bytes_after_the_header_never_panic(
        tail in proptest::collection::vec(any::<u8>(), 0..400), pairs in 0_u8..4, tensors in 0_u8..4,
    ) {
        let head = [&b"GGUF\x03\0\0\0"[..], &[tensors, 0, 0, 0, 0, 0, 0, 0, pairs], &[0; 7]];
        let _ = parse([head.concat(), tail].concat());
    }
}
