//! What an opened model owns beside its files: a tokenizer that is parsed once, hashes that are
//! computed once.
use super::{
    Opened, PackageError,
    kept::{hashed, once},
    stream::source_hash,
};
use crate::{checkpoint::sha256, progress::Progress, tensor::RawTensor, text::Tokenizer};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

impl Opened {
    /// The tokenizer of the model's folder; it gives no ids outside the model's vocabulary. Its file
    /// is parsed once.
    pub fn tokenizer(&self) -> Result<&Tokenizer, PackageError> {
        once(&self.kept.tokenizer, || Ok(Arc::new(self.read_tokenizer()?))).map(|it| &**it)
    }

    /// SHA-256 of `tokenizer.json`.
    pub fn tokenizer_sha256(&self) -> Result<&str, PackageError> {
        let make = || Ok(sha256(&self.tokenizer_file()?));
        once(&self.kept.tokenizer_sha256, make).map(String::as_str)
    }

    /// SHA-256 of the bytes of each stored tensor, by its name. They are read once, in parallel, and
    /// their pages let go; `progress` is told when they are. Tensors of [`Self::model`] that were
    /// replaced since are hashed each time.
    pub fn tensor_sha256(&self, progress: &dyn Progress) -> BTreeMap<&str, Cow<'_, str>> {
        let raw = &self.model.weights.raw;
        let kept = self.kept.tensors.get_or_init(|| Arc::new(hashed(raw, progress)));
        let hash = |name: &String, tensor: &RawTensor| {
            let known = kept.get(name).and_then(|it| it.of(&tensor.bytes));
            known.map_or_else(|| Cow::Owned(sha256(&tensor.bytes)), Cow::Borrowed)
        };
        raw.iter().map(|(name, tensor)| (name.as_str(), hash(name, tensor))).collect()
    }

    /// SHA-256 over names, types, shapes and bytes of the tensors, as [`super::Source`] has it.
    pub fn source_sha256(&self, progress: &dyn Progress) -> String {
        let hashes = self.tensor_sha256(progress);
        let raw = self.model.weights.raw.iter();
        source_hash(raw.map(|(name, it)| (name, it, &*hashes[name.as_str()])))
    }

    /// SHA-256 over configuration and tensors.
    pub fn model_sha256(&self, progress: &dyn Progress) -> String {
        let tensors = self.source_sha256(progress);
        sha256(format!("{}\n{tensors}", self.model.config).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{package::open, progress::Unit, tensor::Bytes};
    use std::sync::Mutex;

    /// Remembers which work was begun.
    #[derive(Default)]
    struct Begun(Mutex<Vec<String>>);

    impl Progress for Begun {
        fn start(&self, what: &str, _: u64, _: Unit) {
            self.0.lock().unwrap().push(what.to_owned());
        }
        fn advance(&self, _: u64) {}
        fn finish(&self) {}
    }

    #[test]
    fn a_model_is_read_for_its_hashes_once() {
        let (mut opened, begun) = (open("builtin:milm-mini").unwrap(), Begun::default());
        let first = (opened.source_sha256(&begun), opened.model_sha256(&begun));
        let again = (opened.source_sha256(&begun), opened.model_sha256(&begun));
        assert_eq!(first, again);
        assert_ne!(first.0, first.1);
        assert_eq!(*begun.0.lock().unwrap(), ["hash"]);
        // A tensor that was replaced has its own hash.
        let tensor = opened.model.weights.raw.values_mut().next().unwrap();
        tensor.bytes = Bytes::owned(vec![0; tensor.bytes.len()]);
        assert_ne!(opened.source_sha256(&begun), first.0);
        // Another one is another read, with the same result.
        assert_eq!(open("builtin:milm-mini").unwrap().source_sha256(&begun), first.0);
        assert_eq!(*begun.0.lock().unwrap(), ["hash", "hash"]);
    }

    #[test]
    fn a_tokenizer_is_parsed_once() {
        let opened = open("builtin:milm-mini").unwrap();
        let early = opened.clone();
        assert!(std::ptr::eq(opened.tokenizer().unwrap(), opened.tokenizer().unwrap()));
        assert!(!std::ptr::eq(opened.tokenizer().unwrap(), early.tokenizer().unwrap()), "not yet");
        let copy = opened.clone();
        assert!(std::ptr::eq(opened.tokenizer().unwrap(), copy.tokenizer().unwrap()));
        let file = opened.folder.read("tokenizer.json").unwrap().unwrap();
        assert_eq!(opened.tokenizer_sha256().unwrap(), sha256(&file));
    }
}
