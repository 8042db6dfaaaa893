//! A head in the files of a model that `config.json` calls tied, settled as transformers 5 does it.
use crate::{
    checkpoint::Tensors,
    model::{HEAD, ModelSpec, Part, Role, part_name},
    tensor::RawTensor,
};
use serde_json::Value;

/// A head that equals the embedding is left out; one that differs is used, and the model is not
/// tied. Where only the head stands in the files, it is the embedding.
pub(super) fn settle(name: &str, config: &mut Value, spec: &ModelSpec, tensors: &mut Tensors) {
    let embed = spec.find(None, Role::Embed, None, Part::Weight).filter(|_| spec.tied);
    let Some(embed) = embed.map(|it| &it.name) else { return };
    let packed = tensors.raw.contains_key(&part_name(HEAD, "weight_scale"));
    match (tensors.raw.get(embed), tensors.raw.get(HEAD)) {
        (Some(embedding), Some(head)) if !packed && equal(embedding, head) => {
            tensors.remove(HEAD);
            tracing::warn!(
                "`{name}`: `{HEAD}` stands in the files of a tied model and equals `{embed}`: it is left out"
            );
        }
        (None, Some(head))
            if !packed && !tensors.raw.contains_key(&part_name(embed, "weight_scale")) =>
        {
            let (head, file) = (head.clone(), tensors.files.get(HEAD).cloned());
            tensors.remove(HEAD);
            tensors.raw.insert(embed.clone(), head);
            tensors.files.insert(embed.clone(), file.unwrap_or_default());
        }
        (_, None) if !packed => {}
        _ => {
            config["tie_word_embeddings"] = false.into();
            tracing::warn!(
                "`{name}`: config.json says `tie_word_embeddings`, but `{HEAD}` in the files differs from `{embed}`: \
                 it is used, as transformers does, and outputs say that the model is not tied"
            );
        }
    }
}

fn equal(a: &RawTensor, b: &RawTensor) -> bool {
    let same = (a.dtype, &a.shape, &*a.bytes) == (b.dtype, &b.shape, &*b.bytes);
    a.bytes.release();
    b.bytes.release();
    same
}
