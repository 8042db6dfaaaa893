//! A model that was opened.
use super::{Kept, Manifest, PackageError};
use crate::{
    checkpoint::Folder,
    model::{Model, WeightStore},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Float weights.
    Checkpoint,
    /// Quantized weights.
    Package,
}

impl Kind {
    /// What weights make of a folder.
    pub(super) fn of(weights: &WeightStore) -> Self {
        if weights.quantized.is_empty() { Self::Checkpoint } else { Self::Package }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Package => "package",
        }
    }
}

/// A model with the folder that it comes from.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Architecture and weights; weights are mapped, not read.
    pub model: Model,
    /// The folder, for tokenizer and other files.
    pub folder: Folder,
    /// What it is.
    pub kind: Kind,
    /// `milm.json`, if there is one.
    pub manifest: Option<Manifest>,
    /// The file of each stored tensor.
    pub files: BTreeMap<String, String>,
    /// Tensors in shards that the index does not list.
    pub unlisted: Vec<String>,
    /// Tokenizer and hashes, once they were asked for.
    pub kept: Kept,
}

/// What a model in memory is made of.
pub(super) struct Parts {
    /// Its `config.json`.
    pub(super) config: Value,
    /// Its weights, all from `file`.
    pub(super) weights: WeightStore,
    pub(super) file: String,
    pub(super) folder: Folder,
    pub(super) manifest: Option<Manifest>,
}

impl Opened {
    /// A model that is in memory whole; errors call it `name`.
    pub(super) fn in_memory(name: &str, parts: Parts) -> Result<Self, PackageError> {
        let Parts { config, weights, file, folder, manifest } = parts;
        let files = weights.raw.keys().map(|tensor| (tensor.clone(), file.clone())).collect();
        let kind = Kind::of(&weights);
        let model = Model::new(config, weights).map_err(|source| PackageError::Model {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        let (unlisted, kept) = (Vec::new(), Kept::default());
        Ok(Self { model, folder, kind, manifest, files, unlisted, kept })
    }

    /// Hashes of its manifest and of what that was made from, for the manifests of exports.
    pub(super) fn chain(&self) -> Option<(&str, &str)> {
        self.manifest.as_ref().map(|it| (it.sha256.as_str(), it.source.sha256.as_str()))
    }
}
