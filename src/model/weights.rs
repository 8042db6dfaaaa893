//! The weights of a model by name: as a file holds them, or rewritten in memory.
use crate::scheme::{
    ActivationGrid, Activations, INPUT_SCALE, PartKind, QTensor, Rounded, Schemes, SplitTensor,
    TensorScheme, WeightDecodeError,
};
use crate::tensor::{Bytes, RawTensor};
use std::collections::BTreeMap;

/// One weight, ready to compute with.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Full precision: F32, F16 or BF16.
    Dense(RawTensor),
    /// On an integer grid.
    Quantized {
        /// Codes and parameters.
        tensor: QTensor,
        /// How its product sees the input.
        activations: Input,
    },
    /// On two integer grids.
    Split {
        /// Codes and parameters of both.
        tensor: SplitTensor,
        /// How its products see the input.
        activations: Input,
    },
}

/// How a product sees its input: [`Activations`] with the scale of static ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    /// As it is.
    Float,
    /// int8, one scale per token.
    Int8PerToken,
    /// int8, this scale: `x ≈ code · scale`, above 0.
    Int8Static(f32),
}

/// Tensors by name, and the schemes of those weights that are quantized.
///
/// A quantized weight `a.b.weight` is stored as the parts of its scheme: `a.b.weight_packed`,
/// `a.b.weight_scale` and so on.
#[derive(Clone, Debug, Default)]
pub struct WeightStore {
    /// Every stored tensor, parts of quantized weights among them.
    pub raw: BTreeMap<String, RawTensor>,
    /// Quantized weights by the name of the weight they stand for, with their shapes `[out, in]`.
    pub quantized: Schemes,
    /// Static grids of activations by the names of their points, see `forward::Point`; empty in
    /// most models.
    pub activations: BTreeMap<String, ActivationGrid>,
}

/// Float tensors by name.
pub type Tensors = BTreeMap<String, RawTensor>;

/// A weight cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// No tensor of this name.
    #[error(
        "tensor `{name}` is missing\nhint: the checkpoint does not fit its config.json, or a shard is missing"
    )]
    Missing {
        /// Its name.
        name: String,
    },
    /// A type that is not computed with.
    #[error("tensor `{name}`: expected F32, F16 or BF16, found {found:?}")]
    Type {
        /// Its name.
        name: String,
        /// Its type.
        found: safetensors::Dtype,
    },
    /// A scale of static activations that is none.
    #[error(
        "tensor `{name}`: expected one number above 0\nhint: the file is damaged; `milm-compress verify` names what has changed"
    )]
    InputScale {
        /// Its name.
        name: String,
    },
    /// The stored parts are not a weight of the declared shape.
    #[error("quantized tensor `{name}`: {source}")]
    Decode {
        /// Its name.
        name: String,
        /// What is wrong.
        source: WeightDecodeError,
    },
}

