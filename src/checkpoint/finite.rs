//! Finds weights that are not numbers.
use crate::tensor::{FloatType, RawTensor};
use std::fmt;

/// The first NaN or infinity of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct NonFinite {
    /// The tensor's name.
    pub tensor: String,
    /// Indices into its shape.
    pub position: Vec<usize>,
    /// The value.
    pub value: f32,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tensor `{}` holds {} at {:?}", self.tensor, self.value, self.position)
    }
}

/// Index of the first element of `bytes` that is NaN or infinite.
fn first_nonfinite(float: FloatType, bytes: &[u8]) -> Option<usize> {
    // A number is not finite when all its exponent bits are set. Blocks are tested as a whole,
    // which vectorises; only a block with a hit is looked at one by one.
    const BLOCK: usize = 4096;
    let mask = match float {
        FloatType::F32 => 0x7f80_0000_u32,
        FloatType::F16 => 0x7c00,
        FloatType::Bf16 => 0x7f80,
    };
    let scan = |chunk: &[u8]| {
        if float == FloatType::F32 {
            let bad = |b: &[u8; 4]| u32::from_le_bytes(*b) & mask == mask;
            let all = chunk.as_chunks::<4>().0;
            all.iter().fold(false, |any, b| any | bad(b)).then(|| all.iter().position(bad))
        } else {
            let mask = mask as u16;
            let bad = |b: &[u8; 2]| u16::from_le_bytes(*b) & mask == mask;
            let all = chunk.as_chunks::<2>().0;
            all.iter().fold(false, |any, b| any | bad(b)).then(|| all.iter().position(bad))
        }
    };
    let per_block = BLOCK / float.size();
    bytes
        .chunks(BLOCK)
        .enumerate()
        .find_map(|(block, chunk)| Some(block * per_block + scan(chunk)??))
}

/// The first NaN or infinity of rows of a float tensor. `bytes` are whole rows of `raw` from
/// `first_row` on (a row is all of the inner axes); other types hold no such values.
pub fn find_nonfinite(
    name: &str,
    raw: &RawTensor,
    bytes: &[u8],
    first_row: usize,
) -> Option<NonFinite> {
    let float = raw.float_type()?;
    let at = first_nonfinite(float, bytes)?;
    let mut value = [0.0];
    float.decode(&bytes[at * float.size()..], &mut value);
    let inner: usize = raw.shape.iter().skip(1).product();
    let mut rest = first_row * inner + at;
    let mut position: Vec<usize> = raw
        .shape
        .iter()
        .rev()
        .map(|n| {
            let index = rest % n.max(&1);
            rest /= n.max(&1);
            index
        })
        .collect();
    position.reverse();
    Some(NonFinite { tensor: name.to_owned(), position, value: value[0] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_one_is_named_with_its_position() {
        let mut values = vec![1.0_f32; 3 * 5000];
        values[2 * 5000 + 4321] = f32::NEG_INFINITY;
        values[2 * 5000 + 4999] = f32::NAN;
        for float in [FloatType::F32, FloatType::F16, FloatType::Bf16] {
            let mut bytes = Vec::new();
            float.encode(&values, &mut bytes);
            let row = 5000 * float.size();
            let raw = RawTensor {
                dtype: float.dtype(),
                shape: vec![3, 5000],
                bytes: crate::tensor::Bytes::owned(bytes.clone()),
            };
            let found = find_nonfinite("w", &raw, &bytes[row..], 1).unwrap();
            assert_eq!(found.position, [2, 4321], "{float:?}");
            assert_eq!(found.to_string(), "tensor `w` holds -inf at [2, 4321]");
            assert_eq!(find_nonfinite("w", &raw, &bytes[..row], 0), None);
        }
    }
}
