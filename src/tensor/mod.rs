//! Bytes of tensors and their floating-point formats.
//!
//! A [`RawTensor`] is what a file holds: a type, a shape, bytes that may still lie on the disk.
//! Add a float format: one arm in [`FloatType`].

mod bytes;
mod float;
mod fp8;
mod hash;
mod text;

pub use bytes::{Bytes, MapError, open_file, read_file};
pub use float::{FloatType, half_to_f32, round_to};
pub use fp8::E4M3;
pub use hash::{hex, sha256};
pub use safetensors::Dtype;
pub use text::{MAX_WHOLE, TextFileError, read_text};

/// A tensor as a file holds it.
#[derive(Clone, Debug)]
pub struct RawTensor {
    /// Element type on disk.
    pub dtype: Dtype,
    /// Shape, outermost axis first.
    pub shape: Vec<usize>,
    /// Little-endian elements, row-major; the length equals shape × element size.
    pub bytes: Bytes,
}

impl RawTensor {
    /// A float32 tensor in memory. `shape` must multiply to `values.len()`.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        Self { dtype: Dtype::F32, shape, bytes: Bytes::owned(bytes) }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The float format, or `None` for integers and formats that are not computed with.
    pub fn float_type(&self) -> Option<FloatType> {
        FloatType::of(self.dtype)
    }

    /// Values as float32 (exact for F32, F16, BF16); `None` for other types.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let float = self.float_type()?;
        let mut out = vec![0.0; self.len()];
        float.decode(&self.bytes, &mut out);
        Some(out)
    }
}
