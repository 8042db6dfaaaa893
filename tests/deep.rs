//! `verify --deep` finds what hashes of files cannot: a package that was changed and sealed again.
use crate::cli::program;
use milm_compress::{
    checkpoint::sha256,
    linalg::Team,
    package::{self, Manifest, Problem, Verification},
    progress::Silent,
};
use predicates::prelude::*;
use serde_json::Value;
use std::{fs, path::Path};

fn quantized(target: &Path, flags: &[&str]) {
    let mut command = program();
    command.args(["quantize", "builtin:milm-mini", "--for=milm", "--rotate=none", "-o"]);
    command.arg(target).args(flags);
    command.assert().success();
}

fn deep(target: &Path) -> Verification {
    package::verify_deep(target.to_str().unwrap(), &Team::new(2), &Silent).unwrap()
}

fn manifest(target: &Path) -> Manifest {
    package::open(target.to_str().unwrap()).unwrap().manifest.unwrap()
}

/// Changes bytes of a stored tensor and seals the package again, as somebody would who has this
/// program: every hash fits but those of values.
fn forge(target: &Path, tensor: &str, change: impl Fn(&mut [u8])) {
    let mut manifest = manifest(target);
    let record = manifest.tensors.get_mut(tensor).unwrap();
    let path = target.join(&record.file);
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let said: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let at = |i: usize| said[tensor]["data_offsets"][i].as_u64().unwrap() as usize + 8 + header;
    let here = &mut bytes[at(0)..at(1)];
    change(here);
    record.sha256 = sha256(here);
    manifest.files.get_mut(&record.file).unwrap().sha256 = sha256(&bytes);
    fs::write(&path, bytes).unwrap();
    fs::write(target.join("milm.json"), manifest.sealed()).unwrap();
    let plain = package::verify(target.to_str().unwrap(), &Team::new(1), &Silent).unwrap();
    assert!(plain.passed(), "hashes fit: {:?}", plain.problems);
}

/// What is wrong with a package after such a change, and nothing after the change back.
fn found(target: &Path, tensor: &str, change: impl Fn(&mut [u8])) -> (String, String) {
    let mut before = Vec::new();
    let stored = manifest(target).tensors[tensor].clone();
    forge(target, tensor, |_| {});
    assert!(deep(target).passed());
    let path = target.join(&stored.file);
    before.push(fs::read(&path).unwrap());
    before.push(fs::read(target.join("milm.json")).unwrap());
    forge(target, tensor, change);
    let problems = deep(target).problems;
    fs::write(path, &before[0]).unwrap();
    fs::write(target.join("milm.json"), &before[1]).unwrap();
    assert!(deep(target).passed(), "as it was");
    match problems.as_slice() {
        [Problem::Weight { tensor, reason }] => (tensor.clone(), reason.clone()),
        other => panic!("one problem: {other:?}"),
    }
}

#[test]
fn a_forged_code_scale_or_shape_is_found() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("int4");
    quantized(&target, &["--preset=fast", "--group-size=32", "--asymmetric"]);
    let whole = deep(&target);
    assert!(whole.passed(), "{:?}", whole.problems);
    let weights = manifest(&target).quantized;
    assert_eq!((whole.unrecorded, weights.is_empty()), (0, false));
    assert!(whole.decoded > weights.len(), "norms too");
    let weight = "model.layers.3.self_attn.q_proj.weight";
    let part = |suffix: &str| format!("{weight}{suffix}");
    // One code is another one.
    let (tensor, reason) = found(&target, &part("_packed"), |bytes| bytes[7] ^= 0x10);
    assert!(tensor == weight && reason.contains("the hash"), "{tensor}: {reason}");
    // Scales are bfloat16: infinity, then 0.
    for (scale, said) in [([0x80, 0x7f], "group 1 is inf"), ([0, 0], "group 1 is 0")] {
        let (tensor, reason) =
            found(&target, &part("_scale"), |bytes| bytes[2..4].copy_from_slice(&scale));
        assert!(tensor == weight && reason.contains(said), "{tensor}: {reason}");
    }
    let (tensor, reason) = found(&target, &part("_shape"), |bytes| bytes[0] ^= 1);
    assert!(tensor == weight && reason.contains("`weight_shape`"), "{tensor}: {reason}");
    let (_, reason) = found(&target, &part("_zero_point"), |bytes| bytes[0] ^= 1);
    assert!(reason.contains("the hash"), "{reason}");
    let (tensor, reason) = found(&target, "model.norm.weight", |bytes| {
        bytes[2..4].copy_from_slice(&[0xc0, 0x7f]);
    });
    assert!(tensor == "model.norm.weight" && reason.contains("NaN"), "{tensor}: {reason}");
}

