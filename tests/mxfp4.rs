//! MXFP4 through the whole program: chosen, stored, run, exported, refused.
use crate::{
    cli::program,
    gguf::export::{in_llama_cpp, largest, logits},
    util::{engines, golden, open, tensors},
};
use milm_compress::{
    forward, linalg::Team, model::Model, package, runtime::Kernels, tensor::Bytes,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const IDS: [u32; 16] = [1, 5, 9, 2, 77, 31, 100, 8, 64, 12, 3, 99, 41, 5, 120, 6];
/// The positive codes of E2M1, by the standard.
const CODES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

fn quantized(target: &Path, flags: &[&str]) {
    let mut command = program();
    command.args(["quantize", "builtin:milm-mini", "--for=milm", "--scheme=mxfp4"]);
    command.args(["--rotate=none", "-o"]);
    command.arg(target).args(flags).assert().success();
}

fn package(top: &Path) -> PathBuf {
    let target = top.join("package");
    quantized(&target, &["--preset=fast", "--embeddings=float"]);
    target
}

/// The standard's reading of two stored tensors, by its own words.
fn decoded(folder: &Path, module: &str) -> Vec<f32> {
    let stored = tensors(&folder.join("model.safetensors"));
    let codes = &stored[&format!("{module}.weight_packed")];
    let scales = &stored[&format!("{module}.weight_scale")].bytes;
    let value = |code: u8| {
        let sign = if code & 8 == 0 { 1.0 } else { -1.0 };
        sign * CODES[usize::from(code & 7)]
    };
    let values = codes.bytes.iter().flat_map(|byte| [value(byte & 15), value(byte >> 4)]);
    let scale = |at: usize| (f32::from(scales[at / 32]) - 127.0).exp2();
    values.enumerate().map(|(at, value)| value * scale(at)).collect()
}

fn modules(model: &Model) -> Vec<String> {
    let names = model.weights.quantized.keys();
    names.map(|name| name.strip_suffix(".weight").unwrap().to_owned()).collect()
}

#[test]
fn a_package_holds_the_numbers_of_the_standard() {
    let top = tempfile::tempdir().unwrap();
    let folder = package(top.path());
    let model = open(&folder);
    assert_eq!(modules(&model).len(), 56);
    for module in modules(&model) {
        let ours = model.weights.get(&format!("{module}.weight")).unwrap().to_f32();
        assert_eq!(ours, decoded(&folder, &module), "{module}");
    }
    let config: Value =
        serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    let said = &config["quantization_config"]["config_groups"]["group_0"];
    assert_eq!(said["format"], "mxfp4-pack-quantized");
    let weights = &said["weights"];
    let of = |key: &str| weights[key].clone();
    assert_eq!(
        (of("num_bits"), of("type"), of("group_size")),
        (4.into(), "float".into(), 32.into())
    );
    assert_eq!((of("strategy"), of("scale_dtype")), ("group".into(), "torch.uint8".into()));
    program().args(["verify", "--deep"]).arg(&folder).assert().success();
    program().args(["verify", "--engine=vllm"]).arg(&folder).assert().success();
    let told = program().arg("inspect").arg(&folder).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stdout).contains("mxfp4 g32"));
    // Without a manifest the standard's words suffice.
    fs::remove_file(folder.join("milm.json")).unwrap();
    assert_eq!(logits(&open(&folder), &IDS), logits(&model, &IDS));
}

/// The kernels multiply doubled codes: the reference's sums in another order.
#[test]
fn kernels_compute_what_the_values_give() {
    let top = tempfile::tempdir().unwrap();
    let model = open(&package(top.path()));
    let team = Team::new(2);
    let fast = forward::logits(&model, &Kernels::new(), &IDS, &team).unwrap();
    let fast: Vec<f32> = fast.iter().copied().collect();
    let reference = logits(&model, &IDS);
    let most = reference.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let far = largest(&fast, &reference);
    assert!(far < most * 1e-4, "{far} of {most}");
    let float = largest(&reference, &logits(&open_builtin(), &IDS));
    assert!(float > most * 1e-2, "4 bits change something: {float} of {most}");
}

