//! A bill of materials says what the manifest says, in the words of `CycloneDX` 1.6.
//!
//! The bills of these packages were checked against the whole public schema by hand; here its rules
//! on the keys that are written are repeated.
use crate::cli::program;
use milm_compress::package;
use predicates::prelude::*;
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};

fn quantized(target: &Path, flags: &[&str]) {
    let mut command = program();
    command.args(["quantize", "builtin:milm-mini", "--rotate=none", "-o"]).arg(target).args(flags);
    command.assert().success();
}

fn bill(target: &Path) -> Vec<u8> {
    program().arg("sbom").arg(target).assert().success().get_output().stdout.clone()
}

/// Keys of a component that the schema allows, and those of them that are written here.
fn check_component(component: &Value, refs: &mut BTreeSet<String>) {
    let allowed = [
        "type",
        "bom-ref",
        "name",
        "version",
        "description",
        "hashes",
        "licenses",
        "pedigree",
        "modelCard",
        "data",
        "properties",
    ];
    for key in component.as_object().unwrap().keys() {
        assert!(allowed.contains(&key.as_str()), "{key}");
    }
    let kinds = ["machine-learning-model", "file", "data"];
    assert!(kinds.contains(&component["type"].as_str().unwrap()), "{component}");
    assert!(!component["name"].as_str().unwrap().is_empty(), "required");
    let only_models = component["type"] == "machine-learning-model";
    assert!(only_models || component["modelCard"].is_null(), "{component}");
    assert_eq!(component["data"].is_array(), component["type"] == "data");
    for data in component["data"].as_array().into_iter().flatten() {
        assert_eq!(data["type"], "dataset", "required");
    }
    for hash in component["hashes"].as_array().unwrap() {
        assert_eq!(hash["alg"], "SHA-256");
        let digits = hash["content"].as_str().unwrap();
        assert!(digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{digits}");
    }
    for property in component["properties"].as_array().into_iter().flatten() {
        assert!(property["name"].is_string() && property["value"].is_string(), "{property}");
    }
    for license in component["licenses"].as_array().into_iter().flatten() {
        let license = &license["license"];
        assert!(license["id"].is_string() ^ license["name"].is_string(), "one of them: {license}");
    }
    if let Some(name) = component["bom-ref"].as_str() {
        assert!(refs.insert(name.to_owned()), "{name} stands once");
    }
    for ancestor in component["pedigree"]["ancestors"].as_array().into_iter().flatten() {
        check_component(ancestor, refs);
    }
}

fn check(bill: &Value) {
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
    let serial = bill["serialNumber"].as_str().unwrap().strip_prefix("urn:uuid:").unwrap();
    let lengths: Vec<usize> = serial.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{serial}");
    assert!(serial.as_bytes()[14] == b'5', "version 5: from a name, not from chance");
    assert!(bill["metadata"]["timestamp"].is_null(), "the same bytes at any time");
    let mut refs = BTreeSet::new();
    check_component(&bill["metadata"]["component"], &mut refs);
    for component in bill["components"].as_array().unwrap() {
        check_component(component, &mut refs);
    }
    for dependency in bill["dependencies"].as_array().unwrap() {
        assert!(refs.contains(dependency["ref"].as_str().unwrap()), "{dependency}");
        for name in dependency["dependsOn"].as_array().into_iter().flatten() {
            assert!(refs.contains(name.as_str().unwrap()), "{name}");
        }
    }
    let parameters = &bill["metadata"]["component"]["modelCard"]["modelParameters"];
    for data in parameters["datasets"].as_array().unwrap() {
        assert!(refs.contains(data["ref"].as_str().unwrap()), "{data}");
    }
}

#[test]
fn a_bill_says_what_the_manifest_says() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("package");
    let text = top.path().join("own-words.txt");
    fs::write(&text, "The cat sat on the mat and looked at the moon. ".repeat(200)).unwrap();
    let own = format!("--calibration={}", text.display());
    let few = ["--calibration-samples=4", "--calibration-tokens=64", "--allow-rank-deficient"];
    quantized(&target, &[&[own.as_str()][..], &few].concat());
    let bytes = bill(&target);
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    check(&value);
    let manifest = package::open(target.to_str().unwrap()).unwrap().manifest.unwrap();
    let model = &value["metadata"]["component"];
    assert_eq!(model["hashes"][0]["content"], manifest.sha256);
    assert_eq!(model["licenses"][0]["license"]["id"], "Apache-2.0");
    assert_eq!(model["pedigree"]["ancestors"][0]["hashes"][0]["content"], manifest.source.sha256);
    let recipe = model["properties"].as_array().unwrap().iter();
    let recipe = recipe.clone().find(|it| it["name"] == "milm:recipe").unwrap();
    let recipe: Value = serde_json::from_str(recipe["value"].as_str().unwrap()).unwrap();
    assert_eq!(recipe, manifest.recipe);
    let components = value["components"].as_array().unwrap();
    for (name, record) in &manifest.files {
        let file = components.iter().find(|it| it["name"] == **name).unwrap();
        assert_eq!(
            (&file["type"], &file["hashes"][0]["content"]),
            (&"file".into(), &record.sha256.clone().into())
        );
    }
    let data: Vec<&Value> = components.iter().filter(|it| it["type"] == "data").collect();
    assert_eq!(data.len(), 1, "one text");
    assert_eq!(data[0]["name"], "own-words.txt", "no folder of somebody's");
    let hash = milm_compress::checkpoint::sha256(&fs::read(text).unwrap());
    assert_eq!(data[0]["hashes"][0]["content"], hash);

    // The same bytes again, other bytes after an evaluation; to a file too, which is not replaced.
    assert_eq!(bill(&target), bytes);
    package::set_evaluation(target.to_str().unwrap(), serde_json::json!({"ppl": 20.5})).unwrap();
    let evaluated: Value = serde_json::from_slice(&bill(&target)).unwrap();
    check(&evaluated);
    assert_ne!(evaluated["serialNumber"], value["serialNumber"]);
    let metric = &evaluated["metadata"]["component"]["modelCard"]["quantitativeAnalysis"];
    assert_eq!(
        metric["performanceMetrics"][0],
        serde_json::json!({"type": "ppl", "value": "20.5"})
    );
    let out = top.path().join("bill.cdx.json");
    let write = || {
        let mut command = program();
        command.arg("sbom").arg(&target).arg("-o").arg(&out).assert()
    };
    write().success();
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&out).unwrap()).unwrap(), evaluated);
    write().code(2).stderr(predicate::str::contains("--force"));
}

/// A package that needed no text has no dataset, and a checkpoint has no bill.
#[test]
fn nothing_is_made_up() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("package");
    quantized(&target, &["--preset=fast", "--scheme=w8a16"]);
    let value: Value = serde_json::from_slice(&bill(&target)).unwrap();
    check(&value);
    assert!(value["components"].as_array().unwrap().iter().all(|it| it["type"] != "data"));
    let mut command = program();
    command.args(["sbom", "builtin:milm-mini"]).assert().code(2);
}
