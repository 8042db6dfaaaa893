//! Drops whole blocks.
use super::{PruneError, check_float};
use crate::model::{Mlp, Model, ModelSpec, OpenError, WeightStore};
use serde_json::{Value, json};

/// Keys that hold one entry per block.
const LISTS: [&str; 6] = [
    "layer_types",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
];

/// A model of some of the blocks, `blocks` ascending: block `i` of the result is block `blocks[i]`
/// of `model`. Weights are not copied; tensors that the architecture does not know go with the
/// block in whose module they lie. Keeping all blocks gives the same config and weights.
pub fn keep_blocks(model: &Model, blocks: &[usize]) -> Result<Model, PruneError> {
    let count = model.spec.blocks.len();
    if !blocks.is_sorted_by(|a, b| a < b) || blocks.last().is_none_or(|last| *last >= count) {
        let found: Vec<String> = blocks.iter().map(ToString::to_string).collect();
        return Err(PruneError::BlockList { found: found.join(", "), blocks: count });
    }
    if blocks.len() == count {
        return Ok(model.clone());
    }
    check_float(model)?;
    let config = shortened_config(&model.config, &model.spec, blocks);
    let spec = ModelSpec::from_config(&config)?;
    compare(&model.spec, &spec, blocks)?;
    let mut weights = WeightStore::default();
    let modules: Vec<String> = (0..count).map(|b| module(&model.spec, b)).collect();
    for (name, raw) in &model.weights.raw {
        let home = modules.iter().position(|it| !it.is_empty() && name.starts_with(it));
        let place = home.map(|home| blocks.binary_search(&home));
        let name = match (home, place) {
            (Some(home), Some(Ok(place))) => {
                format!("{}{}", module(&spec, place), &name[modules[home].len()..])
            }
            (Some(_), _) => continue,
            (None, _) => name.clone(),
        };
        weights.raw.insert(name, raw.clone());
    }
    Model::new(config, weights).map_err(|error| match error {
        OpenError::Config(error) => error.into(),
        OpenError::Model(error) => error.into(),
    })
}

/// What the names of a block's tensors begin with, up to a dot.
fn module(spec: &ModelSpec, block: usize) -> String {
    let mut names = spec.tensors.iter().filter(|t| t.block == Some(block)).map(|t| &t.name);
    let Some(first) = names.next() else { return String::new() };
    let common = names.fold(first.len(), |common, name| {
        let pairs = first.bytes().zip(name.bytes());
        pairs.take_while(|(a, b)| a == b).count().min(common)
    });
    first[..common].rfind('.').map_or_else(String::new, |dot| first[..=dot].to_owned())
}

/// The `config.json` of a model of some of the blocks.
pub(super) fn shortened_config(config: &Value, spec: &ModelSpec, blocks: &[usize]) -> Value {
    let mut config = config.clone();
    let count = spec.blocks.len();
    config["num_hidden_layers"] = json!(blocks.len());
    let chosen = |list: &Value| -> Value {
        blocks.iter().map(|b| list.get(*b).cloned().unwrap_or(Value::Null)).collect()
    };
    for key in LISTS {
        if let Some(list) = config.get(key).filter(|it| it.is_array()) {
            config[key] = chosen(list);
        }
    }
    for key in ["rope_parameters", "rope_scaling"] {
        if let Some(pairs) = config.get(key).and_then(|nested| nested.get("pairs")) {
            config[key]["pairs"] = chosen(pairs);
        }
    }
    // Blocks from this one on see a window: as many of the kept ones lie below as before.
    let key = "max_window_layers";
    let windowed = |b: &usize| spec.blocks[*b].window.is_some();
    let mixed = (0..count).any(|b| windowed(&b)) && !(0..count).all(|b| windowed(&b));
    let border = config.get(key).map_or(mixed.then_some(0), Value::as_u64);
    if border.is_some_and(|border| border < count as u64) {
        let full = blocks.iter().take_while(|b| !windowed(b)).count();
        let below = blocks.iter().filter(|b| (**b as u64) < border.unwrap_or(0)).count();
        config[key] = json!(if mixed { full } else { below });
    }
    let dense = |b: usize| matches!(spec.blocks[b].mlp, Mlp::Dense { .. });
    if spec.blocks.iter().any(|it| matches!(it.mlp, Mlp::Experts { .. })) {
        let listed: Vec<usize> = (0..blocks.len()).filter(|i| dense(blocks[*i])).collect();
        if !listed.is_empty() || config.get("mlp_only_layers").is_some() {
            config["mlp_only_layers"] = json!(listed);
            config["decoder_sparse_step"] = json!(1);
        }
    }
    config
}

/// Each block is what it was.
fn compare(old: &ModelSpec, new: &ModelSpec, blocks: &[usize]) -> Result<(), PruneError> {
    for (place, block) in blocks.iter().enumerate() {
        let (was, is) = (&old.blocks[*block], &new.blocks[place]);
        if was != is {
            let key = if was.window == is.window { "num_hidden_layers" } else { "layer_types" };
            return Err(PruneError::Depth { block: *block, place, key });
        }
    }
    Ok(())
}
