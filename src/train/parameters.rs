//! Numbers that are learnt, and what they have learnt so far.
use super::{TrainError, scales::Scales};
use crate::{
    forward::ForwardError,
    linalg::{Team, matmul_tiled},
    model::{Expert, Input, Model, Part, Role, Tensors, Weight},
    tensor::{Bytes, FloatType, RawTensor},
};
use ndarray::{Array2, ArrayView2};

/// What of a model learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learns {
    /// Nothing.
    Nothing,
    /// Vectors, and the scales of weights on grids: the form of a package stays.
    Scales,
    /// Matrices, too.
    Everything,
}

/// A tensor in float32; a vector is one row.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    /// What the products see.
    pub value: Array2<f32>,
    /// The sum of the gradients of what learns since the last step; empty where nothing does.
    pub gradient: Array2<f32>,
    stored: Stored,
}

/// How the checkpoint holds a tensor, and what of it learns.
#[derive(Clone, Debug)]
enum Stored {
    /// As floats of a type and shape: the value learns.
    Float(FloatType, Vec<usize>),
    /// On a grid: its scales do.
    Grid(Box<Scales>),
    /// On a grid where nothing does.
    Fixed,
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
    /// What of them learns.
    pub(super) learns: Learns,
    pub(super) parameters: &'a mut Parameters,
}

impl Loader<'_> {
    /// A tensor that may be there.
    pub(super) fn find(&mut self, role: Role, part: Part) -> Result<Option<Id>, TrainError> {
        let Some(spec) = self.model.spec.find(self.block, role, self.expert, part) else {
            return Ok(None);
        };
        let name = spec.name.clone();
        let weight = self.model.weights.get(&name).map_err(ForwardError::from)?;
        let columns = weight.shape().last().copied().unwrap_or(1).max(1);
        let (values, learns) = (weight.to_f32(), self.learns);
        let value = Array2::from_shape_vec((values.len() / columns, columns), values)
            .expect("a value for each place");
        let (stored, learnt) = match weight {
            Weight::Dense(raw) => {
                let vector = raw.shape.len() == 1;
                let learns = learns == Learns::Everything || learns == Learns::Scales && vector;
                let float = raw.float_type().expect("dense weights are float");
                (Stored::Float(float, raw.shape), learns.then(|| value.dim()))
            }
            Weight::Quantized { tensor, activations: Input::Float }
                if learns != Learns::Nothing =>
            {
                let (scheme, _) = self.model.weights.quantized[&name];
                let scales = Scales::new(scheme, tensor);
                let size = scales.change.dim();
                (Stored::Grid(Box::new(scales)), Some(size))
            }
            Weight::Quantized { activations, .. } | Weight::Split { activations, .. } => {
                if activations != Input::Float && learns != Learns::Nothing {
                    return Err(TrainError::Activations { tensor: name });
                }
                (Stored::Fixed, None)
            }
        };
        let gradient = Array2::zeros(learnt.unwrap_or_default());
        self.parameters.list.push(Parameter { name, value, gradient, stored });
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

    /// The sum of the gradients of a vector, where it learns.
    pub(super) fn gradient(&mut self, id: Id) -> Option<&mut Array2<f32>> {
        let gradient = &mut self.list[id].gradient;
        (!gradient.is_empty()).then_some(gradient)
    }

    /// The sum of the gradients of a matrix grows by `dyᵀ·x`, or what learns of it by what follows from that.
    pub(super) fn learn_product(
        &mut self,
        id: Id,
        (dy, x): (ArrayView2<'_, f32>, ArrayView2<'_, f32>),
        team: &Team,
    ) {
        let Parameter { gradient, stored, value, .. } = &mut self.list[id];
        if gradient.is_empty() {
            return;
        }
        if let Stored::Grid(scales) = stored {
            let mut dw = Array2::zeros(value.dim());
            matmul_tiled(dy.t(), x, dw.view_mut(), false, team);
            scales.add(dw.view(), gradient, team);
        } else {
            matmul_tiled(dy.t(), x, gradient.view_mut(), true, team);
        }
    }

    /// The tensors that learn, as a checkpoint holds them.
    pub fn tensors(&self) -> Tensors {
        self.list.iter().filter(|it| it.learns()).flat_map(Parameter::tensors).collect()
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
        Self { name, value, gradient, stored: Stored::Float(FloatType::Bf16, shape) }
    }

    /// Whether anything of it learns.
    pub fn learns(&self) -> bool {
        !self.gradient.is_empty()
    }

    /// The numbers that learn, in the shape of their gradient; not to be asked where nothing does.
    pub fn learnt(&self) -> &Array2<f32> {
        match &self.stored {
            Stored::Grid(scales) => &scales.change,
            Stored::Float(..) | Stored::Fixed => &self.value,
        }
    }

    /// Changes the numbers that learn, by their gradient.
    pub(super) fn change(&mut self, by: impl FnOnce(&mut Array2<f32>, &Array2<f32>)) {
        match &mut self.stored {
            Stored::Grid(scales) => {
                by(&mut scales.change, &self.gradient);
                self.value = scales.value();
            }
            Stored::Float(..) | Stored::Fixed => by(&mut self.value, &self.gradient),
        }
    }

    /// Whether it is a matrix that learns, which decays towards 0.
    pub(super) fn decays(&self) -> bool {
        matches!(self.stored, Stored::Float(..)) && self.value.nrows() > 1
    }

    /// As the checkpoint holds it, rounded to its type there; nothing where nothing learns.
    fn tensors(&self) -> Vec<(String, RawTensor)> {
        match &self.stored {
            Stored::Float(float, shape) => {
                let mut bytes = Vec::with_capacity(self.value.len() * float.size());
                float.encode(self.value.as_slice().expect("in standard layout"), &mut bytes);
                let raw = RawTensor {
                    dtype: float.dtype(),
                    shape: shape.clone(),
                    bytes: Bytes::owned(bytes),
                };
                vec![(self.name.clone(), raw)]
            }
            Stored::Grid(scales) => scales.parts(&self.name),
            Stored::Fixed => Vec::new(),
        }
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
