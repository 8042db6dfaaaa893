//! Layers beside the main path, such as those for multi-token prediction.
use super::{Config, FAMILIES, Family};
use crate::model::ModelSpec;
use serde_json::Value;

impl ModelSpec {
    /// Whether a tensor that the architecture does not know lies in a layer that the family has
    /// beside its main path. Such a layer has the sizes of the blocks and reads the residual stream.
    pub fn is_extra_layer(&self, tensor: &str) -> bool {
        let family = FAMILIES.iter().find(|it| it.name == self.family);
        let layers = family.and_then(|it| it.extra_layers);
        layers.is_some_and(|layers| tensor.starts_with(layers.prefix))
    }
}

/// Says in a `config.json` that there are no layers beside the main path, if it said any.
pub fn without_extra_layers(config: &mut Value) {
    let layers = Family::of(Config(config)).ok().and_then(|it| it.extra_layers);
    if let Some(layers) = layers.filter(|layers| Config(config).get(layers.count).is_some()) {
        config[layers.count] = 0.into();
    }
}
