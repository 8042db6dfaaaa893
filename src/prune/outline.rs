//! A pruned model before it is made.
use super::{Plan, PruneError, Settings, plan};
use crate::{
    model::{Model, WeightStore},
    tensor::{Bytes, RawTensor},
};

impl Plan {
    /// The plan of a cut of `model`, with a note on what cannot go along.
    pub fn of(model: &Model, settings: &Settings) -> Result<Self, PruneError> {
        let mut plan = plan(&model.spec, &model.config, settings)?;
        let stranded = model.stranded(&plan.spec);
        if let [first, ..] = stranded.as_slice() {
            let count = stranded.len();
            plan.notes.push(format!(
                "tensors beside the architecture whose widths are cut are left out: {count}, `{first}` first"
            ));
        }
        Ok(plan)
    }

    /// Names, types and shapes of the pruned model without a single weight, for planning what
    /// comes after. With `allocate` the widths of the MLPs are those of an even cut.
    pub fn outline(&self, parent: &Model) -> Model {
        let shape = |name: &str, shape| {
            let dtype = parent.weights.raw.get(name)?.dtype;
            Some((name.to_owned(), RawTensor { dtype, shape, bytes: Bytes::fixed(&[]) }))
        };
        let known = self.spec.tensors.iter();
        let known = known.filter_map(|it| shape(&it.name, self.spec.shape(it)));
        let stranded = parent.stranded(&self.spec);
        let extras = parent.extras().into_iter().filter(|it| !stranded.iter().any(|s| s == it));
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
