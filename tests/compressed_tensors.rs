//! Packages in stock transformers with compressed-tensors: the same weights bit by bit, the same
//! logits, the same token ids.
//!
//! `MILM_SMOLLM2_DIR` names a folder that holds `smollm2-bf16`, which is then tried instead of the
//! carried model.
use crate::{
    cli::program,
    gguf::export::{largest, logits},
    util::{engines, golden, open, tensors},
};
use milm_compress::{forward, linalg::Team, package, runtime::Kernels};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const IDS: [u32; 16] = [1, 5, 9, 2, 77, 31, 100, 8, 64, 12, 3, 99, 41, 5, 120, 6];

/// Every grid that compressed-tensors has, as flags of `quantize`.
const GRIDS: [(&str, &[&str]); 10] = [
    ("w4a16-g32", &["--scheme=w4a16", "--group-size=32"]),
    ("w4a16-channel", &["--scheme=w4a16", "--group-size=channel"]),
    ("w4a16-g32-asymmetric", &["--scheme=w4a16", "--group-size=32", "--asymmetric"]),
    ("w4a16-channel-asymmetric", &["--scheme=w4a16", "--group-size=channel", "--asymmetric"]),
    ("w4a16-mixed", &["--scheme=w4a16", "--group-size=32", "--rule=re:.*mlp.*=w8a16"]),
    ("w8a16-channel", &["--scheme=w8a16"]),
    ("w8a16-g32", &["--scheme=w8a16", "--group-size=32"]),
    ("w8a16-asymmetric", &["--scheme=w8a16", "--asymmetric"]),
    ("w8a8", &["--scheme=w8a8"]),
    (
        "w8a8-static",
        &["--scheme=w8a8", "--activations=static", "--preset=balanced", "--calibration-samples=4"],
    ),
];

fn quantized(model: &Path, target: &Path, flags: &[&str]) {
    let mut command = program();
    command.arg("quantize").arg(model).arg("-o").arg(target).arg("--for=transformers");
    let fast = flags.iter().all(|flag| !flag.starts_with("--preset"));
    command.arg("--rotate=none").args(fast.then_some("--preset=fast")).args(flags);
    command.assert().success();
}

/// What stock Python says of a folder, and what it computed.
fn in_python(python: &Path, folder: &Path, more: &[&str]) -> (Value, BTreeMap<String, Vec<f32>>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = folder.with_extension("safetensors");
    let ids = IDS.map(|id| id.to_string()).join(",");
    let mut command = Command::new(python);
    command.arg(root.join("tests/engines/compressed_tensors_check.py")).args(["--ids", &ids]);
    let ran = command.args(more).arg(folder).arg(&out).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let lines = String::from_utf8(ran.stdout).unwrap();
    let said = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let values = tensors(&out).into_iter().map(|(name, raw)| (name, raw.to_f32().unwrap()));
    let values = values.collect();
    fs::remove_file(out).unwrap();
    (said, values)
}

/// One package: weights bit by bit, logits of the float engine with these weights, and those of the
/// package as transformers opens it.
fn check(python: &Path, name: &str, folder: &Path) {
    let (said, found) = in_python(python, folder, &[]);
    let model = open(folder);
    let weights: BTreeMap<_, _> =
        found.iter().filter_map(|(name, it)| Some((name.strip_prefix("weight:")?, it))).collect();
    let ours: Vec<_> =
        model.weights.quantized.keys().map(|it| it.strip_suffix(".weight").unwrap()).collect();
    assert_eq!(weights.keys().copied().collect::<Vec<_>>(), ours, "{name}: the same weights");
    for (module, theirs) in weights {
        let ours = model.weights.get(&format!("{module}.weight")).unwrap().to_f32();
        let differ = ours.iter().zip(theirs).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        assert_eq!((ours.len(), differ), (theirs.len(), 0), "{name}: {module}");
    }
    let reference = logits(&model, &IDS);
    let most = reference.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let float = largest(&found["float"], &reference);
    assert!(float < 1e-2, "{name}: {float} of {most}");
    let count = model.weights.quantized.len();
    print!("{name}: {count} weights equal, float {float:.6} of {most:.1}");
    let loaded = found.get("loaded").unwrap_or_else(|| panic!("{name}: not opened: {said}"));
    assert_eq!(said["differ"], serde_json::json!([]), "{name}: opened with other weights");
    let opened = largest(loaded, &reference);
    println!(", as opened {opened:.6}");
    if !name.starts_with("w8a8") {
        assert!(opened < 1e-2, "{name}: {opened} of {most}");
        return;
    }
    // int8 activations are rounded on both sides, by scales that differ (dynamic) or are the same (static).
    // What one engine rounds the other may round elsewhere: within what rounding does at all.
    let kernels = forward::logits(&model, &Kernels::new(), &IDS, &Team::new(2)).unwrap();
    let kernels: Vec<f32> = kernels.iter().copied().collect();
    let (both, cost) = (largest(loaded, &kernels), largest(&kernels, &reference));
    println!("  int8 activations on both sides: {both:.4}; what they cost ours: {cost:.4}");
    assert!(opened > 1e-2, "{name}: the engine left activations in float");
    assert!(both < opened + cost && both < 2.0 * cost.max(opened), "{name}: {both} beside {cost}");
}

