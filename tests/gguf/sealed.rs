//! `verify` of a GGUF file finds whatever has changed in it.
use super::export::{named, write};
use milm_compress::{
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
