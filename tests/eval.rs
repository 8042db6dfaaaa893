//! The verb `eval` from text to exit code, on the carried model.
use assert_cmd::Command;
use serde_json::Value;
use std::{fs, path::Path};

const MINI: &str = "builtin:milm-mini";

fn eval(dir: &Path, args: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("milm-compress").unwrap().current_dir(dir).arg("eval").args(args).assert()
}

fn json(dir: &Path, args: &[&str], code: i32) -> Value {
    let done = eval(dir, &[args, &["--json", "-"]].concat()).code(code);
    serde_json::from_slice(&done.get_output().stdout).unwrap()
}

fn error(dir: &Path, args: &[&str]) -> String {
    let done = eval(dir, args).code(2);
    assert!(done.get_output().stdout.is_empty());
    String::from_utf8(done.get_output().stderr.clone()).unwrap()
}

/// A folder with a text of the model's kind, some 1500 tokens.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let lines = (0..120).map(|i| {
        format!("The {i}th traveller said that the old road to the town was long and dark.\n")
    });
    fs::write(dir.path().join("a.txt"), lines.collect::<String>()).unwrap();
    dir
}

const SMALL: &[&str] = &["--text", "a.txt", "--ctx", "64", "--windows", "3"];

#[test]
fn a_model_does_not_diverge_from_itself() {
    let dir = folder();
    let gates = ["--max-kl", "0", "--max-ppl-increase", "0%", "--min-top1", "100%"];
    let args = [&[MINI, "--reference", MINI], SMALL, &gates].concat();
    let result = json(dir.path(), &args, 0);
    assert_eq!(result["kl_mean"], 0.0);
    assert_eq!(result["top1_agreement"], 1.0);
    assert_eq!(result["ppl"], result["ppl_reference"]);
    assert_eq!(result["figures"]["divergence"]["ppl_ratio"]["low"], 1.0);
    assert_eq!(result["tokens"], 3 * 63);
    assert_eq!(result["passed"], true);
}

#[test]
fn a_stored_reference_stands_for_its_model() {
    let dir = folder();
    let save = [&[MINI, "--save-reference", "mini.ref"], SMALL].concat();
    let first = json(dir.path(), &save, 0);
    assert!(error(dir.path(), &save).contains("`mini.ref` exists"));
    let again = json(dir.path(), &[&[MINI, "--reference", "mini.ref"], SMALL].concat(), 0);
    assert_eq!(again["ppl_reference"], first["ppl"], "the right token's is stored exactly");
    assert_eq!(again["top1_agreement"], 1.0);
    // float16 log-probabilities: relative 2^-11, about half its square times their mean square.
    let kl = again["kl_mean"].as_f64().unwrap();
    assert!((0.0..0.5 * 2.0_f64.powi(-22) * 400.0).contains(&kl), "{kl}");

    let other = [MINI, "--reference", "mini.ref", "--text", "a.txt", "--ctx", "32"];
    assert!(error(dir.path(), &other).contains("made with ctx `64`"));
    let names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "nothing is left behind: {names:?}");
}

#[test]
fn a_failed_gate_is_exit_code_1_in_every_form() {
    let dir = folder();
    let quantize = [MINI, "--scheme", "w4a16", "--group-size", "64", "-o", "package"];
    let mut command = Command::cargo_bin("milm-compress").unwrap();
    command.current_dir(dir.path()).arg("quantize").args(quantize).assert().success();
    let forms = ["--junit", "e.xml", "--markdown", "e.md", "--max-kl", "1e-9", "--min-top1", "1%"];
    let args = [&["package", "--reference", MINI], SMALL, &forms].concat();
    let result = json(dir.path(), &args, 1);
    assert_eq!(result["passed"], false);
    assert!(result["kl_mean"].as_f64().unwrap() > 1e-3);
    let xml = fs::read_to_string(dir.path().join("e.xml")).unwrap();
    assert!(xml.contains("failures=\"1\"") && xml.contains("name=\"min-top1 ≥ 0.01\"/>"), "{xml}");
    assert!(fs::read_to_string(dir.path().join("e.md")).unwrap().contains("FAILED"));
}

#[test]
fn what_is_wrong_is_said_before_any_work() {
    let dir = folder();
    fs::write(dir.path().join("bad.txt"), b"abc\xff").unwrap();
    fs::write(dir.path().join("empty.txt"), b"").unwrap();
    let text = ["--text", "a.txt"];
    for (args, told) in [
        (vec![MINI, "--text", "bad.txt"], "the byte at 3"),
        (vec![MINI, "--text", "empty.txt"], "holds no text"),
        (vec![MINI, "--text", "none.txt"], "none.txt"),
        ([&[MINI, "--max-kl", "1"][..], &text].concat(), "needs a reference"),
        ([&[MINI, "--ctx", "100000"][..], &text].concat(), "needs at least 100000"),
        ([&[MINI, "--stride", "5"][..], &text].concat(), "has no stride"),
        ([&[MINI, "--reference", "a.txt"][..], &text].concat(), "a.txt"),
        ([&[MINI, "--max-ppl-increase", "2"][..], &text].concat(), "no share"),
    ] {
        let error = error(dir.path(), &args);
        assert!(error.contains(told), "{args:?}: {error}");
    }
}

/// transformers' perplexities, as the model's README.md tells them: float32, 8 windows of 512 of
/// the texts in the folder that `MILM_TEXTS` names.
#[test]
#[ignore = "reads 3 MB of text that the repository does not hold"]
fn perplexities_agree_with_transformers() {
    let texts = [
        ("english_public_domain_2MB.txt", 200_000, 55.070),
        ("chinese_public_domain_1MB.txt", 100_000, 201.503),
    ];
    for (file, chars, want) in texts {
        let folder = std::env::var_os("MILM_TEXTS").expect("MILM_TEXTS names the folder of texts");
        let path = Path::new(&folder).join(file);
        let dir = tempfile::tempdir().unwrap();
        let text: String = fs::read_to_string(path).unwrap().chars().take(chars).collect();
        fs::write(dir.path().join("t.txt"), text).unwrap();
        let args = [MINI, "--text", "t.txt", "--ctx", "512", "--windows", "8"];
        let ppl = json(dir.path(), &args, 0)["ppl"].as_f64().unwrap();
        // Quoted with three decimals.
        assert!((ppl - want).abs() < 1e-3, "{file}: {ppl} {want}");
    }
}
