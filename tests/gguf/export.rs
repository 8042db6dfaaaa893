//! Models written as GGUF: read again they are the models they were, and stock llama.cpp computes
//! what we compute.
use crate::{golden, util};
use milm_compress::{
    checkpoint::{OutputDir, OutputFile},
    forward::{self, Reference},
    linalg::Team,
    model::{Model, ModelSpec, Role},
    package::{
        self,
        gguf::{self, Arch, Export, ExportError, ExportOptions, Import, Unsupported, accepts},
    },
    progress::Silent,
    tensor::{FloatType, RawTensor},
    text::{TextFiles, Tokenizer},
};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

/// Golden models with the architecture that they go out as.
pub(super) const MODELS: &[(&str, Arch)] = &[
    ("llama", Arch::Llama),
    ("llama-mha", Arch::Llama),
    ("llama-rope-linear", Arch::Llama),
    ("llama-rope-llama3", Arch::Llama),
    ("llama-rope-longrope", Arch::Llama),
    ("llama-rope-yarn", Arch::Llama),
    ("llama-tied-bias", Arch::Llama),
    ("llama-wide-heads", Arch::Llama),
    ("mistral-sliding", Arch::Llama),
    ("mixtral", Arch::Llama),
    ("qwen2", Arch::Qwen2),
    ("qwen2-moe", Arch::Qwen2Moe),
    ("qwen3-moe", Arch::Qwen3Moe),
    ("qwen3-tied", Arch::Qwen3),
];

/// A golden model; of the one with a dense block among its mixtures, which llama.cpp does not have,
/// that block becomes as the next.
pub(super) fn named(name: &str) -> Model {
    let mut model = util::open(&util::golden().join(name));
    if name != "qwen3-moe" {
        return model;
    }
    model.config["mlp_only_layers"] = json!([]);
    let dense = model.weights.raw.clone().into_iter();
    model.weights.raw = dense.filter(|(it, _)| !it.contains("layers.0.mlp")).collect();
    for (name, raw) in model.weights.raw.clone() {
        if name.contains("layers.1.mlp") {
            model.weights.raw.insert(name.replace("layers.1.", "layers.0."), raw);
        }
    }
    Model::new(model.config, model.weights).unwrap()
}

/// The model under a changed config; each tensor is the first rows and columns of what it was.
pub(super) fn cut(name: &str, change: impl Fn(&mut Value)) -> Model {
    let mut model = named(name);
    let mut config = model.config.clone();
    change(&mut config);
    let spec = ModelSpec::from_config(&config).unwrap();
    for tensor in &spec.tensors {
        let shape = spec.shape(tensor);
        let raw = model.weights.raw.get_mut(&tensor.name).unwrap();
        let values = raw.to_f32().unwrap();
        let [width, columns] = [&raw.shape, &shape].map(|s| s.get(1).copied().unwrap_or(1));
        let rows = values.chunks(width).take(shape[0]);
        let kept: Vec<f32> = rows.flat_map(|row| &row[..columns]).copied().collect();
        *raw = RawTensor::from_f32(shape, &kept);
    }
    Model::new(config, model.weights).unwrap()
}

/// A model whose blocks differ in heads, key/value heads and widths, with biases everywhere.
fn uneven() -> Model {
    cut("llama-tied-bias", |config| {
        config["num_attention_heads"] = json!([4, 2, 3]);
        config["num_key_value_heads"] = json!([2, 1, 1]);
        config["intermediate_size"] = json!([96, 40, 64]);
    })
}

/// Qwen2 with half of its heads: they no longer fill the residual stream.
fn narrow_qwen2() -> Model {
    cut("qwen2", |config| {
        config["num_attention_heads"] = json!(2);
        config["num_key_value_heads"] = json!(1);
    })
}

