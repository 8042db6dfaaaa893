//! The tensors of a folder: one safetensors file, or shards with an index.
use super::{CheckpointError, Folder, HeaderError, header};
use crate::tensor::RawTensor;
use std::collections::BTreeMap;

/// The file of an unsharded checkpoint.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The file that says which shard holds a tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Tensors by name and where they come from.
#[derive(Clone, Debug, Default)]
pub struct Tensors {
    /// Every tensor, mapped.
    pub raw: BTreeMap<String, RawTensor>,
    /// The file of each tensor.
    pub files: BTreeMap<String, String>,
    /// Tensors in shards that the index does not list. They are read all the same.
    pub unlisted: Vec<String>,
}

impl Folder {
    /// Maps every tensor of the folder. Only headers are read.
    pub fn tensors(&self) -> Result<Tensors, CheckpointError> {
        match self.json(INDEX_FILE)? {
            Some(index) => self.sharded(&index),
            None => self.single(),
        }
    }

    fn single(&self) -> Result<Tensors, CheckpointError> {
        let Some(bytes) = self.read(WEIGHTS_FILE)? else {
            return Err(CheckpointError::NoFile {
                folder: self.name().to_owned(),
                file: WEIGHTS_FILE.into(),
                hint: "weights are read from model.safetensors, or from shards with model.safetensors.index.json",
            });
        };
        let raw =
            header::parse(&bytes).map_err(|source| self.header_error(WEIGHTS_FILE, source))?;
        let files = raw.keys().map(|name| (name.clone(), WEIGHTS_FILE.to_owned())).collect();
        Ok(Tensors { raw, files, unlisted: Vec::new() })
    }

    fn sharded(&self, index: &serde_json::Value) -> Result<Tensors, CheckpointError> {
        let index_file = self.file_name(INDEX_FILE);
        let form = || CheckpointError::IndexForm { file: index_file.clone() };
        let map = index.get("weight_map").and_then(|map| map.as_object()).ok_or_else(form)?;
        // Each shard with the tensors that the index places in it.
        let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, shard) in map {
            shards.entry(shard.as_str().ok_or_else(form)?).or_default().push(tensor);
        }
        let mut all = Tensors::default();
        for (shard, listed) in shards {
            let missing = || CheckpointError::MissingShard {
                index: index_file.clone(),
                shard: shard.to_owned(),
                tensor: listed[0].to_owned(),
            };
            let bytes = self.read_named_by(shard, &index_file)?.ok_or_else(missing)?;
            let raw = header::parse(&bytes).map_err(|source| self.header_error(shard, source))?;
            if let Some(absent) = listed.iter().find(|name| !raw.contains_key(**name)) {
                return Err(CheckpointError::AbsentTensor {
                    index: index_file,
                    shard: shard.to_owned(),
                    tensor: (*absent).to_owned(),
                });
            }
            all.add(shard, raw)?;
        }
        all.unlisted = all.raw.keys().filter(|name| !map.contains_key(*name)).cloned().collect();
        Ok(all)
    }

    fn header_error(&self, file: &str, source: HeaderError) -> CheckpointError {
        CheckpointError::Header { file: self.file_name(file), source: source.into() }
    }
}

impl Tensors {
    fn add(
        &mut self,
        shard: &str,
        tensors: BTreeMap<String, RawTensor>,
    ) -> Result<(), CheckpointError> {
        for (name, tensor) in tensors {
            if let Some(first) = self.files.insert(name.clone(), shard.to_owned()) {
                return Err(CheckpointError::TwiceInShards {
                    tensor: name,
                    first,
                    second: shard.to_owned(),
                });
            }
            self.raw.insert(name, tensor);
        }
        Ok(())
    }
}
