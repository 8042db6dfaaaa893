//! What a package is made from: its name, license and size.
use super::{
    Source,
    card::{CARD_FILE, license},
};
use crate::package::Opened;

impl Source {
    /// The source `opened`, whose tensors have this hash. A package's source is that which it was
    /// made from by name and license.
    pub(in crate::package) fn of(opened: &Opened, sha256: String) -> Self {
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
