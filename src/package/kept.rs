//! Values that are worked out once and kept.
use super::PackageError;
use crate::{
    checkpoint::sha256,
    progress::{Progress, Unit},
    tensor::{Bytes, RawTensor},
    text::Tokenizer,
};
use rayon::prelude::*;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// What an opened model owns beside its files, made when it is first asked for.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub(super) tokenizer: OnceLock<Arc<Tokenizer>>,
    pub(super) tokenizer_sha256: OnceLock<String>,
    pub(super) tensors: OnceLock<Arc<BTreeMap<String, Hashed>>>,
}

/// A tensor's bytes, which stay at their place while they are held here, and their hash.
#[derive(Debug)]
pub(super) struct Hashed {
    bytes: Bytes,
    sha256: String,
}

/// The value that is kept, or the one that is made now.
pub(super) fn once<T>(
    kept: &OnceLock<T>,
    make: impl FnOnce() -> Result<T, PackageError>,
) -> Result<&T, PackageError> {
    if let Some(value) = kept.get() {
        return Ok(value);
    }
    let value = make()?;
    Ok(kept.get_or_init(|| value))
}

impl Hashed {
    /// The hash, if it is of these bytes.
    pub(super) fn of(&self, bytes: &Bytes) -> Option<&str> {
        let same = std::ptr::eq(&raw const *self.bytes, &raw const **bytes);
        same.then_some(&*self.sha256)
    }
}

/// Reads all tensors, in parallel, and lets their pages go.
pub(super) fn hashed(
    raw: &BTreeMap<String, RawTensor>,
    progress: &dyn Progress,
) -> BTreeMap<String, Hashed> {
    progress.start("hash", raw.values().map(|it| it.bytes.len() as u64).sum(), Unit::Bytes);
    let hash = |(name, tensor): (&String, &RawTensor)| {
        let hashed = Hashed { bytes: tensor.bytes.clone(), sha256: sha256(&tensor.bytes) };
        tensor.bytes.release();
        progress.advance(tensor.bytes.len() as u64);
        (name.clone(), hashed)
    };
    let hashes: Vec<_> = raw.par_iter().map(hash).collect();
    progress.finish();
    hashes.into_iter().collect()
}
