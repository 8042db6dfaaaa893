//! What a package is made from: its name, license and size, and its tensors as one hash.
use super::{
    Opened, Source,
    card::{CARD_FILE, license},
    stream::source_hash,
};
use crate::{
    checkpoint::sha256,
    progress::{Progress, Unit},
    tensor::RawTensor,
};
use rayon::prelude::*;

impl Source {
    /// The source `opened`, whose tensors have this hash. A package's source is that which it was
    /// made from by name and license.
    pub(super) fn of(opened: &Opened, sha256: String) -> Self {
        let raw = opened.model.weights.raw.values();
        let bytes = raw.map(|tensor| tensor.bytes.len() as u64).sum();
        let parameters = opened.model.spec.parameters();
        if let Some(Self { name, license, .. }) = opened.manifest.as_ref().map(|it| &it.source) {
            let (name, license) = (name.clone(), license.clone());
            return Self { sha256, bytes, parameters, name, license };
        }
        let name = opened.folder.name().trim_end_matches('/');
        let name = name.rsplit(['/', ':']).next().unwrap_or(name).to_owned();
        // A card that cannot be read says nothing: the work is not lost for it.
        let card = opened.folder.read(CARD_FILE).ok().flatten();
        let license = card.and_then(|bytes| license(&String::from_utf8_lossy(&bytes)));
        Self { sha256, bytes, parameters, name, license }
    }
}

/// The hash of a model's tensors, as [`Source`] has it. Reads every byte once, in
/// parallel, and lets the pages go.
pub fn source_sha256(opened: &Opened, progress: &dyn Progress) -> String {
    let raw: Vec<(&String, &RawTensor)> = opened.model.weights.raw.iter().collect();
    progress.start("hash", raw.iter().map(|(_, it)| it.bytes.len() as u64).sum(), Unit::Bytes);
    let hashes: Vec<String> = raw
        .par_iter()
        .map(|(_, tensor)| {
            let hash = sha256(&tensor.bytes);
            tensor.bytes.release();
            progress.advance(tensor.bytes.len() as u64);
            hash
        })
        .collect();
    progress.finish();
    source_hash(raw.iter().zip(&hashes).map(|((name, raw), hash)| (*name, *raw, hash.as_str())))
}
