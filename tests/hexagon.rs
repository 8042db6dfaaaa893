//! Graphs for Qualcomm's HTP: its emulator computes what the package says, whole and without the CPU, and what
//! it would compute wrongly is refused.
use crate::{
    cli::program,
    util::{engines, golden, open},
};
use milm_compress::{
    forward::{self, Reference},
    linalg::Team,
    model::Model,
    package,
};
use predicates::{prelude::*, str::contains};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A package of a model and its folder for the HTP.
fn exported(top: &Path, (name, model): (&str, &str), flags: &[&str], lengths: &[&str]) -> PathBuf {
    let (made, folder) = (top.join(name), top.join(format!("{name}-htp")));
    let mut command = program();
    command.args(["quantize", model, "--for=hexagon", "--preset=fast", "-o"]).arg(&made);
    command.args(flags).assert().success();
    let mut command = program();
    command.args(["export", "--to=hexagon"]).arg(&made).arg("-o").arg(&folder).args(lengths);
    command.assert().success();
    folder
}

/// The last line that the folder's own program prints.
fn run(python: &Path, folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new(python);
    let ran = command.arg(folder.join("run.py")).args(args).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().lines().last().unwrap_or_default().to_owned()
}

/// Logits on the emulator, and ours of the same package in float32.
fn both(python: &Path, folder: &Path, model: &Model, ids: &[u32]) -> (Vec<f32>, Vec<f32>) {
    let out = folder.with_extension("f32");
    let list = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    run(python, folder, &["--ids", &list, "--logits", out.to_str().unwrap()]);
    let bytes = fs::read(out).unwrap();
    let theirs = bytes.as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
    let ours = forward::logits(model, &Reference, ids, &Team::new(2)).unwrap();
    (theirs, ours.into_raw_vec_and_offset().0)
}

/// Mean KL divergence in nats, and the share of tokens with the same first choice.
fn distance(theirs: &[f32], ours: &[f32], vocab: usize) -> (f64, f64) {
    assert_eq!(theirs.len(), ours.len());
    let (mut kl, mut same) = (0.0, 0);
    let rows = ours.len() / vocab;
    for (ours, theirs) in ours.chunks(vocab).zip(theirs.chunks(vocab)) {
        let log_sum = |row: &[f32]| row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        let (a, b) = (log_sum(ours), log_sum(theirs));
        for (x, y) in ours.iter().zip(theirs) {
            let (p, q) = (f64::from(*x) - a, f64::from(*y) - b);
            kl += p.exp() * (p - q);
        }
        let first = |row: &[f32]| (0..vocab).max_by(|a, b| row[*a].total_cmp(&row[*b]));
        same += usize::from(first(ours) == first(theirs));
    }
    (kl / rows as f64, same as f64 / rows as f64)
}

/// 256 tokens of text that the model was not calibrated on: read by the graph of prompts in pieces, with what fp16
/// costs. The bounds are those of the emulator's float32 graph (KL below 1e-5) with room for its rounding.
#[test]
fn the_htp_computes_the_package() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let opened = package::open("builtin:milm-mini").unwrap();
    let ids = opened.tokenizer().unwrap().encode(&text, true).unwrap();
    let rows: [(&str, &[&str]); 3] = [
        ("w4-g32", &["--scheme=w4a16", "--group-size=32"]),
        ("w4-rows", &["--scheme=w4a16", "--group-size=channel", "--rotate=none"]),
        ("w8", &["--scheme=w8a16"]),
    ];
    for (name, flags) in rows {
        let folder = exported(top.path(), (name, "builtin:milm-mini"), flags, &["--context=320"]);
        let model = open(&top.path().join(name));
        let (theirs, ours) = both(&python, &folder, &model, &ids[..256]);
        let (kl, same) = distance(&theirs, &ours, model.spec.vocab);
        println!("{name}: KL {kl:.1e}, same first choice {:.1} %", 100.0 * same);
        assert!(kl <= 2e-5 && same >= 0.995 - 1.0 / 256.0, "{name}: {kl} {same}");
        // The twin: one position off is another model.
        let (apart, _) = distance(
            &theirs[model.spec.vocab..],
            &ours[..255 * model.spec.vocab],
            model.spec.vocab,
        );
        assert!(apart > 0.1, "{apart}");
        program().arg("verify").arg(&folder).assert().success();
    }
}

