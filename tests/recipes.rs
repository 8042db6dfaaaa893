//! Recipes do what they say. That those that ship can be read stands in documents.rs.
use crate::cli::program;
use milm_compress::recipe::{Recipe, Verb};
use predicates::prelude::*;
use std::{fs, path::Path};

#[test]
fn every_recipe_begins_with_a_comment_and_quantizes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let mut count = 0;
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    for entry in entries.filter(|it| it.path().is_file()) {
        let text = fs::read_to_string(entry.path()).unwrap();
        assert!(text.starts_with("# "), "{:?} begins with its purpose", entry.path());
        let recipe = Recipe::parse("recipe", &text).unwrap();
        assert!(recipe.steps.iter().any(|step| step.verb == Verb::Quantize), "{:?}", entry.path());
        count += 1;
    }
    assert!(count >= 5);
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

/// Half of the heads' and hidden units' widths, quickly; then int4, measured on one window.
const PRUNE: &str = r#"
description = "prune, quantize, measure"
model = "builtin:milm-mini"

[[step]]
do = "prune"
attn-width = 96
ffn-width = 256
calibration-samples = 6
calibration-tokens = 128
measure-windows = 1

[[step]]
do = "quantize"
group-size = 32

[[step]]
do = "eval"
reference = "source"
text = ["builtin:en"]
ctx = 128
windows = 1
"#;

/// A folder with [`PRUNE`] in it, and `compress` on that.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("recipe.toml"), PRUNE).unwrap();
        Self { dir }
    }

    fn compress(&self, more: &[&str]) -> assert_cmd::assert::Assert {
        let mut command = program();
        command.current_dir(self.dir.path()).args(["compress", "recipe.toml", "-o", "package"]);
        command.args(more).assert()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap().map(Result::unwrap);
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn json(&self, file: &str) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.dir.path().join(file)).unwrap()).unwrap()
    }
}

