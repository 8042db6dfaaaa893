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
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The golden checkpoints, by their folders.
pub(crate) const MODELS: [&str; 14] = [
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

/// The Python that a variable names, or, where `MILM_MAKE_VENV=1` asks for it, one made under target/
/// with these packages. Says why there is none.
pub(crate) fn python(variable: &str, place: &str, packages: &[&str]) -> Option<PathBuf> {
    if let Some(python) = std::env::var_os(variable) {
        return Some(python.into());
    }
    let wanted = packages.join(", ");
    if std::env::var_os("MILM_MAKE_VENV").is_none_or(|wish| wish != "1") {
        println!(
            "skipped: {variable} names no Python with {wanted}, and MILM_MAKE_VENV=1 does not ask for one"
        );
        return None;
    }
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(place);
    let python = place.join("bin/python");
    let works = |it: &mut Command| it.status().is_ok_and(|status| status.success());
    // The processor's builds of torch are a tenth of the size.
    let pip =
        ["-m", "pip", "install", "-q", "--extra-index-url", "https://download.pytorch.org/whl/cpu"];
    let made = python.exists()
        || works(Command::new("python3").args(["-m", "venv"]).arg(&place))
            && works(Command::new(&python).args(pip).args(packages));
    if !made {
        println!("skipped: no environment with {wanted} could be made");
    }
    made.then_some(python)
}
