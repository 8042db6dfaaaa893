//! Signatures and model cards of packages.
use crate::cli::program;
use predicates::{prelude::*, str::contains};
use std::{fs, path::Path};

fn quantized(dir: &Path) -> String {
    let package = dir.join("package").display().to_string();
    let quantize = ["quantize", "builtin:milm-mini", "--rounding", "nearest", "--rotate", "none"];
    program().args(quantize).args(["-o", &package]).assert().success();
    package
}

#[test]
fn a_signature_stands_for_the_whole_package() {
    let top = tempfile::tempdir().unwrap();
    let package = quantized(top.path());
    let key = |name: &str| top.path().join(name).display().to_string();
    for name in ["a", "b"] {
        program().args(["sign", "--new-key", &key(name)]).assert().success();
    }
    program().args(["sign", "--new-key", &key("a")]).assert().code(2).stderr(contains("exists"));
    let verify = |public: &str| {
        let mut command = program();
        command.args(["verify", &package, "--key", &key(public)]);
        command.assert()
    };
    verify("a.pub").code(2).stderr(contains("is not signed"));
    let sign = || {
        let mut command = program();
        command.args(["sign", &package, "--key", &key("a.key")]);
        command.assert()
    };
    sign().success();
    verify("a.pub").success();
    program().args(["verify", &package]).assert().success();
    verify("b.pub").code(2).stderr(contains("signature of milm.json does not fit"));
    verify("a.key").code(2).stderr(contains("public key"));

    // A manifest that was sealed anew for a changed file is found by the signature alone.
    let text = r#"{"ppl": 1.0, "method": {}}"#;
    milm_compress::package::set_evaluation(&package, serde_json::from_str(text).unwrap()).unwrap();
    program().args(["verify", &package]).assert().success();
    verify("a.pub").code(2).stderr(contains("changed after it was signed"));
    // What is not as it was made is not signed.
    let config = Path::new(&package).join("config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap() + " ").unwrap();
    sign().code(2).stderr(contains("config.json").and(contains("is not signed")));
}

#[cfg(unix)]
#[test]
fn a_secret_key_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let top = tempfile::tempdir().unwrap();
    let name = top.path().join("k").display().to_string();
    program().args(["sign", "--new-key", &name]).assert().success();
    let mode = fs::metadata(top.path().join("k.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_card_says_what_the_manifest_says() {
    let top = tempfile::tempdir().unwrap();
    let package = quantized(top.path());
    let card = || fs::read_to_string(Path::new(&package).join("README.md")).unwrap();
    let before = card();
    for told in [
        "license: apache-2.0",
        "base_model: \"milm-mini\"",
        "base_model_relation: quantized",
        "3935424 parameters",
        "| int4 sym g64 | float | 56 |",
        "Not evaluated",
    ] {
        assert!(before.contains(told), "{told}\n{before}");
    }
    assert!(Path::new(&package).join("README.source.md").exists(), "the base model's own card");
    let eval = ["eval", &package, "--reference", "builtin:milm-mini", "--text", "builtin:en"];
    let json = top.path().join("e.json");
    let more = ["--windows", "1", "--ctx", "128", "--json", json.to_str().unwrap()];
    program().args(eval).args(more).assert().success();
    let evaluation = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    milm_compress::package::set_evaluation(&package, evaluation).unwrap();
    let after = card();
    assert!(
        !after.contains("Not evaluated") && after.contains("| scored tokens | 127 |"),
        "{after}"
    );
    program().args(["verify", &package]).assert().success();
}