/// Outliers, static scales and codes chosen on text: written by another way, recorded all the same.
#[test]
fn weights_that_were_rounded_on_text_are_recorded() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("outliers");
    let text = ["--calibration-samples=2", "--calibration-tokens=64"];
    quantized(&target, &[&["--outliers=0.125", "--group-size=32"][..], &text].concat());
    let whole = deep(&target);
    assert!(whole.passed() && whole.unrecorded == 0, "{:?}", whole.problems);
    let outliers = "model.layers.0.mlp.up_proj.outliers.weight";
    let (tensor, reason) = found(&target, outliers, |bytes| bytes[9] ^= 1);
    assert_eq!(tensor, "model.layers.0.mlp.up_proj.weight");
    assert!(reason.contains("the hash"), "{reason}");
}

/// The same weights have the same hashes in other files; others do not.
#[test]
fn hashes_of_values_belong_to_the_values() {
    let top = tempfile::tempdir().unwrap();
    let hashes = |name: &str, flags: &[&str]| {
        let target = top.path().join(name);
        quantized(&target, &[&["--preset=fast"][..], flags].concat());
        let weights = manifest(&target).quantized.into_iter();
        weights.map(|(name, it)| (name, it.values_sha256.unwrap())).collect::<Vec<_>>()
    };
    let one = hashes("one", &["--scheme=w8a16"]);
    assert_eq!(one, hashes("shards", &["--scheme=w8a16", "--shard-size=1MB", "--threads=1"]));
    let other = hashes("other", &["--scheme=w8a16", "--method=absmax"]);
    assert!(one.iter().zip(&other).any(|(one, other)| one.0 == other.0 && one.1 != other.1));
}

#[test]
fn packages_without_recorded_values_are_told_apart() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("old");
    quantized(&target, &["--preset=fast", "--scheme=w8a16"]);
    let mut old = manifest(&target);
    old.quantized.values_mut().for_each(|it| it.values_sha256 = None);
    fs::write(target.join("milm.json"), old.sealed()).unwrap();
    let result = deep(&target);
    assert_eq!((result.passed(), result.unrecorded), (true, old.quantized.len()));
    let mut command = program();
    command.args(["verify", "--deep"]).arg(&target).assert().success().stderr(
        predicate::str::contains("no recorded hash").and(predicate::str::contains("older")),
    );
}

/// A scale of a GGUF file that is infinite, under hashes that fit.
#[test]
fn values_of_a_gguf_file_are_finite() {
    let top = tempfile::tempdir().unwrap();
    let (folder, file) = (top.path().join("package"), top.path().join("model.gguf"));
    quantized(&folder, &["--preset=fast", "--group-size=32"]);
    let mut command = program();
    command.arg("export").arg(&folder).args(["--to", "gguf", "-o"]).arg(&file).assert().success();
    let whole = deep(&file);
    assert!(whole.passed() && whole.decoded == whole.tensors, "{:?}", whole.problems);
    let gguf = package::gguf::open(&file).unwrap();
    let tensor = gguf.tensors.iter().find(|it| it.name == "blk.2.attn_q.weight").unwrap();
    assert_eq!(tensor.format.name(), "Q4_0");
    let (old, mut blocks) = (sha256(&tensor.bytes), tensor.bytes.to_vec());
    let mut bytes = fs::read(&file).unwrap();
    let place = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|it| it == what);
    let at = place(&bytes, &blocks).unwrap();
    drop(gguf);
    blocks[18..20].copy_from_slice(&[0, 0x7c]);
    bytes[at..at + blocks.len()].copy_from_slice(&blocks);
    let at = place(&bytes, old.as_bytes()).unwrap();
    bytes[at..at + old.len()].copy_from_slice(sha256(&blocks).as_bytes());
    crate::util::reseal(&file, bytes);
    let problems = deep(&file).problems;
    assert!(
        matches!(&problems[..], [Problem::Weight { tensor, .. }] if tensor == "blk.2.attn_q.weight"),
        "{problems:?}"
    );
}
