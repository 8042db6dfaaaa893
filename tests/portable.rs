//! What a package is made for: without options it loads in every stock engine that loads the model, and
//! what an engine does not take is refused or given up, and said.
use crate::{
    cli::program,
    gguf::export::{largest, logits},
    onnx::in_onnxruntime,
    util::{MODELS, engines, golden, open},
};
use milm_compress::{
    forward,
    linalg::Team,
    model::Model,
    package::{self, Declared},
    pipeline::Bases,
    quantize::{Embeddings, GroupFallback, Settings, TargetEngine},
    runtime::Kernels,
    scheme::{KvPrecision, Schemes},
    transform::{self, Rotate, TiedHead},
};
use predicates::{prelude::*, str::contains};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path, process::Command};

const IDS: [u32; 16] = [1, 5, 9, 2, 77, 31, 100, 8, 64, 12, 3, 99, 41, 5, 120, 6];
const PROMPT: &str = "It was a dark night, and the old man";

fn quantized(target: &Path, flags: &[&str]) {
    let mut command = program();
    command.args(["quantize", "builtin:milm-mini", "--calibration-samples=4", "-o"]).arg(target);
    command.args(flags).assert().success();
}

fn exported(package: &Path, to: &str, target: &Path) {
    program().arg("export").arg(package).args(["--to", to, "-o"]).arg(target).assert().success();
}

/// Which stock engines load a model, by name.
fn loads(model: &Model, schemes: &Schemes) -> BTreeMap<&'static str, Result<(), String>> {
    let of = Declared { spec: &model.spec, config: &model.config, schemes };
    package::engines(of).into_iter().map(|fit| (fit.engine, fit.loads)).collect()
}

/// Settings without options but for groups that fit the small widths of golden models.
fn plain() -> Settings {
    let group_fallback = GroupFallback::Channel;
    Settings { group_size: "32".parse().ok(), group_fallback, ..Settings::default() }
}

/// The tied demonstration model in each scheme, without any option that says what it is made for:
/// every export takes it.
#[test]
fn a_package_without_options_is_taken_by_every_export() {
    let top = tempfile::tempdir().unwrap();
    for (scheme, preset) in [
        ("w4a16", "fast"),
        ("w8a16", "fast"),
        ("w4a8", "fast"),
        ("mxfp4", "fast"),
        ("w8a8", "balanced"),
    ] {
        let at = |end: &str| top.path().join(format!("{scheme}{end}"));
        quantized(&at(""), &["--scheme", scheme, "--preset", preset]);
        exported(&at(""), "gguf", &at(".gguf"));
        exported(&at(""), "onnx", &at(".onnx"));
        let model = open(&at(""));
        for (engine, refusal) in loads(&model, &model.weights.quantized) {
            // The HTP takes no int8 activations, and is asked for by its name.
            let asked = engine != "Hexagon HTP" || scheme.ends_with("a16");
            assert!(refusal.is_ok() || !asked, "{scheme} in {engine}: {refusal:?}");
        }
    }
    // The same with everything that helps in this program's own runtime is not.
    let ours = top.path().join("ours");
    quantized(&ours, &["--for=milm", "--preset=fast"]);
    let model = open(&ours);
    assert!(loads(&model, &model.weights.quantized)["transformers"].is_err());
}

/// Every family, tied or not: engines that load the float model load what is planned without options.
#[test]
fn plans_of_every_family_keep_the_engines_of_the_model() {
    for name in MODELS {
        let model = open(&golden().join(name));
        let float = loads(&model, &Schemes::new());
        let settings = plain();
        let bases = Bases::of(&model, &settings, &transform::Settings::default()).unwrap();
        let schemes = bases.plan.schemes();
        assert!(!schemes.is_empty(), "{name}");
        for spec in bases.outcomes(&model.spec) {
            let planned = Model { spec, ..model.clone() };
            for (engine, fits) in loads(&planned, &schemes) {
                let noted = bases.notes.iter().any(|note| note.contains(engine));
                // vLLM is none of those that a package is made for without options.
                let known = noted || float[engine].is_err() || engine == "vLLM";
                assert!(fits.is_ok() || known, "{name} in {engine}: {fits:?}");
            }
        }
        // The twin: codes in the embedding are what transformers does not load.
        let settings = Settings { engine: Some(TargetEngine::Milm), ..settings };
        let bases = Bases::of(&model, &settings, &transform::Settings::default()).unwrap();
        let schemes = bases.plan.schemes();
        assert!(loads(&model, &schemes)["transformers"].is_err(), "{name}");
    }
}