/// Heads that all kept the pairs 0, 2, 3 and 7 of 8.
fn kept_pairs(last: usize) -> Model {
    cut("llama", |config| {
        config["head_dim"] = json!(8);
        let mut pairs = json!(vec![vec![vec![0, 2, 3, 7]; 2]; 3]);
        pairs[2][1][3] = json!(last);
        config["rope_scaling"] =
            json!({"rope_type": "kept-pairs", "original_head_dim": 16, "pairs": pairs});
        config.as_object_mut().unwrap().remove("rope_parameters");
    })
}

/// A byte-level tokenizer with a word for each of the first 120 rows of a golden model.
pub(super) fn words() -> Vec<u8> {
    let letter = |i: u32| char::from_u32(if i < 94 { 33 + i } else { 67 + i }).unwrap();
    let vocab: serde_json::Map<_, _> =
        (0..120).map(|i| (letter(i).to_string(), i.into())).collect();
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "post_processor": null, "decoder": bytes, "pre_tokenizer": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocab, "merges": [],
        },
    });
    serde_json::to_vec(&json).unwrap()
}

pub(crate) fn write(
    model: &Model,
    path: &Path,
    options: ExportOptions<'_>,
) -> Result<Arch, ExportError> {
    let tokenizer = words();
    let text = TextFiles { tokenizer: &tokenizer, ..TextFiles::default() };
    write_with(model, &text, path, options)
}

fn write_with(
    model: &Model,
    text: &TextFiles<'_>,
    path: &Path,
    options: ExportOptions<'_>,
) -> Result<Arch, ExportError> {
    let export = Export::plan(model, text, options)?;
    assert_eq!(Ok(export.arch()), accepts(&model.spec));
    let mut file = OutputFile::create(path, false)?;
    export.write(&mut file, &Silent)?;
    file.commit()?;
    Ok(export.arch())
}

pub(crate) fn read(file: &Path, float: FloatType) -> (tempfile::TempDir, package::Opened) {
    let gguf = gguf::open(file).unwrap();
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let dir = OutputDir::create(&target, false).unwrap();
    let import = Import::plan(&gguf, float).unwrap();
    assert_eq!(import.extras(), Vec::<&str>::new());
    import.write(&dir, &Silent).unwrap();
    dir.commit().unwrap();
    let opened = package::open(target.to_str().unwrap()).unwrap();
    (top, opened)
}

pub(crate) fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let logits = forward::logits(model, &Reference, ids, &Team::new(2)).unwrap();
    logits.iter().copied().collect()
}

pub(crate) fn largest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0_f32, |worst, (x, y)| worst.max((x - y).abs()))
}

const IDS: [u32; 12] = [1, 5, 9, 2, 77, 31, 100, 8, 64, 12, 3, 99];

/// Every golden model, and the shapes that pruning makes, with their architectures.
fn all() -> Vec<(String, Model, Arch)> {
    let golden = MODELS.iter().map(|(name, arch)| ((*name).to_owned(), named(name), *arch));
    let cut = [
        ("uneven blocks", uneven(), Arch::Deci),
        ("narrow qwen2", narrow_qwen2(), Arch::Llama),
        ("kept pairs", kept_pairs(7), Arch::Llama),
    ];
    golden.chain(cut.map(|(name, model, arch)| (name.to_owned(), model, arch))).collect()
}

#[test]
fn an_exported_model_comes_back() {
    let top = tempfile::tempdir().unwrap();
    for (name, model, arch) in all() {
        let file = top.path().join(format!("{name}.gguf"));
        assert_eq!(write(&model, &file, ExportOptions::default()).unwrap(), arch, "{name}");
        let (_folder, opened) = read(&file, FloatType::F32);
        let got = opened.model;
        assert_eq!(got.spec.blocks, model.spec.blocks, "{name}");
        assert_eq!(got.spec.max_positions, model.spec.max_positions, "{name}");
        for tensor in &model.spec.tensors {
            let [got, want] = [&got, &model].map(|m| &m.weights.raw[&tensor.name]);
            assert_eq!(got.to_f32().unwrap(), want.to_f32().unwrap(), "{name}: {}", tensor.name);
        }
        // Factors of frequencies are float32 in the file: angles of 12 positions move by 1e-6.
        let (got, want) = (logits(&got, &IDS), logits(&model, &IDS));
        let found = largest(&got, &want);
        assert!(found < 1e-4, "{name}: {found}");
    }
}

