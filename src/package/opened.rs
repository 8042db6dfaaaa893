//! A model that was opened.
use super::{Kept, Manifest};
use crate::{
    checkpoint::Folder,
    model::{Model, WeightStore},
};
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