/// A change of the settings, a rotation, the flag that is refused, an engine that takes it.
type Row = (fn(&mut Settings), transform::Settings, &'static str, TargetEngine);

/// What is asked for and not taken is refused by name, with the flag; for an engine that takes it it is not.
#[test]
fn settings_that_the_engine_does_not_take_are_refused() {
    let model = open(Path::new("builtin:milm-mini"));
    let plain = transform::Settings::default();
    let hadamard = transform::Settings { rotate: Some(Rotate::Hadamard), ..plain };
    let untied = transform::Settings { tied_head: Some(TiedHead::Untie), ..hadamard };
    let down = transform::Settings { rotate_down: Some(true), ..plain };
    let with = |change: fn(&mut Settings)| {
        let mut settings = Settings::default();
        change(&mut settings);
        settings
    };
    let rows: [Row; 6] = [
        (|it| it.outliers = Some(0.125), plain.clone(), "--outliers", TargetEngine::OnnxRuntime),
        (|it| it.kv_cache = KvPrecision::Int8, plain.clone(), "--kv-cache", TargetEngine::LlamaCpp),
        (
            |it| it.embeddings = Some(Embeddings::Eight),
            plain,
            "--embeddings",
            TargetEngine::LlamaCpp,
        ),
        (|_| (), hadamard, "--tied-head untie", TargetEngine::Milm),
        (|_| (), down, "--rotate-down", TargetEngine::OnnxRuntime),
        (|it| it.engine = Some(TargetEngine::LlamaCpp), untied.clone(), "", TargetEngine::LlamaCpp),
    ];
    for (change, transform, flag, taken) in rows {
        let settings = with(change);
        match Bases::of(&model, &settings, &transform) {
            Ok(_) => assert_eq!(flag, "", "taken"),
            Err(error) => {
                let error = error.to_string();
                assert!(!flag.is_empty() && error.contains(flag), "{flag}: {error}");
                assert!(error.contains("--for milm"), "{error}");
            }
        }
        let settings = Settings { engine: Some(taken), ..settings };
        Bases::of(&model, &settings, &transform).unwrap();
    }
    Bases::of(&model, &Settings::default(), &untied).unwrap();
}

/// A model that llama.cpp does not take in any form: told, and no reason to refuse the package; asked for
/// by name it is one.
#[test]
fn an_engine_that_never_loads_the_model_is_a_note() {
    let model = open(&golden().join("qwen3-moe"));
    let of = |engine| {
        let settings = Settings { engine, ..plain() };
        Bases::of(&model, &settings, &transform::Settings::default())
    };
    let notes = of(None).unwrap().notes;
    assert!(notes.len() == 1 && notes[0].contains("not load in llama.cpp"), "{notes:?}");
    assert!(of(Some(TargetEngine::LlamaCpp)).unwrap_err().to_string().contains("llama.cpp"));
    assert!(of(Some(TargetEngine::Transformers)).unwrap().notes.is_empty());
}

/// The plan and the trial tell what is given up; a chip's profile says what the package is made for.
#[test]
fn what_is_given_up_is_told() {
    let top = tempfile::tempdir().unwrap();
    let plan = |flags: &[&str]| {
        let mut command = program();
        command.args(["quantize", "builtin:milm-mini", "--dry-run", "--calibration-samples=4"]);
        command.args(flags).assert().success()
    };
    let given_up = contains("rotation hadamard is given up: transformers: a matrix stands before");
    plan(&[]).stdout(given_up.clone().and(contains("--for milm")));
    plan(&["--for=milm"]).stdout(given_up.not());
    plan(&["--device=x86"]).stdout(contains("int8 sym channel"));
    plan(&["--device=arm-cpu", "--group-size=32"]).stdout(contains("int8 sym channel"));
    plan(&["--device=mediatek-npu", "--group-size=channel"])
        .stdout(contains("int8 sym channel").not());
    let mut command = program();
    command.args(["quantize", "builtin:milm-mini", "--calibration-samples=2", "-o"]);
    let told = contains("not taken: transformers").and(contains("rotation none: error"));
    command.arg(top.path().join("out")).assert().success().stdout(told);
}

/// int8 at both ends of an ONNX graph: looked up by codes, multiplied by a head of its own whose input
/// is rounded as the package says; ONNX Runtime computes what our kernels do. Where inputs are rounded, the
/// order of sums may move a code, and with it that token and those behind it: the first tokens say whether
/// both round alike.
#[test]
fn onnxruntime_computes_int8_ends() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let rows: [(&str, &[&str]); 3] = [
        ("w8a16", &["--scheme=w8a16", "--preset=fast"]),
        ("w8a8", &["--scheme=w8a8", "--preset=fast", "--rotate=none"]),
        ("static", &["--scheme=w8a8", "--activations=static", "--rotate=none"]),
    ];
    for (name, flags) in rows {
        let at = |end: &str| top.path().join(format!("{name}{end}"));
        quantized(&at(""), &[&["--for=onnxruntime"], flags].concat());
        exported(&at(""), "onnx", &at(".onnx"));
        let (model, back) = (open(&at("")), open(&at(".onnx")));
        let theirs = in_onnxruntime(&python, &at(".onnx"), (&IDS, 9));
        let kernels = |model: &Model| {
            let logits = forward::logits(model, &Kernels::new(), &IDS, &Team::new(2)).unwrap();
            logits.iter().copied().collect::<Vec<f32>>()
        };
        let (ours, float) = (kernels(&model), logits(&model, &IDS));
        assert_eq!(ours, kernels(&back), "{name} comes back from the graph");
        let scale = ours.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let vocab = model.spec.vocab;
        let tokens = theirs.chunks(vocab).zip(ours.chunks(vocab));
        let found: Vec<f32> = tokens.map(|(a, b)| largest(a, b) / scale).collect();
        let cost = largest(&ours, &float) / scale;
        println!("{name}: {found:?}; rounded inputs cost {cost:.1e}");
        let alike = found.iter().take_while(|it| **it < 1e-5).count();
        let enough = if name == "w8a16" { IDS.len() } else { 1 };
        assert!(alike >= enough, "{name}: {found:?}");
        assert!(found.iter().all(|it| *it < 1e-5 + 2.0 * cost), "{name}: {found:?}");
    }
}

