//! A file in parts is the file, whichever part is named; parts that are not whole are told.
use super::build::{Build, Field};
use milm_compress::package::gguf;
use std::{fs, path::Path};

fn part(no: u32, count: u32, tensors: u32) -> Build {
    let head = if no == 0 {
        Build::default().with("general.architecture", "llama".into())
    } else {
        Build::default()
    };
    head.with("split.no", Field::U32(no))
        .with("split.count", Field::U32(count))
        .with("split.tensors.count", Field::U32(tensors))
        .floats(&format!("t{no}"), &[1, 2], &[no as f32, 1.0])
}

fn name(no: u32) -> String {
    format!("model-{:05}-of-00003.gguf", no + 1)
}

fn put(top: &Path, no: u32, build: &Build) {
    fs::write(top.join(name(no)), build.bytes()).unwrap();
}

#[test]
fn every_part_opens_the_whole() {
    let top = tempfile::tempdir().unwrap();
    (0..3).for_each(|no| put(top.path(), no, &part(no, 3, 3)));
    for no in 0..3 {
        let whole = gguf::open(&top.path().join(name(no))).unwrap();
        let names: Vec<&str> = whole.tensors.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["t0", "t1", "t2"]);
        assert_eq!(whole.architecture().unwrap(), "llama");
        assert_eq!(whole.tensors[0].shape, [2], "an outer axis of 1 means nothing");
    }
}

#[test]
fn parts_that_are_not_whole_are_named() {
    let top = tempfile::tempdir().unwrap();
    let says = |words: &[&str]| {
        let error = gguf::open(&top.path().join(name(0))).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "`{error}` lacks `{word}`");
        }
    };
    for no in [0, 2] {
        put(top.path(), no, &part(no, 3, 3));
    }
    says(&["missing", &name(1)]);
    put(top.path(), 1, &part(2, 3, 3));
    says(&[&name(1), "split.no"]);
    put(top.path(), 1, &part(1, 4, 3));
    says(&[&name(1), "split.count"]);
    put(top.path(), 1, &part(1, 3, 3).floats("t0", &[1], &[1.0]));
    says(&["`t0`", &name(1)]);
    put(top.path(), 1, &part(1, 3, 3).floats("more", &[1], &[1.0]));
    says(&["4 tensors", "3"]);
    fs::rename(top.path().join(name(0)), top.path().join("other.gguf")).unwrap();
    let error = gguf::open(&top.path().join("other.gguf")).unwrap_err().to_string();
    assert!(error.contains("-00001-of-00003.gguf"), "{error}");
}