/// All grids of one model: SmolLM2 where somebody has it.
#[test]
fn transformers_has_the_same_weights_and_logits() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let model = std::env::var_os("MILM_SMOLLM2_DIR").map_or_else(
        || PathBuf::from("builtin:milm-mini"),
        |folder| PathBuf::from(folder).join("smollm2-bf16"),
    );
    for (name, flags) in GRIDS {
        let target = top.path().join(name);
        quantized(&model, &target, flags);
        check(&python, name, &target);
        fs::remove_dir_all(target).unwrap();
    }
}

/// Every dense family, in int4 and int8.
#[test]
fn transformers_opens_every_dense_family() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    for family in ["gemma3", "llama", "llama-tied-bias", "mistral-sliding", "qwen2", "qwen3-tied"] {
        for scheme in ["w4a16", "w8a16"] {
            let name = format!("{family}-{scheme}");
            let target = top.path().join(&name);
            let scheme = format!("--scheme={scheme}");
            quantized(&golden().join(family), &target, &[&scheme, "--group-size=channel"]);
            check(&python, &name, &target);
        }
    }
}

/// Mixtures of experts, whose experts transformers joins as it opens them; the twin is another
/// package of the same model.
#[test]
fn transformers_opens_mixtures_of_experts() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    for family in ["mixtral", "qwen2-moe", "qwen3-moe"] {
        let package = |scheme: &str| {
            let target = top.path().join(format!("{family}-{scheme}"));
            let scheme = format!("--scheme={scheme}");
            quantized(&golden().join(family), &target, &[&scheme, "--group-size=channel"]);
            target
        };
        let (int4, int8) = (package("w4a16"), package("w8a16"));
        for (target, other) in [(&int4, &int8), (&int8, &int4)] {
            let (_, found) = in_python(&python, target, &["--opened"]);
            let [same, twin] = [target, other].map(|it| logits(&open(it), &IDS));
            let (same, twin) = (largest(&found["loaded"], &same), largest(&found["loaded"], &twin));
            println!("{}: {same:.7}, another package {twin:.4}", target.display());
            assert!(same < 1e-2 && twin > 1e-2, "{}: {same}, {twin}", target.display());
        }
    }
}

/// Rotations at run time stand in `transform_config`: compressed-tensors applies them as we do.
/// Without them transformers computes something else.
#[test]
fn compressed_tensors_applies_the_rotations_of_a_package() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    for (name, down, keys) in [("R4", true, false), ("R3", false, true), ("both", true, true)] {
        let target = top.path().join(name);
        let mut command = program();
        command.args(["quantize", "builtin:milm-mini", "--scheme=w4a16", "--group-size=32"]);
        command.args([
            "--for=milm",
            "--embeddings=float",
            "--rotate=hadamard",
            "--tied-head=untie",
        ]);
        command.args([format!("--rotate-down={down}"), format!("--rotate-keys={keys}")]);
        command.args(["--preset=balanced", "--calibration-samples=4", "-o"]).arg(&target);
        command.assert().success();
        let ours = logits(&open(&target), &IDS);
        let (_, with) = in_python(&python, &target, &["--opened", "--transforms"]);
        let (_, without) = in_python(&python, &target, &["--opened"]);
        let [with, without] = [with, without].map(|it| largest(&it["loaded"], &ours));
        println!("{name}: {with:.6} with its rotations, {without:.3} without");
        assert!(with < 1e-2, "{name}: {with}");
        // Queries and keys turn together: left out of both, nothing changes.
        assert!(without > 1e-2 || !down, "{name}: {without}");
    }
}