/// The twin: without the factors in the file, the model is another.
#[test]
fn a_rotation_left_out_is_seen() {
    let golden = util::golden().join("llama-rope-longrope/golden.safetensors");
    assert!(golden::difference(&named("llama-rope-longrope"), &golden) < 1e-4);
    let mut plain = named("llama-rope-longrope");
    plain.spec.rope.scaling = milm_compress::model::RopeScaling::Default;
    assert!(golden::difference(&plain, &golden) > 1e-2);
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let top = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| top.path().join(name));
    for file in [&a, &b] {
        write(&uneven(), file, ExportOptions::default()).unwrap();
    }
    assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap());
    let exists = write(&uneven(), &a, ExportOptions::default()).unwrap_err().to_string();
    assert!(exists.contains("exists") && exists.contains("--force"), "{exists}");
}

/// The carried model: bfloat16 stays bfloat16, gains become float32, ids and template stay.
#[test]
fn milm_mini_keeps_its_bits_and_ids() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("mini.gguf");
    let mini = package::open("builtin:milm-mini").unwrap();
    let text = mini.text().unwrap();
    write_with(&mini.model, &text.files(), &file, ExportOptions::default()).unwrap();
    let gguf = gguf::open(&file).unwrap();
    assert_eq!(gguf.tensor("blk.0.attn_q.weight").unwrap().format.name(), "BF16");
    assert_eq!(gguf.tensor("blk.0.attn_norm.weight").unwrap().format.name(), "F32");
    assert!(gguf.tensor("output.weight").is_none(), "tied");
    assert_eq!(gguf.metadata["general.file_type"].as_u64(), Some(32));
    for leaf in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
        assert_eq!(gguf.metadata[&format!("llama.{leaf}")].as_u64(), Some(32), "{leaf}");
    }
    let (_folder, back) = read(&file, FloatType::Bf16);
    for (name, want) in &mini.model.weights.raw {
        assert!(*back.model.weights.raw[name].bytes == *want.bytes, "{name}");
    }
    let [got, want] = [&back, &mini].map(|it| it.tokenizer().unwrap());
    assert_eq!((got.bos(), got.eos()), (want.bos(), want.eos()));
    let golden: Value =
        serde_json::from_slice(&fs::read(util::golden().join("tokenizer_golden.json")).unwrap())
            .unwrap();
    for case in golden["milm-mini"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(json!(got.encode(text, true).unwrap()), case["ids"], "{text:?}");
    }
}

/// A SentencePiece vocabulary, imported, exported and imported again, gives sentencepiece's ids.
#[test]
fn sentence_piece_comes_back() {
    let top = tempfile::tempdir().unwrap();
    let folder = util::golden().join("gguf");
    let (_first, once) = read(&folder.join("spm.gguf"), FloatType::F32);
    let file = top.path().join("again.gguf");
    let text = once.text().unwrap();
    write_with(&once.model, &text.files(), &file, ExportOptions::default()).unwrap();
    let (_second, twice) = read(&file, FloatType::F32);
    let tokenizer = twice.tokenizer().unwrap();
    let cases: Vec<Value> =
        serde_json::from_slice(&fs::read(folder.join("spm.json")).unwrap()).unwrap();
    for case in cases {
        let text = case["text"].as_str().unwrap();
        assert_eq!(json!(tokenizer.encode(text, true).unwrap()), case["ids"], "{text:?}");
    }
}

