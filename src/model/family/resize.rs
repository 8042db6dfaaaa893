//! Writes the sizes of blocks into a `config.json`.
use super::{ConfigError, FAMILIES, SHARED_WIDTH, unfit};
use crate::model::spec::{Block, Mlp, ModelSpec};
use serde_json::{Value, json};

impl ModelSpec {
    /// A `config.json` of this architecture with blocks of other sizes: head counts, the width of
    /// a head and the widths of MLPs. A number where all blocks agree, else a list with one entry
    /// per block, which is a form of this project. `blocks` are as many as there were; nothing
    /// else of them is looked at, and rotary keys stay as they are.
    pub fn resized(&self, config: &Value, blocks: &[Block]) -> Result<Value, ConfigError> {
        let mut config = config.clone();
        let count = blocks.len();
        if count != self.blocks.len() {
            return Err(unfit("num_hidden_layers", self.blocks.len().to_string(), &count.into()));
        }
        let all = || blocks.iter();
        put(&mut config, "num_attention_heads", all().map(|b| Some(b.heads)))?;
        put(&mut config, "num_key_value_heads", all().map(|b| Some(b.kv_heads)))?;
        let [first, rest @ ..] = blocks else { return Ok(config) };
        if let Some(other) = rest.iter().find(|b| b.head_dim != first.head_dim) {
            let expected = format!("{} in all blocks", first.head_dim);
            return Err(unfit("head_dim", expected, &other.head_dim.into()));
        }
        // Loaders take hidden_size / num_attention_heads when it is absent.
        if config.get("head_dim").is_some_and(|v| !v.is_null()) || self.blocks != blocks {
            config["head_dim"] = json!(first.head_dim);
        }
        let dense = |b: &Block| match &b.mlp {
            Mlp::Dense { width } => Some(*width),
            Mlp::Experts { .. } => None,
        };
        let routed = |b: &Block| match &b.mlp {
            Mlp::Dense { .. } => None,
            Mlp::Experts { width, .. } => Some(*width),
        };
        let shared = |b: &Block| match &b.mlp {
            Mlp::Dense { .. } => None,
            Mlp::Experts { shared, .. } => *shared,
        };
        let family = FAMILIES.iter().find(|f| f.name == self.family);
        let key = family.and_then(|f| f.experts).map(|rule| rule.width);
        match key {
            // Mixtral has one key for both, and no dense blocks.
            Some(key @ "intermediate_size") => {
                put(&mut config, key, all().map(|b| routed(b).or(dense(b))))?;
            }
            _ => put(&mut config, "intermediate_size", all().map(dense))?,
        }
        if let Some(key) = key.filter(|key| *key != "intermediate_size") {
            put(&mut config, key, all().map(routed))?;
        }
        put(&mut config, SHARED_WIDTH, all().map(shared))?;
        Ok(config)
    }
}

/// Sets a key to what the blocks say: blocks that say nothing follow the first that does; if none
/// does, the key stays as it is.
fn put(
    config: &mut Value,
    key: &str,
    sizes: impl Iterator<Item = Option<usize>> + Clone,
) -> Result<(), ConfigError> {
    let Some(first) = sizes.clone().flatten().next() else { return Ok(()) };
    let object = config.as_object_mut().ok_or(ConfigError::NotAnObject)?;
    let same = sizes.clone().flatten().all(|size| size == first);
    let list = || sizes.map(|size| size.unwrap_or(first)).collect::<Vec<_>>();
    object.insert(key.to_owned(), if same { json!(first) } else { json!(list()) });
    Ok(())
}
