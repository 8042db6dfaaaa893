//! Drops whole blocks.
use super::{PruneError, check_float, config::shortened_config};
use crate::model::{Model, ModelSpec, OpenError, WeightStore};

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
