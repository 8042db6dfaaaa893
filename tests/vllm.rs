//! What vLLM would refuse of packages: each rule once broken by hand, and the whole package between.
//!
//! vLLM itself does not run here. Every rule stands in its public sources; formats by hand are those
//! that compressed-tensors writes.
use crate::{cli::program, util::golden};
use milm_compress::package::{
    self,
    compressed_tensors::{Refusal, vllm},
};
use predicates::prelude::*;
use serde_json::{Value, json};
use std::{fs, path::Path};

const NOTHING: [String; 0] = [];

fn quantized(target: &Path, flags: &[&str]) {
    let mut command = program();
    command.args(["quantize", "builtin:milm-mini", "--for=milm", "--preset=fast", "--rotate=none"]);
    command.arg("-o").arg(target).args(flags).assert().success();
}

fn asked(target: &Path) -> Vec<Refusal> {
    vllm(&package::open(target.to_str().unwrap()).unwrap())
}

/// What fails everywhere.
fn refused(target: &Path) -> Vec<String> {
    asked(target).iter().filter(|it| it.always).map(ToString::to_string).collect()
}

/// Changes `config.json` of a folder without a manifest; what is refused then, and after the change
/// back nothing.
fn with_config(target: &Path, change: impl FnOnce(&mut Value)) -> Vec<String> {
    let file = target.join("config.json");
    let before = fs::read(&file).unwrap();
    let mut config: Value = serde_json::from_slice(&before).unwrap();
    change(&mut config["quantization_config"]);
    fs::write(&file, config.to_string()).unwrap();
    let found = refused(target);
    fs::write(&file, before).unwrap();
    assert_eq!(refused(target), NOTHING);
    found
}

/// Whether one finding says all of this.
fn says(found: &[String], words: &[&str]) {
    let one = found.iter().any(|it| words.iter().all(|word| it.contains(word)));
    assert!(one, "{words:?} in {found:?}");
}

#[test]
fn what_vllm_has_schemes_for() {
    let top = tempfile::tempdir().unwrap();
    let float = "--embeddings=float";
    let cases: [(&str, &[&str], &[&str]); 11] = [
        ("int4 groups", &["--group-size=32", float], &[]),
        ("int4 rows", &["--group-size=channel", float], &[]),
        ("int4 zero points", &["--group-size=64", "--asymmetric", float], &[]),
        ("w8a8", &["--scheme=w8a8", float], &[]),
        ("w8a16", &["--scheme=w8a16", float], &[]),
        ("w8a16 groups", &["--scheme=w8a16", "--group-size=64", float], &[]),
        ("w8a16 zero points", &["--scheme=w8a16", "--asymmetric", float], &["float activations"]),
        ("w8a8 groups", &["--scheme=w8a8", "--group-size=32", float], &["symmetric rows"]),
        ("zero points", &["--scheme=w8a8", "--asymmetric", float], &["with zero points"]),
        ("embedding", &["--group-size=32"], &["embed_tokens", "--embeddings float"]),
        ("keys", &["--group-size=32", float, "--kv-cache=int8"], &["kv_cache_scheme", "one scale"]),
    ];
    for (name, flags, words) in cases {
        let target = top.path().join(name.replace(' ', "-"));
        quantized(&target, flags);
        let found = refused(&target);
        if words.is_empty() {
            assert!(found.is_empty(), "{name}: {found:?}");
        } else {
            says(&found, words);
        }
    }
}

/// A group that names single projections is not found for the joined ones while another group has
/// the target `Linear`.
#[test]
fn joined_projections_have_one_scheme_that_can_be_found() {
    let top = tempfile::tempdir().unwrap();
    let flags = |rule| ["--group-size=32", "--embeddings=float", rule];
    let apart = top.path().join("apart");
    quantized(&apart, &flags("--rule=re:.*k_proj=w4a16-g64"));
    let found = refused(&apart);
    says(&found, &["qkv_proj` and 7 more", "different schemes"]);
    let kept = top.path().join("kept");
    quantized(&kept, &flags("--rule=re:.*up_proj=float"));
    says(&refused(&kept), &["gate_up_proj` and 7 more", "some are not"]);
    let whole = top.path().join("float");
    quantized(&whole, &flags("--rule=re:.*self_attn.*=float"));
    assert_eq!(refused(&whole), NOTHING, "all of them in `ignore`");
    // MLPs in groups of 64, the rest of 32.
    let mixed = top.path().join("mixed");
    quantized(&mixed, &flags("--rule=re:.*mlp.*=w4a16-g64"));
    assert_eq!(refused(&mixed), NOTHING, "every group by name");
    // As others write it: the class in one group, names in the other.
    fs::remove_file(mixed.join("milm.json")).unwrap();
    let file = mixed.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mut ask = |targets: &dyn Fn(bool, &Value) -> Value| {
        let groups = &mut config["quantization_config"]["config_groups"];
        for group in groups.as_object_mut().unwrap().values_mut() {
            let mlp = group["weights"]["group_size"] == 64;
            group["targets"] = targets(mlp, &group["targets"]);
        }
        fs::write(&file, config.to_string()).unwrap();
        refused(&mixed)
    };
    let found = ask(&|mlp, names| if mlp { names.clone() } else { json!(["Linear"]) });
    says(&found, &["gate_up_proj` and 7 more", "`weight_scale`", "without the target `Linear`"]);
    assert!(!found.iter().any(|it| it.contains("down_proj")), "found by its own name: {found:?}");
    let patterns =
        |mlp, _: &Value| json!([if mlp { r"re:.*\.mlp\..*" } else { r"re:.*\.self_attn\..*" }]);
    assert_eq!(ask(&patterns), NOTHING);
}