fn open_builtin() -> Model {
    package::open("builtin:milm-mini").unwrap().model
}

/// Codes chosen on text cost each layer's output less than nearest ones.
#[test]
fn adaptive_rounding_works_on_uneven_codes() {
    let top = tempfile::tempdir().unwrap();
    let [near, adaptive] = ["near", "adaptive"].map(|name| top.path().join(name));
    let text = ["--preset=balanced", "--calibration-samples=4", "--embeddings=float"];
    quantized(&near, &["--preset=fast", "--embeddings=float"]);
    quantized(&adaptive, &text);
    program().args(["verify", "--deep"]).arg(&adaptive).assert().success();
    let float = logits(&open_builtin(), &IDS);
    let square = |folder: &Path| -> f64 {
        let pairs = logits(&open(folder), &IDS).into_iter().zip(&float);
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
    };
    let (near, adaptive) = (square(&near), square(&adaptive));
    assert!(adaptive < near, "{adaptive} beside {near}");
}

/// Columns at int8 beside 4-bit floats: stored, read and multiplied like any split weight.
#[test]
fn outlier_columns_stand_beside_it() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("split");
    quantized(&target, &["--outliers=0.1", "--calibration-samples=2", "--embeddings=float"]);
    program().args(["verify", "--deep"]).arg(&target).assert().success();
    let model = open(&target);
    let (scheme, _) = model.weights.quantized["model.layers.0.mlp.up_proj.weight"];
    assert_eq!((scheme.weights.name(), scheme.outliers), ("mxfp4", 32), "whole groups");
    let reference = logits(&model, &IDS);
    let fast = forward::logits(&model, &Kernels::new(), &IDS, &Team::new(2)).unwrap();
    let fast: Vec<f32> = fast.iter().copied().collect();
    let most = reference.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    assert!(largest(&fast, &reference) < most * 1e-4);
}

/// The blocks of the file hold the package's own codes: 0 to 15 in low halves, 16 to 31 in high ones.
#[test]
fn gguf_holds_the_same_bytes_in_its_own_order() {
    let top = tempfile::tempdir().unwrap();
    let folder = package(top.path());
    let file = top.path().join("model.gguf");
    program().args(["export", "--to=gguf"]).arg(&folder).arg("-o").arg(&file).assert().success();
    program().args(["verify", "--deep"]).arg(&file).assert().success();
    let stored = tensors(&folder.join("model.safetensors"));
    let [codes, scales] = ["packed", "scale"]
        .map(|end| stored[&format!("model.layers.3.mlp.up_proj.weight_{end}")].bytes.clone());
    let mut wanted = Vec::new();
    for (codes, scale) in codes.as_chunks::<16>().0.iter().zip(scales.iter()) {
        let codes: Vec<u8> = codes.iter().flat_map(|byte| [byte & 15, byte >> 4]).collect();
        wanted.push(*scale);
        wanted.extend((0..16).map(|at| codes[at] | codes[at + 16] << 4));
    }
    let gguf = package::gguf::open(&file).unwrap();
    let found = gguf.tensors.iter().find(|it| it.name == "blk.3.ffn_up.weight").unwrap();
    assert_eq!((found.format.name(), found.format.id()), ("MXFP4", 39));
    assert_eq!(*found.bytes, wanted[..]);
    // Opened again: the same weights on the same grid.
    let (before, after) = (open(&folder), open(&file));
    for (name, (scheme, _)) in &before.weights.quantized {
        assert_eq!(after.weights.quantized[name].0.weights, scheme.weights, "{name}");
        let [a, b] = [&before, &after].map(|it| it.weights.get(name).unwrap().to_f32());
        assert_eq!(a, b, "{name}");
    }
}

