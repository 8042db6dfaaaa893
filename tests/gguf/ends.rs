//! Embeddings and heads that are rounded on the way, and hashes of what blocks stand for.
use super::{
    export::{in_llama_cpp, logits, named, words, write},
    quantized::{grid, quantized},
};
use crate::{cli::program, prune::ids, util::engines};
use milm_compress::{
    checkpoint::{OutputFile, sha256},
    linalg::Team,
    model::{Model, ModelSpec, Role, WeightStore},
    package::{
        self,
        gguf::{self, Ends, Export, ExportError, ExportOptions, Unsupported},
        verify_deep,
    },
    progress::Silent,
    scheme::ggml::Rounding,
    tensor::{FloatType, RawTensor},
    text::TextFiles,
};
use rand::{RngExt, SeedableRng};

fn to(name: &str) -> Option<Rounding> {
    Rounding::all().find(|it| it.format.name() == name)
}

fn options(embeddings: Option<&str>, head: Option<&str>) -> ExportOptions<'static> {
    let ends = Ends { embeddings: embeddings.and_then(to), head: head.and_then(to) };
    ExportOptions { ends, ..ExportOptions::default() }
}

fn values(model: &Model, role: Role) -> Vec<f32> {
    let tensor = model.spec.tensors.iter().find(|it| it.role == role).unwrap();
    model.weights.get(&tensor.name).unwrap().to_f32()
}

fn error(a: &[f32], b: &[f32]) -> f64 {
    let squares = |it: &mut dyn Iterator<Item = f32>| it.map(|x| f64::from(x).powi(2)).sum::<f64>();
    (squares(&mut a.iter().zip(b).map(|(a, b)| a - b)) / squares(&mut a.iter().copied())).sqrt()
}

/// A model 256 wide, with two blocks of random weights and a head of its own.
fn wide() -> Model {
    let mut config = named("llama").config;
    for (key, size) in [("hidden_size", 256), ("num_hidden_layers", 2), ("head_dim", 64)] {
        config[key] = size.into();
    }
    let spec = ModelSpec::from_config(&config).unwrap();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut weights = WeightStore::default();
    for tensor in &spec.tensors {
        let shape = spec.shape(tensor);
        let spread = if tensor.input.is_some() { 0.1 } else { 1.0 };
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| spread * (rng.random::<f32>() + rng.random::<f32>() - 1.0))
            .collect();
        weights.raw.insert(tensor.name.clone(), RawTensor::from_f32(shape, &values));
    }
    Model::new(config, weights).unwrap()
}

#[test]
fn embeddings_are_rounded_where_asked_and_the_error_is_told() {
    let top = tempfile::tempdir().unwrap();
    let model = wide();
    let want = values(&model, Role::Embed);
    for format in ["Q4_0", "Q8_0", "Q4_K", "Q6_K"] {
        let file = top.path().join(format);
        let tokenizer = words();
        let text = TextFiles { tokenizer: &tokenizer, ..TextFiles::default() };
        let export = Export::plan(&model, &text, options(Some(format), None)).unwrap();
        let mut out = OutputFile::create(&file, false).unwrap();
        let rounded = export.write(&mut out, &Silent).unwrap();
        out.commit().unwrap();
        let gguf = gguf::open(&file).unwrap();
        let tensor = gguf.tensor("token_embd.weight").unwrap();
        assert_eq!(tensor.format.name(), format);
        let mut back = vec![0.0; want.len()];
        tensor.format.decode(&tensor.bytes, &mut back);
        let [told] = rounded.as_slice() else { panic!("{rounded:?}") };
        assert_eq!((told.format, told.twice), (format, false));
        assert!((told.error - error(&want, &back)).abs() < 1e-12, "{format}");
        assert_eq!(gguf.tensor("output.weight").unwrap().format.name(), "F32", "{format}");
    }
    let file = top.path().join("mini.gguf").display().to_string();
    let mini = ["export", "builtin:milm-mini", "--to", "gguf", "--embeddings", "q4_0", "-o", &file];
    let said = predicates::str::contains("rounded to Q4_0: relative error 0.0");
    program().args(mini).assert().success().stderr(said);
}

#[test]
fn a_head_has_a_type_of_its_own() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("a.gguf");
    let model = named("llama");
    write(&model, &file, options(Some("Q8_0"), Some("Q4_0"))).unwrap();
    let gguf = gguf::open(&file).unwrap();
    let format = |name: &str| gguf.tensor(name).unwrap().format.name();
    assert_eq!((format("token_embd.weight"), format("output.weight")), ("Q8_0", "Q4_0"));
    let back = package::open(file.to_str().unwrap()).unwrap().model;
    let far = |role| error(&values(&model, role), &values(&back, role));
    assert!(far(Role::Embed) < 0.006 && far(Role::Head) > 0.01 && far(Role::Head) < 0.1);

    // Codes that have the type already stay.
    let model = quantized("llama", grid(4, true, 32), FloatType::F16);
    std::fs::remove_file(&file).unwrap();
    write(&model, &file, options(Some("Q8_0"), None)).unwrap();
    let back = package::open(file.to_str().unwrap()).unwrap().model;
    assert_eq!(values(&model, Role::Embed), values(&back, Role::Embed));
    std::fs::remove_file(&file).unwrap();
    write(&model, &file, options(Some("Q4_0"), None)).unwrap();
    let back = package::open(file.to_str().unwrap()).unwrap().model;
    assert!(error(&values(&model, Role::Embed), &values(&back, Role::Embed)) > 0.01);
}