/// Prompt and text by both graphs, whatever the length of the prompt: as `run` writes it.
#[test]
fn the_htp_writes_our_text() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let flags = ["--scheme=w4a16", "--group-size=32"];
    let lengths = ["--context=64", "--prompt=8"];
    let folder = exported(top.path(), ("w4", "builtin:milm-mini"), &flags, &lengths);
    for prompt in ["It was a dark night, and the old man", "Once"] {
        let theirs = run(&python, &folder, &[prompt, "--max-tokens=20"]);
        let theirs: Value = serde_json::from_str(&theirs).unwrap();
        let mut command = program();
        command
            .arg("run")
            .arg(top.path().join("w4"))
            .args(["--prompt", prompt, "--json", "--quiet"]);
        command.args(["--max-tokens=20", "--backend=reference"]);
        let ours: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        assert_eq!(theirs["ids"], ours["ids"], "{prompt}");
    }
}

/// Norms of queries and keys, a mixture, a window, a tied head with biases, and norms behind halves compile whole.
#[test]
fn other_families_compile_whole() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let ids: Vec<u32> = (0..24).map(|at| 3 + at * 7 % 80).collect();
    for name in ["qwen3-tied", "qwen3-moe", "mistral-sliding", "llama-tied-bias", "gemma3"] {
        let model = golden().join(name);
        let lengths = ["--context=32", "--prompt=8"];
        let flags = ["--scheme=w8a16"];
        let folder = exported(top.path(), (name, model.to_str().unwrap()), &flags, &lengths);
        let model = open(&top.path().join(name));
        let (theirs, ours) = both(&python, &folder, &model, &ids);
        let vocab = model.spec.vocab;
        let tokens = theirs.chunks(vocab).zip(ours.chunks(vocab));
        let mut kl: Vec<f64> = tokens.map(|(a, b)| distance(a, b, vocab).0).collect();
        kl.sort_by(f64::total_cmp);
        let middle = kl[kl.len() / 2];
        println!(
            "{name}: KL of the middle token {middle:.1e}, of the last {:.1e}",
            kl[kl.len() - 1]
        );
        // Random weights: fp16's 2^-11 on logits of about 4 is 2e-3 a logit. Of few tokens a router chooses
        // another expert.
        assert!(middle < 1e-4, "{name}: {kl:?}");
    }
}

/// What the HTP would take and compute wrongly, or not take, is refused by name before anything is written.
#[test]
fn what_the_htp_does_not_compute_is_refused() {
    let top = tempfile::tempdir().unwrap();
    let quantized = |name: &str, flags: &[&str]| {
        let mut command = program();
        command.args(["quantize", "builtin:milm-mini", "--for=milm", "--rotate=none"]);
        command.args(["--calibration-samples=2", "-o"]).arg(top.path().join(name)).args(flags);
        command.assert().success();
    };
    quantized("zeros", &["--preset=fast", "--asymmetric"]);
    quantized("columns", &["--outliers=0.125"]);
    quantized("w8a8", &["--preset=fast", "--scheme=w8a8"]);
    quantized("fine", &["--preset=fast"]);
    let refused = |name: &str, flags: &[&str], what: &str| {
        let mut command = program();
        command.arg("export").arg(top.path().join(name)).args(["--to=hexagon", "-o"]);
        command.arg(top.path().join("out")).args(flags);
        command.assert().code(2).stderr(contains(what).and(contains("hint: ")));
        assert!(!top.path().join("out").exists());
    };
    refused("zeros", &[], "with zero points, which it multiplies wrongly");
    refused("columns", &[], "without --outliers");
    refused("w8a8", &[], "int8 activations");
    refused("fine", &["--context=64", "--prompt=64"], "no place behind a prompt of 64");
    refused("fine", &["--context=100000"], "the model has");
    refused("fine", &["--graph=float"], "means nothing in this form");
    for flag in ["--asymmetric", "--scheme=w8a8"] {
        let mut command = program();
        command.args(["quantize", "builtin:milm-mini", "--for=hexagon", "--dry-run", flag]);
        command.assert().code(2).stderr(contains("would not load in Hexagon HTP"));
    }
    let folder = exported(top.path(), ("w8", "builtin:milm-mini"), &["--scheme=w8a16"], &[]);
    let mut command = program();
    command.arg("run").arg(&folder).args(["--prompt", "a"]);
    command.assert().code(2).stderr(contains("graphs for one engine"));
}
