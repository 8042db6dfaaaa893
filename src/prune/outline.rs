//! A pruned model before it is made.
use super::{Plan, PruneError};
use crate::{
    model::{Model, WeightStore},
    tensor::{Bytes, RawTensor},
};

impl Plan {
    /// Names, types and shapes of the pruned model without a single weight, for planning what
    /// comes after. With `allocate` the widths of the MLPs are those of an even cut.
    pub fn outline(&self, parent: &Model) -> Model {
        let shape = |name: &str, shape| {
            let dtype = parent.weights.raw.get(name)?.dtype;
            Some((name.to_owned(), RawTensor { dtype, shape, bytes: Bytes::fixed(&[]) }))
        };
        let known = self.spec.tensors.iter();
        let known = known.filter_map(|it| shape(&it.name, self.spec.shape(it)));
        let extras = parent.extras().into_iter();
        let extras = extras.filter_map(|it| shape(it, parent.weights.raw.get(it)?.shape.clone()));
        let raw = known.chain(extras).collect();
        let weights = WeightStore { raw, ..WeightStore::default() };
        Model { config: self.config.clone(), spec: self.spec.clone(), weights }
    }
}

/// Refuses quantized weights, which nothing can be fitted in, and units that a rotation mixes.
pub fn check_float(model: &Model) -> Result<(), PruneError> {
    if model.spec.transformed.as_ref().is_some_and(|it| it.down_input) {
        return Err(PruneError::Rotated);
    }
    match model.weights.quantized.keys().next() {
        Some(tensor) => Err(PruneError::Already { tensor: tensor.clone() }),
        None => Ok(()),
    }
}
