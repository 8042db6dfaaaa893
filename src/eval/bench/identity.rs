//! What remembered results of a model depend on.
use super::BenchError;
use crate::{
    checkpoint::sha256,
    linalg::Team,
    model::WeightStore,
    package::{MANIFEST_FILE, Opened},
};
use std::path::Path;

/// Identifies a model by what it computes with: configuration, stored tensors, schemes, and the files
/// of its tokenizer, whatever form it lies in. What evaluations write into a package does not change
/// it.
pub(super) fn identity(opened: &Opened, team: &Team) -> Result<String, BenchError> {
    let Opened { model, folder, .. } = opened;
    let tensors: Vec<_> = model.weights.raw.iter().collect();
    let mut hashes = vec![String::new(); tensors.len()];
    team.each(hashes.iter_mut().zip(tensors).collect(), |_, (hash, (name, raw))| {
        *hash = format!("{name} {:?} {:?} {}", raw.dtype, raw.shape, sha256(&raw.bytes));
        raw.bytes.release();
    });
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
