//! The tensors of a folder: one safetensors file, or shards with an index.
use super::{CheckpointError, Folder, header};
use crate::tensor::{Bytes, RawTensor};
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
    /// Maps every tensor of the folder. Only headers are read. As in transformers, an unsharded file
    /// is read rather than an index beside it.
    pub fn tensors(&self) -> Result<Tensors, CheckpointError> {
        if let Some(bytes) = self.read(WEIGHTS_FILE)? {
            self.warn_of_index()?;
            return self.single(&bytes);
        }
        match self.json(INDEX_FILE)? {
            Some(index) => self.sharded(&index),
            None => Err(self.no_file(WEIGHTS_FILE)?),
        }
    }

    /// Says that an index is not read, unless it names the unsharded file alone.
    fn warn_of_index(&self) -> Result<(), CheckpointError> {
        let Some(bytes) = self.read(INDEX_FILE)? else { return Ok(()) };
        let index: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
        let map = index.as_ref().and_then(|it| it.get("weight_map")?.as_object());
        let other = |it: &serde_json::Value| it.as_str().is_some_and(|it| it != WEIGHTS_FILE);
        if map.is_none_or(|map| map.values().any(other)) {
            tracing::warn!(
                "`{}` is read, and `{}` beside it is not: they come from different versions; remove \
                 the one that does not belong to the checkpoint",
                self.file_name(WEIGHTS_FILE),
                self.file_name(INDEX_FILE)
            );
        }
        Ok(())
    }

    fn single(&self, bytes: &Bytes) -> Result<Tensors, CheckpointError> {
        let raw = self.parse(WEIGHTS_FILE, bytes)?;
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
            let raw = self.parse(shard, &bytes)?;
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

    fn parse(
        &self,
        file: &str,
        bytes: &Bytes,
    ) -> Result<BTreeMap<String, RawTensor>, CheckpointError> {
        self.refuse_pointer(file, bytes)?;
        header::parse(bytes).map_err(|source| CheckpointError::Header {
            file: self.file_name(file),
            source: source.into(),
        })
    }
}

impl Tensors {
    /// Forgets a tensor.
    pub fn remove(&mut self, name: &str) {
        self.raw.remove(name);
        self.files.remove(name);
    }

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
