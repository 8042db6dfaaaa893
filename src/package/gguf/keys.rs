//! The keys that a file has for its architecture, `llama.block_count` and the like.
use super::{arch::Arch, error::ContentError, file::Gguf, names::gguf_name};
use crate::model::{Part, Role};
use serde_json::Value;

/// Keys of a GGUF architecture.
pub(super) struct Keys<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) arch: Arch,
}

impl Keys<'_> {
    pub(super) fn key(&self, leaf: &str) -> String {
        format!("{}.{leaf}", self.arch.name())
    }

    pub(super) fn size(&self, leaf: &str) -> Result<Option<u64>, ContentError> {
        self.gguf.size(&self.key(leaf))
    }

    pub(super) fn needed(&self, leaf: &str) -> Result<u64, ContentError> {
        self.gguf.needed(&self.key(leaf))
    }

    /// A size, or one per block as a list, where the architecture lets blocks differ.
    pub(super) fn per_block(&self, leaf: &str) -> Result<Option<Value>, ContentError> {
        let key = self.key(leaf);
        if self.arch != Arch::Deci {
            return Ok(self.gguf.size(&key)?.map(Value::from));
        }
        Ok(match self.gguf.sizes(&key)? {
            Some(all) if all.iter().all(|size| *size == all[0]) => {
                all.first().copied().map(Value::from)
            }
            all => all.map(Value::from),
        })
    }

    pub(super) fn number(&self, leaf: &str) -> Result<Option<f64>, ContentError> {
        self.gguf.number(&self.key(leaf))
    }

    pub(super) fn unsupported(&self, leaf: &str, why: impl Into<String>) -> ContentError {
        ContentError::Unsupported { what: format!("key `{}`", self.key(leaf)), why: why.into() }
    }

    /// Whether the first block has a tensor.
    pub(super) fn has(&self, role: Role, part: Part) -> bool {
        gguf_name((Some(0), role, None, part)).is_some_and(|name| self.gguf.tensor(&name).is_some())
    }
}
