//! Networks for OpenVINO: its CPU plugin computes what the package says, codes stay codes.
use crate::{
    cli::program,
    gguf::export::{largest, logits},
    util::{self, MODELS, engines, golden, open},
};
use milm_compress::{forward, linalg::Team, model::Model, package, runtime::Kernels};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const IDS: [u32; 16] = [1, 5, 9, 2, 77, 31, 100, 8, 64, 12, 3, 99, 41, 5, 120, 6];

fn exported(model: &Path, folder: &Path) -> PathBuf {
    let mut command = program();
    command.arg("export").arg(model).args(["--to=openvino", "-o"]).arg(folder);
    command.assert().success();
    program().arg("verify").arg(folder).assert().success();
    folder.to_path_buf()
}

/// Logits in OpenVINO, nine tokens at once and the others one by one, and how many constants of each type it
/// keeps.
fn computed(python: &Path, folder: &Path, settings: &[&str]) -> (Vec<f32>, Value) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/openvino_logits.py");
    let out = folder.with_extension("f32");
    let list = IDS.map(|it| it.to_string()).join(",");
    let mut command = Command::new(python);
    command.arg(script).arg(folder).arg(&out).args(["--ids", &list, "--prefill=9"]);
    let ran = command.args(settings).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let bytes = fs::read(out).unwrap();
    let values = bytes.as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
    (values, serde_json::from_slice(&ran.stdout).unwrap())
}

fn scale(logits: &[f32]) -> f32 {
    logits.iter().fold(0.0_f32, |most, x| most.max(x.abs()))
}

/// Every family in float: both compute in float32, sums in another order.
#[test]
fn openvino_computes_every_family() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    for name in MODELS {
        let folder = exported(&golden().join(name), &top.path().join(name));
        let (theirs, _) = computed(&python, &folder, &[]);
        let ours = logits(&open(&golden().join(name)), &IDS);
        let found = largest(&ours, &theirs) / scale(&ours);
        println!("{name}: {found:.1e}");
        assert!(found < 1e-5, "{name}: {found}");
    }
}

/// Flags of a package, and how many of the constants are int4: 56 matrices, their zero points.
const FAST: &str = "--preset=fast";
const PACKAGES: [(&str, &[&str], u64); 6] = [
    ("g32", &["--scheme=w4a16", "--group-size=32", FAST], 56),
    ("rows", &["--scheme=w4a16", "--group-size=channel", "--rotate=none", FAST], 56),
    ("zeros", &["--scheme=w4a16", "--group-size=32", "--asymmetric", FAST], 112),
    ("w8", &["--scheme=w8a16", FAST], 0),
    ("mxfp4", &["--scheme=mxfp4", FAST], 0),
    ("outliers", &["--scheme=w4a16", "--outliers=0.125"], 56),
];

/// int4 and int8 with float activations: exact, as the file asks for it; the twin lets OpenVINO round
/// activations.
#[test]
fn codes_stay_codes_and_activations_float() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    for (name, flags, fours) in PACKAGES {
        let package = top.path().join(name);
        let mut command = program();
        command.args(["quantize", "builtin:milm-mini", "--for=openvino"]);
        command.args(["--calibration-samples=2", "-o"]).arg(&package).args(flags);
        command.assert().success();
        let folder = exported(&package, &top.path().join(format!("{name}-ov")));
        let (theirs, kinds) = computed(&python, &folder, &[]);
        let ours = logits(&open(&package), &IDS);
        let found = largest(&ours, &theirs) / scale(&ours);
        println!("{name}: {found:.1e}, {kinds}");
        assert!(found < 1e-5, "{name}: {found}");
        assert_eq!(kinds["i4"].as_u64().unwrap_or(0), fours, "{name}: {kinds}");
    }
    let set = ["--set", "DYNAMIC_QUANTIZATION_GROUP_SIZE=32"];
    let (rounded, _) = computed(&python, &top.path().join("g32-ov"), &set);
    let ours = logits(&open(&top.path().join("g32")), &IDS);
    assert!(largest(&ours, &rounded) > 1e-3 * scale(&ours));
}

/// int8 activations, by token and static: as our kernels round them. The order of sums may move a code, and with
/// it that token and those behind it; the first tokens say whether both round alike.
#[test]
fn openvino_rounds_activations_as_the_package_says() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    for activations in ["dynamic", "static"] {
        let package = top.path().join(activations);
        let mut command = program();
        command.args(["quantize", "builtin:milm-mini", "--for=openvino", "--scheme=w8a8"]);
        command.args(["--rotate=none", "--calibration-samples=4", "--activations", activations]);
        command.arg("-o").arg(&package).assert().success();
        let folder = exported(&package, &top.path().join(format!("{activations}-ov")));
        let (theirs, _) = computed(&python, &folder, &[]);
        let model = util::open(&package);
        let kernels =
            |model: &Model| forward::logits(model, &Kernels::new(), &IDS, &Team::new(2)).unwrap();
        let ours: Vec<f32> = kernels(&model).iter().copied().collect();
        let cost = largest(&ours, &logits(&model, &IDS)) / scale(&ours);
        let tokens = theirs.chunks(model.spec.vocab).zip(ours.chunks(model.spec.vocab));
        let found: Vec<f32> = tokens.map(|(a, b)| largest(a, b) / scale(&ours)).collect();
        println!("{activations}: {found:?}; rounded inputs cost {cost:.1e}");
        assert!(found[0] < 1e-5, "{activations}: {found:?}");
        assert!(found.iter().all(|it| *it < 2.0 * cost), "{activations}: {found:?}");
    }
}

