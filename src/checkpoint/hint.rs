//! What to do with folders that hold something else than a checkpoint.
use std::path::Path;

/// How a file begins that Git LFS has not fetched.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

const ADAPTER: &str = "the folder holds an adapter, not a model: merge it into its base first, with peft: `AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(OUT)`";
const PICKLE: &str = "weights in PyTorch's own format are not read, since they can run code: convert them with transformers: `AutoModelForCausalLM.from_pretrained(FOLDER, dtype=\"auto\").save_pretrained(OUT)`";
const OTHER_FRAMEWORK: &str = "weights of TensorFlow and Flax are not read: convert them with transformers 4: `AutoModelForCausalLM.from_pretrained(FOLDER, from_tf=True or from_flax=True).save_pretrained(OUT)`";
const GGUF: &str = "give the path of the GGUF file; `import` makes a folder of it";
const ONNX: &str = "of ONNX graphs only those that `export` wrote are read: give the checkpoint that it was made from";
const OTHER_NAME: &str = "weights are read from model.safetensors, or from shards with model.safetensors.index.json: rename the file, or fetch the index";
const NO_CONFIG: &str =
    "weights alone do not say what model they are: fetch config.json of the same model, too";
const EMPTY: &str = "the folder is empty";
const WEIGHTS: &str =
    "weights are read from model.safetensors, or from shards with model.safetensors.index.json";
const CONFIG: &str = "a checkpoint is a Hugging Face folder; a GGUF file becomes one by `import`";

/// Endings of names and what to do where such a file is found, the most telling first.
const ENDINGS: &[(&str, &str)] = &[
    ("adapter_config.json", ADAPTER),
    ("adapter_model.safetensors", ADAPTER),
    ("adapter_model.bin", ADAPTER),
    (".gguf", GGUF),
    (".bin", PICKLE),
    (".bin.index.json", PICKLE),
    (".pth", PICKLE),
    (".pt", PICKLE),
    (".ckpt", PICKLE),
    (".h5", OTHER_FRAMEWORK),
    (".msgpack", OTHER_FRAMEWORK),
    (".onnx", ONNX),
];

/// What to do about a file that is missing in a folder of these names.
pub(super) fn missing(file: &str, names: &[String]) -> &'static str {
    let told = |ending: &str| names.iter().any(|name| name.ends_with(ending));
    let safetensors = told(".safetensors");
    let needs_config = file.ends_with("config.json");
    let found = ENDINGS.iter().find(|(ending, _)| told(ending)).map(|(_, hint)| *hint);
    match found {
        _ if names.is_empty() => EMPTY,
        Some(ADAPTER) => ADAPTER,
        _ if safetensors && needs_config => NO_CONFIG,
        _ if safetensors => OTHER_NAME,
        Some(hint) => hint,
        None if needs_config => CONFIG,
        None => WEIGHTS,
    }
}

/// Whether Git LFS has not fetched a file.
pub(super) fn is_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(POINTER)
}

/// What to do with something that is not a folder.
pub(super) fn not_a_folder(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_string_lossy();
    let known = ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, hint)| *hint);
    let weights = name.ends_with(".safetensors") || name.ends_with(".json");
    let folder = "a model is the folder that holds this file, with its config.json";
    path.is_file().then_some(())?;
    if weights { Some(folder) } else { known }
}