/// Gemma's tokenizers are cut at spaces, of which none are left by then: the same vocabulary. One that
/// is cut at other places is not of the form.
#[test]
fn a_cut_where_nothing_is_left_changes_nothing() {
    let top = tempfile::tempdir().unwrap();
    let (_folder, opened) = read(&util::golden().join("gguf/spm.gguf"), FloatType::F32);
    let text = opened.text().unwrap();
    let export = |at: Option<&str>, name: &str| {
        let mut json: Value = serde_json::from_slice(text.files().tokenizer).unwrap();
        if let Some(at) = at {
            json["pre_tokenizer"] = json!({
                "type": "Split", "pattern": {"String": at}, "behavior": "MergedWithPrevious", "invert": false,
            });
        }
        let tokenizer = serde_json::to_vec(&json).unwrap();
        let files = TextFiles { tokenizer: &tokenizer, ..text.files() };
        write_with(&opened.model, &files, &top.path().join(name), ExportOptions::default())?;
        Ok::<_, ExportError>(fs::read(top.path().join(name)).unwrap())
    };
    assert!(export(None, "plain").unwrap() == export(Some(" "), "gemma").unwrap());
    assert!(matches!(export(Some("e"), "other"), Err(ExportError::Tokenizer { .. })));
}

#[test]
fn what_llama_cpp_cannot_say_is_refused_before_work() {
    let rope = |name: &str, scaling: Value| {
        let model = cut(name, |config| {
            config["rope_scaling"] = scaling.clone();
            config.as_object_mut().unwrap().remove("rope_parameters");
        });
        accepts(&model.spec)
    };
    let long = |long: f64, attention: f64| {
        json!({"rope_type": "longrope", "short_factor": vec![1.5; 8], "long_factor": vec![long; 8],
            "attention_factor": attention})
    };
    assert_eq!(rope("llama", long(1.5, 1.0)), Ok(Arch::Llama));
    assert_eq!(rope("qwen2", long(1.5, 1.0)), Ok(Arch::Llama), "qwen2 reads no factors");
    assert_eq!(rope("qwen3-tied", long(1.5, 1.0)), Err(Unsupported::NormedFactors));
    assert_eq!(accepts(&named("qwen3-tied").spec), Ok(Arch::Qwen3));
    assert_eq!(rope("llama", long(2.0, 1.0)), Err(Unsupported::LongRope));
    let found = Err(Unsupported::LongRopeAttention { found: 1.25 });
    assert_eq!(rope("llama", long(1.5, 1.25)), found);
    let dynamic = json!({"rope_type": "dynamic", "factor": 2.0});
    assert_eq!(rope("llama", dynamic), Err(Unsupported::DynamicRope));
    let kept = Err(Unsupported::KeptPairs { block: 2, head: 1 });
    assert_eq!(accepts(&kept_pairs(6).spec), kept);
    let mut heads = named("llama").spec;
    heads.blocks[1].head_dim = 8;
    let widths = Err(Unsupported::HeadWidths { block: 1, first: 16, found: 8 });
    assert_eq!(accepts(&heads), widths);
    let uneven = cut("qwen3-tied", |config| config["intermediate_size"] = json!([96, 40, 64]));
    let differ = Unsupported::NormedBlocksDiffer { block: 1 };
    assert_eq!(accepts(&uneven.spec), Err(differ.clone()));
    assert!(differ.to_string().contains("hint: "));
}

/// `YaRN` with a ramp that the usual numbers of turns do not give goes out with others.
#[test]
fn an_unusual_ramp_comes_back() {
    let top = tempfile::tempdir().unwrap();
    let model = cut("llama-rope-yarn", |config| {
        config["rope_scaling"]["beta_fast"] = json!(6.0);
        config["rope_scaling"]["attention_factor"] = json!(1.5);
    });
    assert_ne!(model.spec.rope, named("llama-rope-yarn").spec.rope);
    let file = top.path().join("yarn.gguf");
    write(&model, &file, ExportOptions::default()).unwrap();
    let (_folder, back) = read(&file, FloatType::F32);
    let found = largest(&logits(&back.model, &IDS), &logits(&model, &IDS));
    assert!(found < 1e-4, "{found}");
}

