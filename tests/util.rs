//! What several tests need.
use milm_compress::{
    model::{Model, WeightStore},
    tensor::{Bytes, RawTensor},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

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
    let config = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    let mut weights = WeightStore::default();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            weights.raw.extend(tensors(&entry.path()));
        }
    }
    Model::new(config, weights).unwrap()
}
