//! What remembered results of a model depend on.
use super::BenchError;
use crate::{
    checkpoint::sha256,
    model::WeightStore,
    package::{MANIFEST_FILE, Opened},
    progress::Progress,
};
use std::path::Path;

/// Identifies a model by what it computes with: configuration, stored tensors, schemes, and the files
/// of its tokenizer, whatever form it lies in. What evaluations write into a package does not change
/// it.
pub(super) fn identity(opened: &Opened, progress: &dyn Progress) -> Result<String, BenchError> {
    let Opened { model, folder, .. } = opened;
    let tensors = opened.tensor_sha256(progress);
    let mut hashes: Vec<String> = model
        .weights
        .raw
        .iter()
        .map(|(name, raw)| {
            format!("{name} {:?} {:?} {}", raw.dtype, raw.shape, tensors[name.as_str()])
        })
        .collect();
    for name in folder.list()? {
        let extension = Path::new(&name).extension().and_then(|it| it.to_str());
        let known = matches!(extension, Some("json" | "jinja" | "model")) && name != MANIFEST_FILE;
        if let Some(bytes) = known.then(|| folder.read(&name)).transpose()?.flatten() {
            hashes.push(format!("{name} {}", sha256(&bytes)));
        }
    }
    let WeightStore { quantized, activations, .. } = &model.weights;
    hashes.push(serde_json::to_string(&(&model.config, quantized, activations))?);
    Ok(sha256(hashes.join("\n").as_bytes()))
}