/// Without a manifest the package's own key tells of the rotations; those that only the standard's
/// key tells of are refused.
#[test]
fn rotations_of_others_are_refused() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("package");
    let mut command = program();
    command.args(["quantize", "builtin:milm-mini", "--preset=balanced", "--rotate=hadamard"]);
    command
        .args(["--for=milm", "--rotate-down=true", "--calibration-samples=4", "-o"])
        .arg(&target);
    command.assert().success();
    let before = logits(&open(&target), &IDS);
    fs::remove_file(target.join("milm.json")).unwrap();
    assert_eq!(logits(&open(&target), &IDS), before);
    let file = target.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let said = &config["quantization_config"]["transform_config"]["config_groups"]["R4"];
    assert_eq!(said["apply"][0]["targets"].as_array().unwrap().len(), 8, "{said}");
    config.as_object_mut().unwrap().remove("milm_transform");
    fs::write(&file, config.to_string()).unwrap();
    let refused = package::open(target.to_str().unwrap()).err().unwrap().to_string();
    assert!(refused.contains("transform_config") && refused.contains("input"), "{refused}");
}

/// Twins: another code, another scale, and the comparison fails.
#[test]
fn other_codes_and_scales_are_other_weights() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("package");
    quantized(Path::new("builtin:milm-mini"), &target, GRIDS[0].1);
    let file = target.join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let said: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let before = open(&target);
    let name = before.weights.quantized.keys().next().unwrap().clone();
    let ours = before.weights.get(&name).unwrap().to_f32();
    for part in ["weight_packed", "weight_scale"] {
        let stored = name.replace("weight", part);
        let at = said[&stored]["data_offsets"][0].as_u64().unwrap() as usize + 8 + header;
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&file, changed).unwrap();
        let (_, found) = in_python(&python, &target, &[]);
        let theirs = &found[&format!("weight:{}", name.strip_suffix(".weight").unwrap())];
        assert!(largest(&ours, theirs) > 0.0, "{stored}: one bit");
    }
}

/// The golden strings give transformers the ids that they give us.
#[test]
fn the_tokenizer_of_a_package_gives_the_same_ids() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let cases: Value =
        serde_json::from_slice(&fs::read(golden().join("tokenizer_golden.json")).unwrap()).unwrap();
    let smollm2 = std::env::var_os("MILM_SMOLLM2_DIR");
    let smollm2 = smollm2.map(|folder| ("smollm2", PathBuf::from(folder).join("smollm2-bf16")));
    let mini = Some(("milm-mini", PathBuf::from("builtin:milm-mini")));
    for (name, model) in [mini, smollm2].into_iter().flatten() {
        let cases = cases[name].as_array().unwrap();
        let texts: Vec<&str> = cases.iter().map(|case| case["text"].as_str().unwrap()).collect();
        let file = top.path().join("texts.json");
        fs::write(&file, serde_json::to_vec(&texts).unwrap()).unwrap();
        let target = top.path().join(name);
        quantized(&model, &target, &["--scheme=w8a16"]);
        let (said, _) = in_python(&python, &target, &["--texts", file.to_str().unwrap()]);
        let opened = package::open(target.to_str().unwrap()).unwrap();
        let tokenizer = opened.tokenizer().unwrap();
        for (i, case) in cases.iter().enumerate() {
            assert_eq!(said["token_ids"][i], case["ids"], "{name}: {:?}", texts[i]);
            let ours = tokenizer.encode(texts[i], true).unwrap();
            assert_eq!(serde_json::json!(ours), case["ids"], "{name}: {:?}", texts[i]);
        }
        println!("{name}: {} texts", cases.len());
    }
}
