//! What a model is made of, as one hash.
use super::{Opened, stream::source_hash};
use crate::{
    checkpoint::sha256,
    progress::{Progress, Unit},
    tensor::RawTensor,
};
use rayon::prelude::*;

/// The hash of a model's tensors, as [`Source`](super::Source) has it. Reads every byte once, in
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