#[test]
fn rows_without_blocks_and_heads_that_are_none_are_refused() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("a.gguf");
    let refused = |name, options| match write(&named(name), &file, options) {
        Err(ExportError::Unsupported(it)) => it,
        other => panic!("{other:?}"),
    };
    let (format, columns, block) = ("Q6_K", 64, 256);
    let rows = refused("llama", options(None, Some("Q6_K")));
    assert_eq!(rows, Unsupported::Rows { what: "head", format, columns, block });
    assert!(rows.to_string().contains("--head q8_0"), "{rows}");
    let tied = refused("qwen3-tied", options(None, Some("Q8_0")));
    assert_eq!(tied, Unsupported::TiedHead);
    assert!(!file.exists());
    let onnx = ["export", "builtin:milm-mini", "--to", "onnx", "--embeddings", "q8_0", "-o", "x"];
    program()
        .args(onnx)
        .assert()
        .failure()
        .stderr(predicates::str::contains("`embeddings` means nothing"));
}

/// Blocks that were changed together with the hash of their bytes still do not stand for the values
/// that they stood for.
#[test]
fn values_have_their_hash() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("a.gguf");
    let model = quantized("qwen2-moe", grid(4, false, 32), FloatType::F16);
    write(&model, &file, options(Some("Q4_0"), None)).unwrap();
    let deep = || verify_deep(file.to_str().unwrap(), &Team::new(2), &Silent).unwrap();
    let found = deep();
    assert!(found.passed() && found.unrecorded == 0, "{:?}", found.problems);
    let gguf = gguf::open(&file).unwrap();
    let hashes = gguf.value_hashes().unwrap();
    for (hash, tensor) in hashes.iter().zip(&gguf.tensors) {
        assert_eq!(hash.is_empty(), tensor.format.block_len() == 1, "{}", tensor.name);
    }
    // Of one row at a time, as a package's manifest has it.
    let at = gguf.tensors.iter().position(|it| it.name == "blk.1.ffn_up_exps.weight").unwrap();
    let (tensor, mut rows) = (&gguf.tensors[at], Vec::new());
    let mut all = vec![0.0; tensor.shape.iter().product()];
    tensor.format.decode(&tensor.bytes, &mut all);
    for row in all.chunks(tensor.shape[2]) {
        let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
        let hex = sha256(&bytes);
        let digit = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        rows.extend((0..64).step_by(2).map(digit));
    }
    assert_eq!(hashes[at], sha256(&rows));

    let mut bytes = std::fs::read(&file).unwrap();
    let old = tensor.bytes.to_vec();
    let place = bytes.windows(old.len()).position(|it| it == old).unwrap();
    bytes[place + 4] ^= 1;
    let new = sha256(&bytes[place..place + old.len()]);
    let text = sha256(&old).into_bytes();
    let hash = bytes.windows(64).position(|it| it == text).unwrap();
    bytes[hash..hash + 64].copy_from_slice(new.as_bytes());
    drop(gguf);
    crate::util::reseal(&file, bytes);
    assert!(package::verify(file.to_str().unwrap(), &Team::new(1), &Silent).unwrap().passed());
    let told = deep().problems.iter().map(ToString::to_string).collect::<String>();
    assert!(told.contains("blk.1.ffn_up_exps.weight") && told.contains("recorded"), "{told}");
}

/// llama.cpp reads the blocks: it is nearer to our forward pass with the rounded tensors than
/// rounding to 4 bits is to the float model. What is left are its int8 activations at the head.
#[test]
fn llama_cpp_reads_rounded_ends() {
    let Some(python) = engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let said = ids(3, 20);
    let list = said.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut moved = 0.0;
    let model = wide();
    let plain = logits(&model, &said);
    for format in ["Q4_K", "Q4_0", "Q6_K", "Q8_0"] {
        let file = top.path().join(format!("{format}.gguf"));
        write(&model, &file, options(Some(format), Some(format))).unwrap();
        let (_, got) = in_llama_cpp(&python, &file, &["--ids", &list]);
        let back = package::open(file.to_str().unwrap()).unwrap().model;
        let want = logits(&back, &said);
        let (found, rounding) = (error(&want, &got), error(&plain, &want));
        println!("{format}: {found:.5}, rounding {rounding:.5}");
        if format == "Q4_K" {
            moved = rounding;
        }
        assert!(found < moved / 2.0, "{format}: {found} {moved}");
    }
}