impl WeightStore {
    /// Shape of a weight, whether dense or quantized.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.quantized
            .get(name)
            .map(|(_, shape)| shape.as_slice())
            .or_else(|| self.raw.get(name).map(|raw| raw.shape.as_slice()))
    }

    /// A weight by name. A quantized one is decoded: one byte a code.
    pub fn get(&self, name: &str) -> Result<Weight, WeightError> {
        if let Some((scheme, shape)) = self.quantized.get(name) {
            let activations = self.input(name)?;
            let rounded = scheme
                .decode(*shape, |kind| self.part(name, *scheme, *shape, kind))
                .map_err(|source| WeightError::Decode { name: name.to_owned(), source })?;
            return Ok(match rounded {
                Rounded::Whole(tensor) => Weight::Quantized { tensor, activations },
                Rounded::Split(tensor) => Weight::Split { tensor, activations },
            });
        }
        let missing = || WeightError::Missing { name: name.to_owned() };
        let raw = self.raw.get(name).ok_or_else(missing)?;
        match raw.float_type() {
            Some(_) => Ok(Weight::Dense(raw.clone())),
            None => Err(WeightError::Type { name: name.to_owned(), found: raw.dtype }),
        }
    }

    /// How the product of a weight sees its input.
    pub fn input(&self, name: &str) -> Result<Input, WeightError> {
        match self.quantized.get(name).map(|(scheme, _)| scheme.activations) {
            None | Some(Activations::Float) => return Ok(Input::Float),
            Some(Activations::Int8PerToken) => return Ok(Input::Int8PerToken),
            Some(Activations::Int8Static) => {}
        }
        let part = part_name(name, INPUT_SCALE);
        let missing = || WeightError::Missing { name: part.clone() };
        let values = self.raw.get(&part).and_then(RawTensor::to_f32).ok_or_else(missing)?;
        match values.as_slice() {
            [scale] if scale.is_normal() && *scale > 0.0 => Ok(Input::Int8Static(*scale)),
            _ => Err(WeightError::InputScale { name: part }),
        }
    }

    /// Sets the scale of a quantized weight's static activations, rounded to the type of its
    /// scales.
    pub fn set_input_scale(&mut self, name: &str, scale: f32) {
        let Some((scheme, _)) = self.quantized.get(name) else { return };
        let mut bytes = Vec::new();
        scheme.scale_type.encode(&[scale], &mut bytes);
        let (dtype, bytes) = (scheme.scale_type.dtype(), Bytes::owned(bytes));
        self.raw.insert(part_name(name, INPUT_SCALE), RawTensor { dtype, shape: vec![1], bytes });
    }

    /// Puts a weight on its grids in the place of a float one.
    ///
    /// # Panics
    /// When the weight has other outliers than the scheme.
    pub fn quantize(&mut self, name: &str, scheme: TensorScheme, weight: &Rounded) {
        self.raw.remove(name);
        for (part, bytes) in scheme.encode(weight) {
            let raw =
                RawTensor { dtype: part.dtype, shape: part.shape, bytes: Bytes::owned(bytes) };
            self.raw.insert(part_name(name, part.suffix), raw);
        }
        self.quantized.insert(name.to_owned(), (scheme, weight.shape()));
    }

    /// Replaces the values of a float tensor, rounded to its type; others are left alone.
    pub fn replace(&mut self, name: &str, values: impl Iterator<Item = f32>) {
        let Some(raw) = self.raw.get_mut(name) else { return };
        let Some(float) = raw.float_type() else { return };
        let mut bytes = Vec::with_capacity(raw.bytes.len());
        float.encode(&values.collect::<Vec<f32>>(), &mut bytes);
        raw.bytes = Bytes::owned(bytes);
    }

    /// Puts the rows of a weight, or the elements of a vector, in another order: row i becomes what
    /// row `order[i]` was.
    ///
    /// # Panics
    /// When a row is named that the weight does not have.
    pub fn move_rows(&mut self, name: &str, order: &[usize]) -> Result<(), WeightError> {
        let weight = match self.get(name)? {
            Weight::Quantized { tensor, .. } => Rounded::Whole(tensor.rows(order)),
            Weight::Split { tensor, .. } => Rounded::Split(tensor.rows(order)),
            Weight::Dense(raw) => {
                let row = raw.bytes.len() / raw.shape.first().copied().unwrap_or(1).max(1);
                let rows = order.iter().flat_map(|at| &raw.bytes[at * row..(at + 1) * row]);
                let bytes = Bytes::owned(rows.copied().collect());
                self.raw.insert(name.to_owned(), RawTensor { bytes, ..raw });
                return Ok(());
            }
        };
        let (scheme, _) = self.quantized[name];
        self.quantize(name, scheme, &weight);
        Ok(())
    }

    /// Names of the stored tensors that a weight consists of.
    pub fn part_names(&self, name: &str) -> Vec<String> {
        match self.quantized.get(name) {
            Some((scheme, shape)) => scheme
                .parts(*shape)
                .unwrap_or_default()
                .iter()
                .map(|part| part_name(name, part.suffix))
                .collect(),
            None => vec![name.to_owned()],
        }
    }

    /// Lets the mapped pages of a weight leave memory.
    pub fn release(&self, name: &str) {
        for part in self.part_names(name) {
            if let Some(raw) = self.raw.get(&part) {
                raw.bytes.release();
            }
        }
    }

    fn part(&self, name: &str, scheme: TensorScheme, shape: [usize; 2], kind: PartKind) -> &[u8] {
        scheme
            .parts(shape)
            .unwrap_or_default()
            .iter()
            .find(|part| part.kind == kind)
            .and_then(|part| self.raw.get(&part_name(name, part.suffix)))
            .map_or(&[], |raw| &raw.bytes)
    }
}

/// The stored name of a part: `a.b.weight` and `weight_scale` give `a.b.weight_scale`.
pub fn part_name(weight: &str, suffix: &str) -> String {
    match weight.strip_suffix("weight") {
        Some(module) => format!("{module}{suffix}"),
        None => format!("{weight}.{suffix}"),
    }
}

impl Weight {
    /// Shape, `[out, in]` for matrices.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Dense(raw) => &raw.shape,
            Self::Quantized { tensor, .. } => &tensor.shape,
            Self::Split { tensor, .. } => &tensor.shape,
        }
    }

    /// All values, row-major.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::Dense(raw) => raw.to_f32().expect("dense weights are float"),
            Self::Quantized { tensor, .. } => tensor.dequantize(),
            Self::Split { tensor, .. } => tensor.dequantize(),
        }
    }

    /// Values of one row of a matrix, `[in]`.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        match self {
            Self::Dense(raw) => {
                let float = raw.float_type().expect("dense weights are float");
                let stride = out.len() * float.size();
                float.decode(&raw.bytes[row * stride..(row + 1) * stride], out);
            }
            Self::Quantized { tensor, .. } => tensor.dequantize_row(row, out),
            Self::Split { tensor, .. } => tensor.dequantize_row(row, out),
        }
    }
}
