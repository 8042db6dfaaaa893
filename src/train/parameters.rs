//! Numbers that are learnt, and what they have learnt so far.
use super::TrainError;
use crate::{
    model::{Expert, Model, Part, Role},
    tensor::{Bytes, FloatType, RawTensor},
};
use ndarray::{Array2, ArrayView2};

/// A tensor in float32; a vector is one row.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    /// What the products see.
    pub value: Array2<f32>,
    /// The sum of its gradients since the last step; empty where nothing is learnt.
    pub gradient: Array2<f32>,
    /// How the checkpoint holds it.
    stored: (FloatType, Vec<usize>),
}

/// The place of a parameter in [`Parameters`].
pub(super) type Id = usize;

/// The tensors of a block, or of the end of a model.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// In the order in which they are read.
    pub list: Vec<Parameter>,
}

/// Where tensors are looked for.
pub(super) struct Loader<'a> {
    pub(super) model: &'a Model,
    pub(super) block: Option<usize>,
    pub(super) expert: Option<Expert>,
    /// Whether they are learnt.
    pub(super) learns: bool,
    pub(super) parameters: &'a mut Parameters,
}

impl Loader<'_> {
    /// A tensor that may be there.
    pub(super) fn find(&mut self, role: Role, part: Part) -> Result<Option<Id>, TrainError> {
        let Some(spec) = self.model.spec.find(self.block, role, self.expert, part) else {
            return Ok(None);
        };
        let raw = self.model.weights.raw.get(&spec.name);
        let float = raw.and_then(RawTensor::float_type);
        let (Some(raw), Some(float)) = (raw, float) else {
            return Err(TrainError::NotFloat { tensor: spec.name.clone() });
        };
        let shape = raw.shape.clone();
        let columns = shape.last().copied().unwrap_or(1);
        let values = raw.to_f32().unwrap_or_default();
        let rows = values.len() / columns.max(1);
        let value = Array2::from_shape_vec((rows, columns), values)
            .map_err(|_| TrainError::NotFloat { tensor: spec.name.clone() })?;
        let gradient = Array2::zeros(if self.learns { value.dim() } else { (0, 0) });
        let parameter =
            Parameter { name: spec.name.clone(), value, gradient, stored: (float, shape) };
        self.parameters.list.push(parameter);
        Ok(Some(self.parameters.list.len() - 1))
    }

    /// A weight that must be there.
    pub(super) fn weight(&mut self, role: Role) -> Result<Id, TrainError> {
        let missing =
            || TrainError::Missing { block: self.block, role: role.name(), expert: self.expert };
        let missing = missing();
        self.find(role, Part::Weight)?.ok_or(missing)
    }
}

impl Parameters {
    pub(super) fn value(&self, id: Id) -> ArrayView2<'_, f32> {
        self.list[id].value.view()
    }

    /// The sum of gradients, where something is learnt.
    pub(super) fn gradient(&mut self, id: Id) -> Option<&mut Array2<f32>> {
        let gradient = &mut self.list[id].gradient;
        (!gradient.is_empty()).then_some(gradient)
    }

    /// Forgets the gradients.
    pub fn clear(&mut self) {
        self.list.iter_mut().for_each(|it| it.gradient.fill(0.0));
    }
}

impl Parameter {
    /// One of its own that learns, to be stored in bfloat16.
    pub(super) fn new(name: String, value: Array2<f32>, shape: Vec<usize>) -> Self {
        let gradient = Array2::zeros(value.dim());
        Self { name, value, gradient, stored: (FloatType::Bf16, shape) }
    }

    /// As the checkpoint holds it, rounded to its type there.
    pub fn to_raw(&self) -> RawTensor {
        let (float, shape) = &self.stored;
        let mut bytes = Vec::with_capacity(self.value.len() * float.size());
        float.encode(self.value.as_slice().expect("in standard layout"), &mut bytes);
        RawTensor { dtype: float.dtype(), shape: shape.clone(), bytes: Bytes::owned(bytes) }
    }
}

/// A matrix as a tensor, to be kept.
pub(super) fn to_raw(matrix: &Array2<f32>) -> RawTensor {
    let values = matrix.as_slice().expect("in standard layout");
    RawTensor::from_f32(matrix.shape().to_vec(), values)
}

/// The matrix that [`to_raw`] was called on.
pub(super) fn from_raw(raw: &RawTensor) -> Option<Array2<f32>> {
    let &[rows, columns] = raw.shape.as_slice() else { return None };
    Array2::from_shape_vec((rows, columns), raw.to_f32()?).ok()
}