/// llama.cpp multiplies the same numbers, with activations rounded to 8 bits in blocks of 32; the twin
/// has one exponent of a whole layer one higher.
#[test]
fn llama_cpp_computes_with_the_same_numbers() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let folder = package(top.path());
    let file = top.path().join("model.gguf");
    program().args(["export", "--to=gguf"]).arg(&folder).arg("-o").arg(&file).assert().success();
    let list = IDS.map(|id| id.to_string()).join(",");
    let (_, found) = in_llama_cpp(&python, &file, &["--ids", &list]);
    let mut model = open(&folder);
    let square = |model: &Model| -> f64 {
        let pairs = logits(model, &IDS).into_iter().zip(&found);
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
    };
    let (same, float) = (square(&model), square(&open_builtin()));
    let scales = "model.layers.4.self_attn.v_proj.weight_scale";
    let raw = model.weights.raw.get_mut(scales).unwrap();
    raw.bytes = Bytes::owned(raw.bytes.iter().map(|byte| byte + 1).collect());
    let twin = square(&model);
    println!("{same:.3}; float {float:.3}, twin {twin:.3}");
    assert!(same < float / 10.0 && same < twin / 10.0, "{same}: float {float}, twin {twin}");
}

/// Doubled codes are int8 in blocks of 32.
#[test]
fn onnx_holds_the_same_weights() {
    let top = tempfile::tempdir().unwrap();
    let (folder, graph) = (package(top.path()), top.path().join("onnx"));
    program().args(["export", "--to=onnx"]).arg(&folder).arg("-o").arg(&graph).assert().success();
    program().args(["verify", "--deep"]).arg(&graph).assert().success();
    let (before, after) = (open(&folder), open(&graph));
    for name in before.weights.quantized.keys() {
        let [a, b] = [&before, &after].map(|it| it.weights.get(name).unwrap().to_f32());
        assert_eq!(a, b, "{name}");
    }
    assert_eq!(before.weights.quantized.len(), after.weights.quantized.len());
}

/// Where a tensor's bytes begin in a safetensors file.
fn place(bytes: &[u8], tensor: &str) -> usize {
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let said: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    8 + header + said[tensor]["data_offsets"][0].as_u64().unwrap() as usize
}

#[test]
fn a_scale_that_is_no_number_is_refused_by_its_place() {
    let top = tempfile::tempdir().unwrap();
    let folder = package(top.path());
    let file = folder.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let at = place(&bytes, "model.layers.2.self_attn.q_proj.weight_scale");
    // 192 columns are 6 groups: row 3, group 4.
    bytes[at + 3 * 6 + 4] = 254;
    fs::write(&file, &bytes).unwrap();
    assert!(package::open(folder.to_str().unwrap()).is_ok(), "the largest scale there is");
    bytes[at + 3 * 6 + 4] = 255;
    fs::write(&file, &bytes).unwrap();
    for manifest in [true, false] {
        if !manifest {
            fs::remove_file(folder.join("milm.json")).unwrap();
        }
        let error = package::open(folder.to_str().unwrap()).err().unwrap().to_string();
        for said in [
            "model.safetensors",
            "model.layers.2.self_attn.q_proj.weight_scale",
            "row 3, group 4",
            "expected an exponent from 0 to 254",
            "found 255",
            "\nhint: ",
        ] {
            assert!(error.contains(said), "{said}: {error}");
        }
    }
}

#[test]
fn what_the_scheme_does_not_have_is_refused() {
    let top = tempfile::tempdir().unwrap();
    for (flag, said) in [
        ("--group-size=64", "has no groups of 64"),
        ("--group-size=channel", "has no scales of whole rows"),
        ("--asymmetric", "has no zero points"),
        ("--avg-bits=5", "a budget chooses among integers"),
        ("--rule=re:.*down_proj=mxfp4-g128", "has no groups of 128"),
    ] {
        let mut command = program();
        command.args(["quantize", "builtin:milm-mini", "--scheme=mxfp4", flag, "-o"]);
        let ran = command.arg(top.path().join("out")).output().unwrap();
        let told = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && told.contains(said), "{flag}: {told}");
    }
    let target = top.path().join("ruled");
    let mut command = program();
    command.args(["quantize", "builtin:milm-mini", "--for=milm", "--preset=fast"]);
    command.args(["--rule=re:.*down_proj=mxfp4", "-o"]).arg(&target).assert().success();
    let model = open(&target);
    let names = model.weights.quantized.iter().map(|(name, (scheme, _))| {
        assert_eq!(scheme.weights.name() == "mxfp4", name.contains("down_proj"), "{name}");
    });
    assert_eq!(names.count(), 57);
    fs::remove_file(target.join("milm.json")).unwrap();
    assert_eq!(logits(&open(&target), &IDS), logits(&model, &IDS), "the standard says both");
}