/// `export --to onnx` is all that onnxruntime-genai needs: it writes our text, told to leave the inputs of
/// products with int4 weights as they are.
#[test]
fn onnxruntime_genai_writes_our_text() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    for (name, flags) in [("portable", &["--preset=fast"][..]), ("ends", &["--for=onnxruntime"])] {
        let at = |end: &str| top.path().join(format!("{name}{end}"));
        quantized(&at(""), flags);
        exported(&at(""), "onnx", &at(".onnx"));
        let file = at(".onnx").join("genai_config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        config["model"]["decoder"]["session_options"]["session.qdq_matmulnbits_accuracy_level"] =
            "1".into();
        fs::write(&file, config.to_string()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/genai_text.py");
        let mut command = Command::new(&python);
        let ran = command.arg(script).arg(at(".onnx")).args([PROMPT, "24"]).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let theirs: Value = serde_json::from_slice(&ran.stdout).unwrap();
        let mut command = program();
        command.arg("run").arg(at("")).args(["--prompt", PROMPT, "--max-tokens=24", "--json"]);
        command.args(["--backend=reference", "--quiet"]);
        let ours: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        let text = theirs["text"].as_str().unwrap().strip_prefix(PROMPT).unwrap();
        assert_eq!(text, ours["text"], "{name}");
    }
}
