//! Every recipe that ships can be read, and the quickstart does what it says.
use crate::cli::program;
use milm_compress::recipe::{Recipe, Verb};
use predicates::prelude::*;
use std::{fs, path::Path};

#[test]
fn every_recipe_loads_and_begins_with_a_comment() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let text = fs::read_to_string(entry.path()).unwrap();
        assert!(text.starts_with("# "), "{:?} begins with its purpose", entry.path());
        let recipe = Recipe::parse("recipe", &text).unwrap();
        let first = &recipe.steps[0];
        assert_eq!(first.verb, Verb::Quantize);
        first.settings::<milm_compress::quantize::Settings>("recipe").unwrap();
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn the_quickstart_makes_measures_and_tries_a_package() {
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("package");
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/quickstart.toml");
    let compress = |more: &[&str]| {
        let mut command = program();
        command.arg("compress").arg(&recipe).arg("-o").arg(&package).args(more);
        command.assert()
    };
    // A later step that cannot work is told before the first.
    for wrong in ["eval.text=[\"no-such.txt\"]", "eval.text=[]", "eval.reference=4"] {
        compress(&["--set", wrong]).code(2);
        assert!(!package.exists(), "{wrong}");
    }
    compress(&["--set", "eval.windows=2"])
        .success()
        .stdout(predicate::str::contains("perplexity").and(predicate::str::contains("dark night")));
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(package.join("milm.json")).unwrap()).unwrap();
    assert_eq!(manifest["recipe"]["step"][0]["settings"]["scheme"], "w4a16");
    assert_eq!(manifest["recipe"]["step"][0]["settings"]["method"], "mse", "defaults are resolved");
    assert!(manifest["evaluation"]["kl_mean"].as_f64().unwrap() > 0.0);
    program().arg("verify").arg(&package).assert().success();

    compress(&[]).code(2).stderr(predicate::str::contains("--force"));
    // The twin: a bound that int4 cannot keep is told by the exit code; the package stays.
    compress(&["--force", "--set", "eval.windows=2", "--set", "eval.max-kl=0.000001"])
        .code(1)
        .stdout(predicate::str::contains("FAILED"));
    program().arg("verify").arg(&package).assert().success();
    compress(&["--force", "--set", "quantize.sheme=w8a8"])
        .code(2)
        .stderr(predicate::str::contains("did you mean `scheme`"));
}
