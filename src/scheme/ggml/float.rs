//! Plain floats: blocks of one weight.
use super::BlockFormat;
use crate::tensor::FloatType;

/// A float format under its ggml number.
#[derive(Debug)]
pub(super) struct Float {
    id: u32,
    name: &'static str,
    inner: FloatType,
}

pub(super) const F32: Float = Float { id: 0, name: "F32", inner: FloatType::F32 };
pub(super) const F16: Float = Float { id: 1, name: "F16", inner: FloatType::F16 };
pub(super) const BF16: Float = Float { id: 30, name: "BF16", inner: FloatType::Bf16 };

impl BlockFormat for Float {
    fn id(&self) -> u32 {
        self.id
    }
    fn name(&self) -> &'static str {
        self.name
    }
    fn block_len(&self) -> usize {
        1
    }
    fn block_bytes(&self) -> usize {
        self.inner.size()
    }
    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        self.inner.decode(bytes, out);
    }
}
