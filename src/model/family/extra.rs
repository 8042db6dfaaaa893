//! Layers beside the main path, such as those for multi-token prediction.
use super::{Config, FAMILIES, Family, Transformed};
use crate::{
    model::{Model, ModelError, ModelSpec, Tensors},
    scheme::KvPrecision,
};
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

/// A layer that guesses the token behind the next one, from the state that says the next and from that
/// token. A block stands in it, with weights in float.
#[derive(Clone, Debug)]
pub struct NextLayer {
    /// The block, as the only one of a model; the tensors below are among its weights.
    pub model: Model,
    /// Name of the gain of the norm that states pass.
    pub state_norm: String,
    /// Name of the gain of the norm that embeddings pass.
    pub token_norm: String,
    /// Name of the matrix `[hidden, 2 · hidden]` that makes the block's stream of both, states first.
    pub input: String,
    /// Name of the gain of the last norm, behind which the head multiplies.
    pub last_norm: String,
}

/// Why a model has no layer for multi-token prediction that could be used.
#[derive(Debug, thiserror::Error)]
pub enum NextLayerError {
    /// There is none.
    #[error(
        "the model has no layers for multi-token prediction\n\
         hint: checkpoints of MiMo have them; `prune`, and rotations of the residual stream, leave them out, \
         since they would no longer fit: use them with the model from before, or offer by `--lookup`, \
         `--draft MODEL` or `--medusa DIR`"
    )]
    None,
    /// The main path was turned, and the layer was not.
    #[error(
        "`{prefix}…` are layers for multi-token prediction, and the residual stream that they read was turned \
         (`{rotation}`)\nhint: use them with the checkpoint from before the rotation"
    )]
    Turned {
        /// What their tensors' names begin with.
        prefix: &'static str,
        /// Kind of the rotation.
        rotation: String,
    },
    /// A tensor is missing, or has another shape than the model's blocks.
    #[error(
        "a layer for multi-token prediction does not fit the model: {0}\n\
         hint: it is cut with the blocks, or left out; use it with the checkpoint that it was trained in"
    )]
    Unfit(ModelError),
}

impl Model {
    /// The first layer for multi-token prediction.
    pub fn next_layer(&self) -> Result<NextLayer, NextLayerError> {
        let family = FAMILIES.iter().find(|it| it.name == self.spec.family);
        let extra = family.and_then(|it| it.extra_layers).ok_or(NextLayerError::None)?;
        if !self.weights.raw.keys().any(|name| name.starts_with(extra.prefix)) {
            return Err(NextLayerError::None);
        }
        let turned = self.spec.transformed.as_ref().filter(|it| it.residual_sha256.is_some());
        if let Some(Transformed { rotation, .. }) = turned {
            let (prefix, rotation) = (extra.prefix, rotation.clone());
            return Err(NextLayerError::Turned { prefix, rotation });
        }
        let hidden = self.spec.hidden;
        let mut tensors = Tensors::new();
        let mut take = |leaf: &str, to: String, expected: Vec<usize>| {
            let name = format!("{}0.{leaf}", extra.prefix);
            let Some(raw) = self.weights.raw.get(&name) else {
                return Err(NextLayerError::Unfit(ModelError::Missing { name }));
            };
            if raw.shape != expected {
                let found = raw.shape.clone();
                return Err(NextLayerError::Unfit(ModelError::Shape { name, expected, found }));
            }
            tensors.insert(to.clone(), raw.clone());
            Ok(to)
        };
        let mut around = |leaf: &str, shape| take(leaf, format!("{}0.{leaf}", extra.prefix), shape);
        let [state_norm, token_norm, last_norm] = extra.norms;
        let state_norm = around(state_norm, vec![hidden])?;
        let token_norm = around(token_norm, vec![hidden])?;
        let input = around(extra.input, vec![hidden, 2 * hidden])?;
        let last_norm = around(last_norm, vec![hidden])?;
        for tensor in self.spec.tensors.iter().filter(|it| it.block == Some(0)) {
            let leaf = tensor.name.strip_prefix("model.layers.0.").unwrap_or(&tensor.name);
            take(leaf, tensor.name.clone(), self.spec.shape(tensor))?;
        }
        let mut spec = self.spec.clone();
        spec.blocks.truncate(1);
        (spec.transformed, spec.kv_cache) = (None, KvPrecision::Float);
        let model = Self::part(&spec, tensors);
        Ok(NextLayer { model, state_norm, token_norm, input, last_norm })
    }
}