#[test]
fn a_recipe_prunes_quantizes_and_measures_against_the_model_before() {
    let bench = Bench::new();
    bench
        .compress(&[])
        .success()
        .stdout(predicate::str::contains("hidden units").and(predicate::str::contains("KL mean")));
    assert_eq!(bench.names(), ["package", "recipe.toml"], "nothing is left between");
    let manifest = bench.json("package/milm.json");
    let steps = manifest["recipe"]["step"].as_array().unwrap();
    let verbs: Vec<_> = steps.iter().map(|step| step["do"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["prune", "quantize", "eval"]);
    assert_eq!(steps[0]["settings"]["repair"], "least-squares", "defaults are resolved");
    assert_eq!(steps[0]["model"]["model"], "builtin:milm-mini");
    assert!(manifest["files"]["prune.json"]["sha256"].is_string());
    assert_eq!(bench.json("package/prune.json")["plan"]["blocks"][0]["heads"], 6);
    // Against the model before the cut: a package differs less from what it was quantized from.
    let lost = |json: &serde_json::Value| json["evaluation"]["kl_mean"].as_f64().unwrap();
    let all = lost(&manifest);
    bench.compress(&["--force", "--set", "prune.ffn-width=512"]).success();
    assert!(lost(&bench.json("package/milm.json")) < all);
    program().arg("verify").arg(bench.dir.path().join("package")).assert().success();
    assert_eq!(bench.json("package/config.json")["intermediate_size"], 512);
}

#[test]
fn what_later_steps_cannot_do_is_told_before_pruning() {
    let bench = Bench::new();
    for (wrong, told) in [
        ("prune.keeps=0.8", "did you mean `keep`?"),
        ("prune.keep=0.8", "--attn-width"),
        ("prune.drop-layers=1", "`drop-layers` cannot be used with `attn-width`"),
        (
            "prune.attn-width=\"many\"",
            "`attn-width`: expected a whole number of at least 1, found `many`",
        ),
        ("quantize.group-size=64", "of the pruned model: tensor"),
        ("quantize.scheme=w3a16", "known are w8a16"),
        ("quantize.rule=[\"re:.*no_proj=w8a8\"]", "no_proj"),
        ("eval.text=[\"no-such.txt\"]", "no-such.txt"),
        ("eval.reference=no-such-model", "no-such-model"),
        ("eval.ctx=1", "ctx"),
    ] {
        bench.compress(&["--set", wrong]).code(2).stderr(predicate::str::contains(told));
        assert_eq!(bench.names(), ["recipe.toml"], "{wrong}");
    }
    let swapped = PRUNE.replace("do = \"prune\"", "do = \"run\"\nprompt = \"a\"");
    fs::write(bench.dir.path().join("recipe.toml"), swapped).unwrap();
    bench.compress(&[]).code(2);
}

#[test]
fn a_pruned_checkpoint_outlives_what_fails_after_it() {
    let bench = Bench::new();
    // A gate that int4 on half a model cannot keep.
    let gate = ["--set", "eval.max-kl=0.000001"];
    bench.compress(&gate).code(1).stderr(predicate::str::contains("--resume"));
    assert_eq!(bench.names(), ["package", "package.pruned", "recipe.toml"]);
    let pruned = fs::read(bench.dir.path().join("package.pruned/model.safetensors")).unwrap();
    fs::remove_dir_all(bench.dir.path().join("package")).unwrap();
    bench.compress(&[]).code(2).stderr(predicate::str::contains("go on from it with --resume"));
    // Another cut is not what lies there.
    bench
        .compress(&["--resume", "--set", "prune.ffn-width=128"])
        .code(2)
        .stderr(predicate::str::contains("`settings.ffn-width`: 256 then, 128 now"));
    // A file in the way of the package.
    let package = bench.dir.path().join("package");
    fs::write(&package, "mine").unwrap();
    bench.compress(&["--resume", "--force"]).code(2);
    assert_eq!(fs::read_to_string(&package).unwrap(), "mine");
    fs::remove_file(&package).unwrap();
    // Later steps may change.
    let other = ["--resume", "--keep-intermediate", "--set", "quantize.scheme=w8a8"];
    bench.compress(&other).success().stderr(predicate::str::contains("it is not made again"));
    assert_eq!(bench.names(), ["package", "package.pruned", "recipe.toml"]);
    let kept = fs::read(bench.dir.path().join("package.pruned/model.safetensors")).unwrap();
    assert_eq!(kept, pruned);
    assert_eq!(bench.json("package/milm.json")["recipe"]["step"][0]["do"], "prune");
    bench.compress(&["--resume", "--force"]).success();
    assert_eq!(bench.names(), ["package", "recipe.toml"]);
}

#[test]
fn a_recipe_may_end_with_the_pruned_checkpoint() {
    let bench = Bench::new();
    let (first, rest) = PRUNE.split_once("[[step]]\ndo = \"quantize\"").unwrap();
    let eval = rest.split_once("[[step]]").unwrap().1;
    let recipe = format!("{first}[[step]]{eval}");
    fs::write(bench.dir.path().join("recipe.toml"), &recipe).unwrap();
    bench.compress(&[]).success().stdout(predicate::str::contains("perplexity"));
    assert_eq!(bench.names(), ["package", "recipe.toml"]);
    let manifest = bench.json("package/milm.json");
    assert_eq!(manifest["recipe"]["step"][1]["do"], "eval");
    assert!(manifest["evaluation"]["kl_mean"].as_f64().unwrap() > 0.0);
    assert_eq!(bench.json("package/config.json")["intermediate_size"], 256);
    program().arg("verify").arg(bench.dir.path().join("package")).assert().success();
}

#[test]
fn a_recipe_exports_and_refuses_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let recipe = "model = \"builtin:milm-mini\"\n[[step]]\ndo = \"quantize\"\nrounding = \"nearest\"\n\
                  rotate = \"none\"\n[[step]]\ndo = \"export\"\nto = \"gguf\"\noutput = \"OUT\"\n";
    let recipe = recipe.replace("OUT", path("a.gguf").to_str().unwrap());
    fs::write(path("r.toml"), recipe).unwrap();
    let compress = |more: &[&str]| {
        let mut command = program();
        command.arg("compress").arg(path("r.toml")).arg("-o").arg(path("package")).args(more);
        command.assert()
    };
    for (wrong, told) in
        [("quantize.rotate=hadamard", "--tied-head untie"), ("quantize.outliers=0.125", "outlier")]
    {
        let set = ["--set", wrong, "--set", "quantize.rounding=adaptive"];
        compress(&set).code(2).stderr(predicate::str::contains(told));
        assert!(!path("package").exists() && !path("a.gguf").exists(), "{wrong}");
    }
    compress(&[]).success();
    program().arg("verify").arg(path("a.gguf")).assert().success();
    // A head of its own can be said.
    let set = ["--set", "quantize.rotate=hadamard", "--set", "quantize.tied-head=untie", "--force"];
    compress(&set).success();
    compress(&[]).code(2).stderr(predicate::str::contains("exists"));
}
