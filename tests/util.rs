//! What several tests need.
use milm_compress::{
    model::Model,
    progress::{Progress, Unit},
    tensor::{Bytes, RawTensor},
};
use std::{
    collections::BTreeMap,
    fs,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// The golden checkpoints, by their folders.
pub(crate) const MODELS: [&str; 15] = [
    "gemma3",
    "llama",
    "llama-mha",
    "llama-rope-linear",
    "llama-rope-llama3",
    "llama-rope-longrope",
    "llama-rope-yarn",
    "llama-tied-bias",
    "llama-wide-heads",
    "mistral-sliding",
    "mixtral",
    "qwen2",
    "qwen2-moe",
    "qwen3-moe",
    "qwen3-tied",
];

/// Those whose blocks can be cut and whose residual stream can be turned: no norm stands behind a half.
pub(crate) fn plain() -> impl Iterator<Item = &'static str> {
    MODELS.into_iter().filter(|name| *name != "gemma3")
}

/// The folder of golden files.
pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// All tensors of a safetensors file.
pub(crate) fn tensors(path: &Path) -> BTreeMap<String, RawTensor> {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            let bytes = Bytes::owned(view.data().to_vec());
            let raw = RawTensor { dtype: view.dtype(), shape: view.shape().to_vec(), bytes };
            (name.to_owned(), raw)
        })
        .collect()
}

/// A checkpoint folder as a model.
pub(crate) fn open(folder: &Path) -> Model {
    milm_compress::package::open(folder.to_str().unwrap()).unwrap().model
}

/// Unwinds at the `at`th report, as a kill would stop there.
pub(crate) struct Fuse {
    at: usize,
    pub(crate) reports: AtomicUsize,
}

impl Fuse {
    pub(crate) fn new(at: usize) -> Self {
        Self { at, reports: AtomicUsize::new(0) }
    }

    fn report(&self) {
        if self.reports.fetch_add(1, Ordering::Relaxed) == self.at {
            resume_unwind(Box::new("killed"));
        }
    }
}

impl Progress for Fuse {
    fn start(&self, _: &str, _: u64, _: Unit) {
        self.report();
    }
    fn advance(&self, _: u64) {
        self.report();
    }
    fn finish(&self) {
        self.report();
    }
}

/// Why a test compares nothing here. Where `MILM_NO_SKIP=1` promises that all is there, it fails.
pub(crate) fn skip(why: &str) {
    let promised = std::env::var_os("MILM_NO_SKIP").is_some_and(|wish| wish == "1");
    assert!(!promised, "nothing may be skipped (MILM_NO_SKIP=1), but {why}");
    println!("skipped: {why}");
}

/// The Python with the engines of tests/engines/requirements.txt.
pub(crate) fn engines() -> Option<PathBuf> {
    let python = std::env::var_os("MILM_ENGINES_PYTHON").map(PathBuf::from);
    if python.is_none() {
        skip("MILM_ENGINES_PYTHON names no Python with tests/engines/requirements.txt");
    }
    python
}

/// The folder with SmolLM2-135M, for tests that are run on demand.
pub(crate) fn smollm2() -> PathBuf {
    let folder = std::env::var_os("MILM_SMOLLM2_DIR");
    folder.expect("MILM_SMOLLM2_DIR names the folder with smollm2-bf16").into()
}

/// Writes a GGUF file whose tensors and hashes were changed, with a header that is right again.
pub(crate) fn reseal(file: &Path, mut bytes: Vec<u8>) {
    let gguf = milm_compress::package::gguf::open(file).unwrap();
    let header = gguf.header.len();
    let old = gguf.sealed().unwrap().header.unwrap().to_owned();
    drop(gguf);
    let at = bytes[..header].windows(old.len()).position(|it| it == old.as_bytes()).unwrap();
    let new = milm_compress::package::gguf::header_sha256(&bytes[..header]).unwrap();
    bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    fs::write(file, bytes).unwrap();
}
