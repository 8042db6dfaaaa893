//! Exported folders are sealed as packages are: every file and tensor, and what they were made from.
use crate::cli::program;
use predicates::{prelude::*, str::contains};
use serde_json::{Value, json};
use std::{fs, path::Path};

fn quantized(top: &Path) -> String {
    let package = top.join("package").display().to_string();
    let flags = ["--scheme=w4a16", "--group-size=32", "--preset=fast", "--rotate=none"];
    let mut command = program();
    command.args(["quantize", "builtin:milm-mini", "-o", &package]).args(flags);
    command.assert().success();
    package
}

fn exported(model: &str, target: &Path, flags: &[&str]) {
    let mut command = program();
    command.args(["export", model, "--to=onnx", "-o"]).arg(target).args(flags);
    command.assert().success();
}

fn manifest(folder: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(folder.as_ref().join("milm.json")).unwrap()).unwrap()
}

#[test]
fn the_chain_goes_from_the_source_to_the_export() {
    let top = tempfile::tempdir().unwrap();
    let package = quantized(top.path());
    let (coded, float, plain) = ("coded", "float", "plain");
    let at = |name: &str| top.path().join(name);
    exported(&package, &at(coded), &[]);
    exported(&package, &at(float), &["--graph=float"]);
    exported("builtin:milm-mini", &at(plain), &[]);
    let [made, coded, float, plain] =
        [Path::new(&package), &at(coded), &at(float), &at(plain)].map(manifest);
    assert_eq!(coded["export"]["package_sha256"], made["sha256"]);
    assert_eq!(float["export"]["package_sha256"], made["sha256"]);
    assert_eq!(plain["export"]["package_sha256"], Value::Null);
    assert_eq!(
        (&coded["export"]["form"], &float["export"]["form"]),
        (&json!("onnx-qdq"), &json!("onnx-float"))
    );
    for of in [&coded, &float, &plain] {
        assert_eq!(of["source"]["sha256"], made["source"]["sha256"], "{}", of["export"]);
    }
    assert_eq!(coded["recipe"], made["recipe"]);
    let values = |of: &Value| -> Vec<Value> {
        of["quantized"]
            .as_object()
            .unwrap()
            .values()
            .map(|it| it["values_sha256"].clone())
            .collect()
    };
    assert_eq!(values(&coded), values(&made), "the same codes stand for the same values");
    assert_eq!(float["quantized"], json!({}), "weights are floats there");
}

#[test]
fn an_exported_folder_is_verified_and_signed() {
    let top = tempfile::tempdir().unwrap();
    let package = quantized(top.path());
    let folder = top.path().join("onnx");
    exported(&package, &folder, &[]);
    let verify = |more: &[&str]| {
        let mut command = program();
        command.arg("verify").arg(&folder).args(more).assert()
    };
    let out = verify(&["--deep", "--json"]).success().get_output().stdout.clone();
    let told: Value = serde_json::from_slice(&out).unwrap();
    let count = manifest(&package)["quantized"].as_object().unwrap().len();
    assert!(told["decoded"].as_u64().unwrap() > count as u64, "codes and gains: {told}");
    assert_eq!(told["unrecorded"], 0, "{told}");
    assert_eq!(told["tensors"], manifest(&folder)["export"]["tensors"]);

    let key = top.path().join("a").display().to_string();
    program().args(["sign", "--new-key", &key]).assert().success();
    program().arg("sign").arg(&folder).args(["--key", &format!("{key}.key")]).assert().success();
    verify(&["--key", &format!("{key}.pub")]).success();
    program().arg("sbom").arg(&folder).assert().success().stdout(contains("model.onnx.data"));

    // One bit of a weight, a word of the tokenizer, a file too many.
    let change = |file: &str, at: usize, expected: &str| {
        let path = folder.join(file);
        let before = fs::read(&path).unwrap();
        let mut bytes = before.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        verify(&[])
            .code(2)
            .stderr(contains(format!("`{file}` has changed")).and(contains(expected)));
        fs::write(&path, before).unwrap();
    };
    change("model.onnx.data", 0, "tensor `model.embed_tokens.weight");
    change("tokenizer.json", 100, "");
    change("model.onnx", 40, "");
    fs::write(folder.join("more.txt"), "").unwrap();
    verify(&[]).code(2).stderr(contains("`more.txt` does not belong"));
    fs::remove_file(folder.join("more.txt")).unwrap();
    verify(&[]).success();
}

/// A package that has changed is not exported.
#[test]
fn what_is_not_as_it_was_made_stays_here() {
    let top = tempfile::tempdir().unwrap();
    let package = quantized(top.path());
    let file = Path::new(&package).join("model.safetensors");
    let before = fs::read(&file).unwrap();
    let mut bytes = before.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    for form in ["gguf", "onnx"] {
        let target = top.path().join(format!("out.{form}"));
        let mut export = program();
        export.args(["export", &package, "--to", form, "-o"]).arg(&target);
        let told = contains("is not exported").and(contains("model.safetensors"));
        export.assert().code(2).stderr(told.and(contains("tensor `")));
        assert!(!target.exists());
    }
    fs::write(&file, before).unwrap();
    exported(&package, &top.path().join("out"), &[]);
}

/// The list of encodings is sealed, too.
#[test]
fn encodings_belong_to_the_folder() {
    let top = tempfile::tempdir().unwrap();
    let package = quantized(top.path());
    let folder = top.path().join("onnx");
    exported(&package, &folder, &["--graph=float"]);
    let files = manifest(&folder)["files"].as_object().unwrap().clone();
    for name in ["model.encodings", "model.encodings.uncovered.json", "tokenizer.json"] {
        let bytes = fs::read(folder.join(name)).unwrap();
        assert_eq!(files[name]["bytes"], bytes.len() as u64, "{name}");
    }
    program().arg("verify").arg(&folder).assert().success();
    fs::write(folder.join("model.encodings"), "{}").unwrap();
    program().arg("verify").arg(&folder).assert().code(2).stderr(contains("model.encodings"));
}
