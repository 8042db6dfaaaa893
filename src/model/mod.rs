//! A model as data: its architecture ([`ModelSpec`]) and its weights ([`WeightStore`]).
mod config;
pub mod family;
mod kv_cache;
mod ops;
mod role;
mod rope;
mod rope_kinds;
mod space;
mod spec;
mod stranded;
mod transformed;
mod weights;

pub use config::ConfigError;
pub use family::{HEAD, Joined, NextLayer, NextLayerError};
pub use ops::{Activation, Half, Op};
pub use role::Role;
pub use rope::{KeptPairs, Rope, RopeScaling};
pub use space::{Axis, Expert, Space};
pub use spec::{Block, Mlp, ModelSpec, Part, TensorSpec};
pub use transformed::{TRANSFORM_KEY, Transformed};
pub use weights::{Input, Tensors, Weight, WeightError, WeightStore, part_name};

use serde_json::Value;

/// Architecture and weights, kept consistent by [`Model::check`].
#[derive(Clone, Debug)]
pub struct Model {
    /// `config.json`, with what was absent stated; see [`family::complete`].
    pub config: Value,
    /// Architecture.
    pub spec: ModelSpec,
    /// Weights by checkpoint name.
    pub weights: WeightStore,
}

/// Architecture and weights disagree.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A tensor that the architecture needs.
    #[error(
        "tensor `{name}` is missing\nhint: config.json describes a model that needs it; is a shard absent?"
    )]
    Missing {
        /// Its name.
        name: String,
    },
    /// A tensor of another shape.
    #[error("tensor `{name}`: config.json gives the shape {expected:?}, the file {found:?}")]
    Shape {
        /// Its name.
        name: String,
        /// By the architecture.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
}

impl Model {
    /// A model whose weights fit its config.
    pub fn new(config: Value, weights: WeightStore) -> Result<Self, OpenError> {
        let (_, config) = family::complete(&config)?;
        let spec = ModelSpec::from_config(&config)?;
        let model = Self { config, spec, weights };
        model.check()?;
        Ok(model)
    }

    /// Some tensors of a model, to run the blocks that they make up.
    pub fn part(spec: &ModelSpec, tensors: Tensors) -> Self {
        let weights = WeightStore { raw: tensors, ..WeightStore::default() };
        Self { config: Value::Null, spec: spec.clone(), weights }
    }

    /// Checks that every tensor of the architecture is there in its shape.
    pub fn check(&self) -> Result<(), ModelError> {
        for tensor in &self.spec.tensors {
            let name = || tensor.name.clone();
            let found = self.weights.shape(&tensor.name);
            let found = found.ok_or_else(|| ModelError::Missing { name: name() })?;
            let expected = self.spec.shape(tensor);
            if found != expected {
                return Err(ModelError::Shape { name: name(), expected, found: found.to_vec() });
            }
        }
        Ok(())
    }

    /// Lets the mapped pages of a block's weights leave memory.
    pub fn release(&self, block: usize) {
        for tensor in self.spec.tensors.iter().filter(|t| t.block == Some(block)) {
            self.weights.release(&tensor.name);
        }
    }

    /// Stored tensors that the architecture does not know (heads for multi-token prediction and
    /// the like), in name order. They are carried along.
    pub fn extras(&self) -> Vec<&str> {
        let known: std::collections::BTreeSet<String> =
            self.spec.tensors.iter().flat_map(|t| self.weights.part_names(&t.name)).collect();
        self.weights.raw.keys().filter(|name| !known.contains(*name)).map(String::as_str).collect()
    }
}

/// Config and weights do not make a model.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The architecture cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights do not fit it.
    #[error(transparent)]
    Model(#[from] ModelError),
}
