//! `verify` of a GGUF file finds whatever has changed in it.
use super::{
    build::{Build, Field},
    export::{named, write},
};
use crate::cli::program;
use milm_compress::{
    checkpoint::sha256,
    linalg::Team,
    package::{self, gguf::ExportOptions},
    progress::Silent,
};
use std::{fs, path::Path};

fn intact(file: &Path) -> bool {
    package::verify(&file.display().to_string(), &Team::new(1), &Silent).is_ok_and(|it| it.passed())
}

/// One flipped bit in any part of the file: header, keys, values, list of tensors, padding, data.
#[test]
fn a_flipped_bit_anywhere_is_found() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("a.gguf");
    write(&named("qwen2"), &file, ExportOptions::default()).unwrap();
    let bytes = fs::read(&file).unwrap();
    assert!(intact(&file), "unchanged");
    let step = (bytes.len() / 1500).max(1);
    let near_the_end = bytes.len() - 40..bytes.len();
    let places = (0..bytes.len()).step_by(step).chain(0..64).chain(near_the_end);
    for (i, at) in places.enumerate() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (i % 8);
        fs::write(&file, changed).unwrap();
        assert!(!intact(&file), "bit {} of byte {at} of {}", i % 8, bytes.len());
    }
    for longer in [1, 32, 64] {
        fs::write(&file, [&bytes[..], &vec![0; longer]].concat()).unwrap();
        assert!(!intact(&file), "{longer} bytes more");
    }
    fs::write(&file, &bytes).unwrap();
    assert!(intact(&file), "as it was again");
}

/// Files of earlier versions have hashes of tensors alone, and `verify` says so.
#[test]
fn what_earlier_versions_do_not_cover_is_told() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("a.gguf");
    let values = [1.0_f32, -2.0, 0.5, 3.0];
    let data: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
    let told = |hash: String, name: &str| {
        let old = Build::default()
            .with("general.architecture", "llama".into())
            .with("general.name", name.into())
            .with("milm.tensor_sha256", Field::Texts(vec![hash]))
            .floats("w", &[4], &values);
        fs::write(&file, old.bytes()).unwrap();
        let output = program().arg("verify").arg(&file).output().unwrap();
        let text = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = told(sha256(&data), "a");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("metadata is not covered"), "{text}");
    assert_eq!(told(sha256(&data), "b"), (code, text), "another name is not found");
    let (code, text) = told(sha256(b"other"), "a");
    assert!(code == Some(2) && text.contains("tensor `w`"), "{code:?}: {text}");
}