/// Experts of this model are 48 wide: no whole groups of 32. They become int8 by rows where that is
/// allowed, and the package says both.
#[test]
fn columns_without_whole_groups_are_told_or_become_int8() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("package");
    let ran = |more: &[&str]| {
        let mut command = program();
        command.arg("quantize").arg(golden().join("qwen3-moe")).args(["--scheme=mxfp4"]);
        command.args(["--preset=fast", "--rotate=none", "-o"]).arg(&target).args(more);
        command.output().unwrap()
    };
    let told = String::from_utf8(ran(&[]).stderr).unwrap();
    for said in ["48 columns, which groups of 32 do not divide", "mxfp4 has no other groups"] {
        assert!(told.contains(said), "{said}: {told}");
    }
    assert!(ran(&["--group-fallback=channel"]).status.success());
    program().args(["verify", "--deep"]).arg(&target).assert().success();
    let model = open(&target);
    for (name, (scheme, [_, columns])) in &model.weights.quantized {
        let wanted = if *columns == 48 || name.contains("embed") || name == "lm_head.weight" {
            "int8 sym channel"
        } else {
            "mxfp4 g32"
        };
        assert_eq!(scheme.weights.to_string(), wanted, "{name}");
    }
    fs::remove_file(target.join("milm.json")).unwrap();
    assert_eq!(logits(&open(&target), &IDS), logits(&model, &IDS));
}

/// compressed-tensors makes the same numbers of the stored tensors, and transformers opens them; the
/// twin is one bit of a code, one of a scale.
#[test]
fn compressed_tensors_has_the_same_weights() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let folder = package(top.path());
    let ours = open(&folder);
    let (said, found) = in_python(&python, &folder);
    assert_eq!(said["differ"], serde_json::json!([]), "{said}");
    for module in modules(&ours) {
        let theirs = found[&format!("weight:{module}")].to_f32().unwrap();
        let ours = ours.weights.get(&format!("{module}.weight")).unwrap().to_f32();
        assert_eq!(ours, theirs, "{module}");
    }
    let reference = logits(&ours, &IDS);
    let float = largest(&found["float"].to_f32().unwrap(), &reference);
    assert!(float < 1e-2, "{float}");
    let file = folder.join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let module = "model.layers.0.mlp.gate_proj";
    let before = ours.weights.get(&format!("{module}.weight")).unwrap().to_f32();
    for part in ["weight_packed", "weight_scale"] {
        let mut changed = bytes.clone();
        changed[place(&bytes, &format!("{module}.{part}"))] ^= 1;
        fs::write(&file, changed).unwrap();
        let (_, found) = in_python(&python, &folder);
        let theirs = found[&format!("weight:{module}")].to_f32().unwrap();
        assert!(largest(&before, &theirs) > 0.0, "{part}");
    }
}

fn in_python(
    python: &Path,
    folder: &Path,
) -> (Value, std::collections::BTreeMap<String, milm_compress::tensor::RawTensor>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = folder.with_extension("safetensors");
    let ids = IDS.map(|id| id.to_string()).join(",");
    let mut command = Command::new(python);
    command.arg(root.join("tests/engines/compressed_tensors_check.py")).args(["--ids", &ids]);
    // compressed-tensors 0.20 makes bfloat16 of 4-bit floats, which holds them exactly.
    let ran = command.args(["--dtype", "bfloat16"]).arg(folder).arg(&out).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let lines = String::from_utf8(ran.stdout).unwrap();
    (serde_json::from_str(lines.lines().last().unwrap()).unwrap(), tensors(&out))
}
