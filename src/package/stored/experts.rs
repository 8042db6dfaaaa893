//! Experts that one tensor holds, as transformers 5 has them in memory and can save them.
use super::StoredError;
use crate::{checkpoint::Tensors, model::ModelSpec, tensor::RawTensor};

/// Gives each weight of a joined tensor its own name. Nothing is copied.
pub(super) fn split(spec: &ModelSpec, tensors: &mut Tensors) -> Result<(), StoredError> {
    for joined in (0..spec.blocks.len()).flat_map(|block| spec.joined(block)) {
        // A name of its own, e.g. the router where only the experts are joined.
        if joined.parts.iter().any(|(name, _)| *name == joined.name) {
            continue;
        }
        let Some(raw) = tensors.raw.get(&joined.name).cloned() else { continue };
        if raw.shape != joined.shape {
            let (expected, found) = (joined.shape, raw.shape);
            return Err(StoredError::Joined { tensor: joined.name, expected, found });
        }
        let file = tensors.files.get(&joined.name).cloned().unwrap_or_default();
        tensors.remove(&joined.name);
        let element = raw.bytes.len() / raw.len().max(1);
        let mut start = 0;
        for (name, shape) in joined.parts {
            let end = start + shape.iter().product::<usize>() * element;
            let Some(bytes) = raw.bytes.slice(start..end) else { break };
            start = end;
            if tensors.raw.contains_key(&name) {
                return Err(StoredError::Twice { tensor: name, joined: joined.name });
            }
            tensors.files.insert(name.clone(), file.clone());
            let part = RawTensor { dtype: raw.dtype, shape, bytes };
            tensors.raw.insert(name, part);
        }
    }
    Ok(())
}