#[test]
fn weights_that_a_type_does_not_hold_are_named() {
    let top = tempfile::tempdir().unwrap();
    let mut model = named("llama");
    let down = model.spec.tensors.iter().find(|t| t.role == Role::Down && t.block == Some(2));
    let name = down.unwrap().name.clone();
    let raw = &model.weights.raw[&name];
    let mut values = raw.to_f32().unwrap();
    values[96 + 3] = 70_000.0;
    let changed = RawTensor::from_f32(raw.shape.clone(), &values);
    model.weights.raw.insert(name, changed);
    let half = ExportOptions { float: Some(FloatType::F16), ..ExportOptions::default() };
    let file = top.path().join("a.gguf");
    let error = write(&model, &file, half).unwrap_err().to_string();
    assert!(error.contains("`blk.2.ffn_down.weight` holds inf at [1, 3]"), "{error}");
    assert!(error.contains("bf16"), "{error}");
    assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0, "nothing half-written is left");
    write(&model, &file, ExportOptions::default()).unwrap();
}

#[test]
fn an_unknown_way_to_cut_text_needs_a_name() {
    let top = tempfile::tempdir().unwrap();
    let mut json: Value = serde_json::from_slice(&words()).unwrap();
    json["pre_tokenizer"] = json!({"type": "Whitespace"});
    let tokenizer = serde_json::to_vec(&json).unwrap();
    let text = TextFiles { tokenizer: &tokenizer, ..TextFiles::default() };
    let file = top.path().join("a.gguf");
    let plain = ExportOptions::default();
    let error = write_with(&named("llama"), &text, &file, plain).unwrap_err().to_string();
    assert!(error.contains("Whitespace") && error.contains("--pre NAME"), "{error}");
    let named_pre = ExportOptions { pre: Some("bloom"), ..ExportOptions::default() };
    write_with(&named("llama"), &text, &file, named_pre).unwrap();
    let gguf = gguf::open(&file).unwrap();
    assert_eq!(gguf.metadata["tokenizer.ggml.pre"].shown(), "bloom");
    assert_eq!(gguf.metadata["tokenizer.ggml.tokens"].shown(), "array of 128", "one per row");
}

/// Ids and logits of a text or of ids in llama.cpp.
pub(crate) fn in_llama_cpp(python: &Path, file: &Path, input: &[&str]) -> (Vec<u32>, Vec<f32>) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/llama_cpp_logits.py");
    let out = file.with_extension("f32");
    let ran = Command::new(python).arg(script).args([file, &out]).args(input).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let bytes = fs::read(out).unwrap();
    let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (serde_json::from_slice(&ran.stdout).unwrap(), values)
}

/// Float32 on both sides: what is left is the order of sums.
#[test]
fn llama_cpp_computes_the_same() {
    let Some(python) = util::engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let ids = IDS.map(|id| id.to_string()).join(",");
    for (name, model, _) in all() {
        let file = top.path().join(format!("{name}.gguf"));
        write(&model, &file, ExportOptions::default()).unwrap();
        let (_, got) = in_llama_cpp(&python, &file, &["--ids", &ids]);
        let found = largest(&got, &logits(&model, &IDS));
        println!("{name}: {found}");
        assert!(found < 1e-3, "{name}: {found}");
    }
    let mini = package::open("builtin:milm-mini").unwrap();
    let text = mini.text().unwrap();
    let tokenizer = Tokenizer::new(&text.files()).unwrap();
    let said = "Once upon a time, 1234 birds sat in a tree.\n\nThey sang: don't you know?";
    let ids = tokenizer.encode(said, true).unwrap();
    let file = top.path().join("mini.gguf");
    let single = ExportOptions { float: Some(FloatType::F32), ..ExportOptions::default() };
    write_with(&mini.model, &text.files(), &file, single).unwrap();
    let (found, got) = in_llama_cpp(&python, &file, &["--text", said]);
    assert_eq!(found, ids);
    assert!(largest(&got, &logits(&mini.model, &ids)) < 1e-2);
}