fn in_genai(python: &Path, folder: &Path, tokens: usize, texts: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/openvino_text.py");
    let mut command = Command::new(python);
    let ran = command.arg(script).arg(folder).arg(tokens.to_string()).args(texts).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).unwrap()
}

/// The folder is all that OpenVINO GenAI needs: texts of different lengths at once, as `run` writes each alone.
#[test]
fn openvino_genai_writes_our_text() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let package = top.path().join("w4");
    let mut command = program();
    command.args(["quantize", "builtin:milm-mini", "--for=openvino", "--preset=fast", "-o"]);
    command.arg(&package).assert().success();
    let folder = exported(&package, &top.path().join("w4-ov"));
    let prompts = ["It was a dark night, and the old man", "Once"];
    let theirs = in_genai(&python, &folder, 24, &prompts);
    for (at, prompt) in prompts.iter().enumerate() {
        let mut command = program();
        command.arg("run").arg(&package).args(["--prompt", prompt, "--max-tokens=24"]);
        command.args(["--json", "--backend=reference", "--quiet"]);
        let ours: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        assert_eq!(theirs["written"][at], ours["text"], "{prompt}");
    }
}

/// Texts that pre-tokenizers, merges and special tokens may take apart differently.
const TEXTS: [&str; 14] = [
    "Hello world",
    "It's 1984, isn't it?  2  spaces, 123456",
    "abc  1 2   34",
    "a\n\nb\t c\r\n",
    "na\u{ef}ve \u{65e5}\u{672c}\u{8a9e} \u{1f600} x",
    "<|endoftext|>",
    "a<|endoftext|>b <|im_start|>user\n",
    "  lead",
    "trail  ",
    "\u{bd} \u{2167} \u{663}\u{664}",
    "I'M HE'LL we've",
    "def f(x):\n    return x**2\n\n\n",
    "e\u{301} A\u{30a}",
    "\u{212b}",
];

/// Llama 3's cut.
const CUT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A `tokenizer.json` that cuts as GPT-2 does, or as Llama 3 with a beginning and normal form C.
fn changed(json: &mut Value, name: &str) {
    let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    match name {
        "gpt2" => json["pre_tokenizer"] = bytes(true),
        "llama3" => {
            let split = json!({"type": "Split", "pattern": {"Regex": CUT}, "behavior": "Isolated", "invert": false});
            json["pre_tokenizer"] =
                json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]});
            json["normalizer"] = json!({"type": "NFC"});
            let begin = json!({"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}});
            let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
            json["post_processor"] = json!({
                "type": "TemplateProcessing", "single": [begin, text("A")], "pair": [text("A"), text("B")],
                "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
            });
        }
        _ => {}
    }
}

/// Digits alone, GPT-2's cut, Llama 3's with a beginning and normal form C.
#[test]
fn networks_of_strings_make_our_ids() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let package = top.path().join("w8");
    let mut command = program();
    command.args(["quantize", "builtin:milm-mini", "--scheme=w8a16", "--preset=fast", "-o"]);
    command.arg(&package).assert().success();
    let mut beginnings = Vec::new();
    for name in ["digits", "gpt2", "llama3"] {
        let model = top.path().join(name);
        fs::create_dir(&model).unwrap();
        for file in ["config.json", "model.safetensors", "generation_config.json"] {
            fs::copy(package.join(file), model.join(file)).unwrap();
        }
        let file = fs::read(package.join("tokenizer.json")).unwrap();
        let mut json: Value = serde_json::from_slice(&file).unwrap();
        changed(&mut json, name);
        fs::write(model.join("tokenizer.json"), json.to_string()).unwrap();
        let made = exported(&model, &top.path().join(format!("{name}-ov")));
        let theirs = in_genai(&python, &made, 0, &TEXTS);
        let opened = package::open(model.to_str().unwrap()).unwrap();
        let tokenizer = opened.tokenizer().unwrap();
        for (at, text) in TEXTS.iter().enumerate() {
            let ours = tokenizer.encode(text, true).unwrap();
            assert_eq!(theirs["ids"][at], json!(ours), "{name}: {text:?}");
            let back = tokenizer.decode(&ours, true).unwrap();
            assert_eq!(theirs["back"][at], json!(back), "{name}: {text:?}");
        }
        beginnings.push(tokenizer.encode("e\u{301} 12345", true).unwrap());
    }
    // The change is seen.
    assert_ne!(beginnings[1], beginnings[2]);
}

/// A pruned model as GGUF: heads that kept the first rotary pairs are told by another base, which OpenVINO GenAI
/// reads; it ignores divisors.
#[test]
fn openvino_genai_reads_the_gguf_of_a_pruned_model() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let (pruned, file) = (top.path().join("pruned"), top.path().join("pruned.gguf"));
    let mut command = program();
    command.args(["prune", "builtin:milm-mini", "--keep=0.8", "--balance=1", "-o"]).arg(&pruned);
    command.args(["--calibration-samples=16", "--calibration-tokens=128"]).assert().success();
    let model = util::open(&pruned);
    assert!(model.spec.blocks[0].head_dim < 32 && !model.config.to_string().contains("longrope"));
    let mut command = program();
    command.arg("export").arg(&pruned).args(["--to=gguf", "--dtype=f16", "-o"]).arg(&file);
    command.assert().success();
    let prompt = "It was a dark night, and the old man";
    let theirs = in_genai(&python, &file, 24, &[prompt]);
    let mut command = program();
    command.arg("run").arg(&pruned).args(["--prompt", prompt, "--max-tokens=24", "--json"]);
    command.args(["--backend=reference", "--quiet"]);
    let ours: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!(theirs["written"][0], ours["text"]);
}
