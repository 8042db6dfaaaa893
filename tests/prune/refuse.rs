//! What cannot work is refused before any work, with what to do.
use super::names;
use crate::{cli::program, util};
use std::path::Path;

/// The message of a run that must fail, with nothing written.
fn refused(model: &str, flags: &[&str]) -> String {
    let top = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["prune", model, "--quiet", "-o"]).arg(top.path().join("out")).args(flags);
    let output = command.assert().code(2).get_output().clone();
    assert!(output.stdout.is_empty(), "{flags:?}");
    assert_eq!(names(top.path()), Vec::<String>::new(), "{flags:?} leaves something");
    String::from_utf8(output.stderr).unwrap()
}

const MINI: &str = "builtin:milm-mini";

#[test]
fn targets_that_no_cut_reaches() {
    for (flags, told) in [
        // 4096·192 + 192 + 8·(2·192 + 192·(2·192 + 2·64) + 3·192·512) parameters.
        (&["--target-params=4B"][..], &["4000000000", "3935424"][..]),
        (&["--target-params=3935424"], &["3935424"]),
        (&["--target-params=700K"], &["700000", "embeddings", "786624", "smallest"]),
        (&["--target-bytes=1MB"], &["500000", "embeddings", "786624"]),
        (&["--keep=0.0001"], &["smallest", "--drop-layers"]),
        (&["--keep=1.5"], &["--keep", "1.5", "up to 1"]),
        (&["--attn-width=100"], &["--attn-width", "100", "multiple of 12"]),
        (&["--attn-width=96", "--attn-unit=groups", "--keep=0.5"], &["--keep", "--attn-width"]),
        (&["--attn-width=128", "--attn-unit=groups"], &["multiple of 96", "whole key/value heads"]),
        (
            &["--attn-width=32", "--attn-unit=heads"],
            &["multiple of 64", "equally many query heads"],
        ),
        (&["--ffn-width=300"], &["--ffn-width", "300", "--multiple"]),
        (&["--ffn-width=1024"], &["--ffn-width", "1024", "512"]),
        (&["--attn-width=192", "--ffn-width=512"], &["a smaller width"]),
        (&["--drop-layers=8"], &["--drop-layers", "at most 7 of the 8"]),
        (&[], &["one kind of target", "--keep", "hint: "]),
        (&["--target-params=lots"], &["3.5B"]),
    ] {
        let text = refused(MINI, flags);
        for part in told {
            assert!(text.contains(part), "{flags:?}: `{part}` is not in: {text}");
        }
    }
}

#[test]
fn an_unknown_score_is_known_before_any_work() {
    let text = refused(MINI, &["--keep=0.8", "--score=transakt"]);
    assert!(text.contains("`transakt`") && text.contains("did you mean `transact`?"), "{text}");
    refused(MINI, &["--keep=0.8", "--score=transakt", "--dry-run"]);
    let text = refused(MINI, &["--keep=0.8", "--score=xyzzy"]);
    assert!(text.contains("`wanda`") && text.contains("`obs`"), "{text}");
}

#[test]
fn too_few_tokens() {
    let few = ["--keep=0.8", "--balance=1", "--calibration-samples=2", "--calibration-tokens=100"];
    let text = refused(MINI, &few);
    for part in ["384 rows", "200 tokens", "--allow-rank-deficient"] {
        assert!(text.contains(part), "{text}");
    }
    let top = tempfile::tempdir().unwrap();
    let run = |samples: &str, more: &[&str]| {
        let mut command = program();
        command.args([
            "prune",
            MINI,
            "--keep=0.8",
            "--balance=1",
            "--calibration-tokens=100",
            "-o",
        ]);
        command.arg(top.path().join(samples)).args(["--calibration-samples", samples]).args(more);
        let output = command.assert().success().get_output().clone();
        String::from_utf8(output.stderr).unwrap()
    };
    let text = run("2", &["--allow-rank-deficient"]);
    assert!(text.contains("warning: 200 calibration tokens"), "{text}");
    let text = run("6", &[]);
    assert!(text.contains("warning: 600 calibration tokens"), "{text}");
    let text = run("40", &["--quiet"]);
    assert!(!text.contains("warning"), "{text}");
}

#[test]
fn a_quantized_package_is_no_float_model() {
    let top = tempfile::tempdir().unwrap();
    let package = top.path().join("package");
    let mut quantize = program();
    quantize.args(["quantize", MINI, "--scheme", "w8a16", "-o"]);
    quantize.arg(&package).assert().success();
    for flags in [&["--keep=0.8"][..], &["--ffn-width=256"], &["--drop-layers=1"]] {
        for more in [&[][..], &["--dry-run"]] {
            let text = refused(package.to_str().unwrap(), &[flags, more].concat());
            assert!(text.contains("is quantized already"), "{flags:?}: {text}");
            assert!(text.contains("hint: prune the float checkpoint"), "{flags:?}: {text}");
        }
    }
}

#[test]
fn a_model_without_a_tokenizer_is_named() {
    let model = util::golden().join("llama");
    let text = refused(model.to_str().unwrap(), &["--keep=0.8", "--calibration-tokens=64"]);
    assert!(text.contains("tokenizer.json"), "{text}");
}

#[test]
fn an_output_that_is_there_is_kept() {
    let top = tempfile::tempdir().unwrap();
    let out = top.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("mine.txt"), "mine").unwrap();
    let run = |more: &[&str]| {
        let mut command = program();
        command.args(["prune", MINI, "--keep=0.8", "-o"]).arg(&out).args(more);
        command.assert().code(2);
    };
    run(&[]);
    run(&["--force"]);
    assert!(Path::new(&out).join("mine.txt").exists());
    assert_eq!(names(top.path()), ["out"]);
}
