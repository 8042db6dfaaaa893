//! Checkpoints written as GGUF and imported again are the checkpoints they were.
use super::build::{Build, Field};
use crate::{golden, util};
use milm_compress::{
    checkpoint::OutputDir,
    model::{Mlp, Model, Role},
    package::gguf::{Gguf, GgufError, Import, gguf_name},
    progress::Silent,
    tensor::{Bytes, FloatType},
};
use std::path::Path;

/// Golden models with their GGUF architecture.
const MODELS: &[(&str, &str)] = &[
    ("llama", "llama"),
    ("llama-mha", "llama"),
    ("llama-rope-linear", "llama"),
    ("llama-rope-llama3", "llama"),
    ("llama-rope-longrope", "llama"),
    ("llama-rope-yarn", "llama"),
    ("llama-tied-bias", "llama"),
    ("llama-wide-heads", "llama"),
    ("mistral-sliding", "llama"),
    ("qwen2", "qwen2"),
    ("qwen2", "llama"),
    ("qwen3-tied", "qwen3"),
];

/// llama.cpp's order of the rows of a query or key projection: per head, row i of the first half
/// and row i of the second become neighbours.
fn interleave(values: &[f32], rows: usize, head: usize) -> Vec<f32> {
    let width = values.len() / rows;
    let row = |r: usize| &values[r * width..(r + 1) * width];
    let heads = (0..rows).step_by(head);
    heads
        .flat_map(|h| (0..head / 2).flat_map(move |i| [h + i, h + head / 2 + i]))
        .flat_map(|r| row(r).to_vec())
        .collect()
}

/// Metadata of a model, as llama.cpp's converter writes it.
fn metadata(model: &Model, arch: &str) -> Build {
    let (spec, config) = (&model.spec, &model.config);
    let block = &spec.blocks[0];
    let Mlp::Dense { width } = block.mlp else { panic!("dense models only") };
    let key = |leaf: &str| format!("{arch}.{leaf}");
    let size = |x: usize| Field::U32(x as u32);
    let names = (0..spec.vocab).map(|i| format!("t{i}")).collect();
    let mut build = Build::default()
        .with("general.architecture", arch.into())
        .with(&key("block_count"), size(spec.blocks.len()))
        .with(&key("context_length"), size(spec.max_positions))
        .with(&key("embedding_length"), size(spec.hidden))
        .with(&key("feed_forward_length"), size(width))
        .with(&key("attention.head_count"), size(block.heads))
        .with(&key("attention.head_count_kv"), size(block.kv_heads))
        .with(&key("attention.key_length"), size(block.head_dim))
        .with(&key("attention.layer_norm_rms_epsilon"), Field::F32(spec.norm_eps))
        .with(&key("rope.freq_base"), Field::F32(spec.rope.theta as f32))
        .with("tokenizer.ggml.model", "gpt2".into())
        .with("tokenizer.ggml.pre", "gpt-2".into())
        .with("tokenizer.ggml.tokens", Field::Texts(names))
        .with("tokenizer.ggml.merges", Field::Texts(vec![]));
    if let Some(window) = block.window {
        build = build.with(&key("attention.sliding_window"), size(window));
    }
    let scaling = ["rope_parameters", "rope_scaling"].map(|k| &config[k]);
    let said = |k: &str| scaling.iter().find_map(|s| s.get(k));
    if let Some(kind @ ("linear" | "yarn")) = said("rope_type").and_then(|k| k.as_str()) {
        let factor = said("factor").unwrap().as_f64().unwrap() as f32;
        build = build
            .with(&key("rope.scaling.type"), kind.into())
            .with(&key("rope.scaling.factor"), Field::F32(factor));
        if let Some(original) = said("original_max_position_embeddings") {
            let original = size(original.as_u64().unwrap() as usize);
            build = build.with(&key("rope.scaling.original_context_length"), original);
        }
    }
    build
}

/// The model as a GGUF file of float32; `interleaved` as llama.cpp wants it of this architecture.
fn write(name: &str, arch: &str, interleaved: bool) -> Vec<u8> {
    let model = util::open(&util::golden().join(name));
    let head = model.spec.blocks[0].head_dim;
    let mut build = metadata(&model, arch);
    if name.ends_with("llama3") || name.ends_with("longrope") {
        let plain = |i: usize| model.spec.rope.theta.powf(-2.0 * i as f64 / head as f64);
        let stretched = model.spec.rope.frequencies(head, 1);
        let factors: Vec<f32> =
            stretched.iter().enumerate().map(|(i, f)| (plain(i) / f) as f32).collect();
        build = build.floats("rope_freqs.weight", &[factors.len()], &factors);
    }
    for tensor in &model.spec.tensors {
        let mut values = model.weights.raw[&tensor.name].to_f32().unwrap();
        let shape = model.spec.shape(tensor);
        if interleaved && matches!(tensor.role, Role::Q | Role::K) {
            values = interleave(&values, shape[0], head);
        }
        let name = gguf_name((tensor.block, tensor.role, tensor.expert, tensor.part)).unwrap();
        build = build.floats(&name, &shape, &values);
    }
    build.bytes()
}