#[test]
fn each_rule_of_a_config_by_hand() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("package");
    quantized(&target, &["--group-size=32", "--embeddings=float"]);
    fs::remove_file(target.join("milm.json")).unwrap();
    let group = |q: &mut Value, key: &str, value: Value| q["config_groups"]["group_0"][key] = value;
    let found = with_config(&target, |q| q["ignore"] = json!(["re:.*layers\\.0\\..*"]));
    says(&found, &["model.layers.0.", "and 3 more", "`ignore` says"]);
    let found = with_config(&target, |q| q["ignore"] = json!(["model.layers.2.mlp.up_proj"]));
    says(&found, &["model.layers.2.mlp.gate_up_proj", "some are not"]);
    let found = with_config(&target, |q| q["quantization_status"] = "frozen".into());
    says(&found, &["quantization_status"]);
    // Floats that nothing names, and floats that a class names.
    let part = top.path().join("part");
    quantized(&part, &["--group-size=32", "--embeddings=float", "--rule=re:.*self_attn.*=float"]);
    fs::remove_file(part.join("milm.json")).unwrap();
    let found = with_config(&part, |q| {
        q["ignore"] = json!([]);
        group(q, "targets", json!(["re:.*mlp.*"]));
    });
    says(&found, &["self_attn.qkv_proj` and 15 more", "no group"]);
    let found = with_config(&part, |q| q["ignore"] = json!([]));
    says(&found, &["self_attn.qkv_proj` and 15 more", "stored in float", "`ignore`"]);
    // Bytes under another name of their form, activations of another kind.
    let int8 = top.path().join("int8");
    quantized(&int8, &["--scheme=w8a8", "--embeddings=float"]);
    fs::remove_file(int8.join("milm.json")).unwrap();
    let found = with_config(&int8, |q| group(q, "format", json!("pack-quantized")));
    says(&found, &["taken is `int-quantized`"]);
    let found = with_config(&int8, |q| group(q, "input_activations", Value::Null));
    says(&found, &["8 bits with float activations", "taken is `pack-quantized`"]);
    // What depends on the GPU is told apart.
    let mut config: Value =
        serde_json::from_slice(&fs::read(target.join("config.json")).unwrap()).unwrap();
    config["quantization_config"]["transform_config"] = json!({"config_groups": {"R3": {}}});
    fs::write(target.join("config.json"), config.to_string()).unwrap();
    let found = asked(&target);
    assert!(found.iter().all(|it| !it.always), "{found:?}");
    assert!(found.iter().any(|it| it.places == ["transform_config"]), "{found:?}");
}

/// What compressed-tensors itself wrote: small sizes that Marlin does not take, nothing else.
#[test]
fn a_stock_checkpoint() {
    let found = asked(&golden().join("compressed-tensors"));
    assert!(found.iter().all(|it| !it.always && it.reason.contains("Marlin")), "{found:?}");
    assert!(!found.is_empty());
}

#[test]
fn the_verb_tells_and_fails() {
    let top = tempfile::tempdir().unwrap();
    let (good, bad) = (top.path().join("good"), top.path().join("bad"));
    quantized(&good, &["--group-size=32", "--embeddings=float"]);
    quantized(&bad, &["--scheme=w8a16", "--asymmetric"]);
    let verify = |package: &Path, more: &[&str]| {
        let mut command = program();
        command.arg("verify").arg(package).args(["--engine", "vllm"]).args(more).assert()
    };
    verify(&good, &["--deep"]).success().stdout(predicate::str::contains("no rule against it"));
    verify(&bad, &[]).code(2).stderr(
        predicate::str::contains("would refuse")
            .and(predicate::str::contains("int8 weights with zero points")),
    );
    let out = verify(&bad, &["--json"]).code(2).get_output().stdout.clone();
    let value: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&value["passed"], &value["engine"]["name"]), (&json!(true), &json!("vllm")));
    assert!(value["engine"]["refusals"].as_array().unwrap().len() >= 2, "weights and embedding");
    verify(&golden().join("compressed-tensors"), &[])
        .success()
        .stderr(predicate::str::contains("no milm.json"));
}