pub(super) fn import(file: Vec<u8>, target: &Path, float: FloatType) -> Result<(), GgufError> {
    let gguf = Gguf::parse("test.gguf", &Bytes::owned(file)).unwrap();
    let import = Import::plan(&gguf, float)?;
    assert_eq!(import.extras(), Vec::<&str>::new());
    let dir = OutputDir::create(target, false)?;
    import.write(&dir, &Silent)?;
    dir.commit()?;
    Ok(())
}

#[test]
fn an_imported_model_is_the_model_that_was_written() {
    let top = tempfile::tempdir().unwrap();
    for (name, arch) in MODELS {
        let target = top.path().join(format!("{name}-{arch}"));
        import(write(name, arch, *arch == "llama"), &target, FloatType::F32).unwrap();
        let (got, want) = (util::open(&target), util::open(&util::golden().join(name)));
        assert_eq!(got.spec.blocks, want.spec.blocks, "{name}");
        for tensor in &want.spec.tensors {
            let bits = |model: &Model| -> Vec<u32> {
                let values = model.weights.raw[&tensor.name].to_f32().unwrap();
                values.iter().map(|v| v.to_bits()).collect()
            };
            assert_eq!(bits(&got), bits(&want), "{name}: {}", tensor.name);
        }
        let logits = util::golden().join(name).join("golden.safetensors");
        let found = golden::difference(&got, &logits);
        assert!(found < 1e-4, "{name} as {arch}: {found}");
    }
}

/// The twin: rows in the order of the other kind of rotation give another model.
#[test]
fn a_wrong_order_of_rows_is_seen() {
    let top = tempfile::tempdir().unwrap();
    for (name, arch) in [("llama", "llama"), ("qwen2", "qwen2")] {
        let target = top.path().join(name);
        import(write(name, arch, arch != "llama"), &target, FloatType::F32).unwrap();
        let logits = util::golden().join(name).join("golden.safetensors");
        let found = golden::difference(&util::open(&target), &logits);
        assert!(found > 1e-2, "{name}: {found}");
    }
}

/// Half-width output holds the nearest values, and says when there is none.
#[test]
fn the_output_may_be_rounded() {
    let top = tempfile::tempdir().unwrap();
    let want = util::open(&util::golden().join("qwen2"));
    for float in [FloatType::Bf16, FloatType::F16] {
        let target = top.path().join(float.config_name());
        import(write("qwen2", "qwen2", false), &target, float).unwrap();
        let got = util::open(&target);
        for (name, raw) in &want.weights.raw {
            let mut bytes = Vec::new();
            float.encode(&raw.to_f32().unwrap(), &mut bytes);
            assert!(*got.weights.raw[name].bytes == bytes[..], "{name}");
        }
    }
}

/// What the architecture does not know is carried over and told.
#[test]
fn unknown_tensors_are_carried() {
    let values = [1.0, -2.0, 0.5];
    let build = super::tokenizers::tiny().floats("blk.1.nextn.weight", &[3], &values);
    let gguf = Gguf::parse("test.gguf", &Bytes::owned(build.bytes())).unwrap();
    let import = Import::plan(&gguf, FloatType::Bf16).unwrap();
    assert_eq!(import.extras(), ["blk.1.nextn.weight"]);
    let top = tempfile::tempdir().unwrap();
    let dir = OutputDir::create(&top.path().join("out"), false).unwrap();
    import.write(&dir, &Silent).unwrap();
    dir.commit().unwrap();
    let model = util::open(&top.path().join("out"));
    assert_eq!(model.extras(), ["blk.1.nextn.weight"]);
    assert_eq!(model.weights.raw["blk.1.nextn.weight"].to_f32().unwrap(), values);
}

#[test]
fn a_number_that_the_output_cannot_hold_is_named() {
    let top = tempfile::tempdir().unwrap();
    let mut file = write("qwen2", "qwen2", false);
    let end = file.len() - 4;
    let last = {
        let gguf = Gguf::parse("x", &Bytes::owned(file.clone())).unwrap();
        gguf.tensors.last().unwrap().name.clone()
    };
    file[end..].copy_from_slice(&1e9_f32.to_le_bytes());
    let target = top.path().join("out");
    let error = import(file.clone(), &target, FloatType::F16).unwrap_err().to_string();
    assert!(error.contains(&last) && error.contains("--dtype bf16"), "{error}");
    assert!(!target.exists());
    import(file.clone(), &target, FloatType::F32).unwrap();
    file[end..].copy_from_slice(&f32::NAN.to_le_bytes());
    let other = top.path().join("nan");
    let error = import(file, &other, FloatType::F32).unwrap_err().to_string();
    assert!(error.contains("NaN") && error.contains("--allow-nonfinite"), "{error}");
}
