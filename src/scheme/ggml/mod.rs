//! Block formats of ggml (the tensor types of GGUF files), as ggml's `ggml-common.h` lays them out.
//!
//! Add a format: one file here and one line in [`FORMATS`]. Its values are compared with gguf-py's
//! by `tests/golden/ggml`.
mod codes;
mod float;
mod iq4_nl;
mod iq4_xs;
mod k_scales;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod round;
mod search;

pub use codes::{HalfChange, half_change};
pub(super) use codes::{decode_rows, encode_row, grid_format};
pub(super) use mxfp4::{decode_mxfp4, encode_mxfp4};
pub use round::Rounding;

use crate::tensor::FloatType;

/// A way from floats to blocks.
pub(super) type Round = fn(&[f32], &mut Vec<u8>);

/// How a run of weights becomes bytes.
pub trait BlockFormat: Sync + std::fmt::Debug {
    /// Number of the type in files.
    fn id(&self) -> u32;

    /// Name as ggml prints it, e.g. `Q4_K`.
    fn name(&self) -> &'static str;

    /// Weights of one block.
    fn block_len(&self) -> usize;

    /// Bytes of one block.
    fn block_bytes(&self) -> usize;

    /// Decodes `min(bytes / block_bytes, out / block_len)` whole blocks. Products and sums are
    /// float32 in ggml's order, so the values equal its reference exactly.
    fn decode(&self, bytes: &[u8], out: &mut [f32]);

    /// How floats become blocks: it appends those nearest to some finite values, whole blocks of
    /// them, the same bytes for the same values. `None` for formats that are only read.
    fn rounding(&self) -> Option<Round> {
        None
    }

    /// Bytes of `weights` weights; `None` if the block does not divide them, or on overflow.
    fn bytes(&self, weights: usize) -> Option<usize> {
        let whole = weights.is_multiple_of(self.block_len());
        whole.then(|| (weights / self.block_len()).checked_mul(self.block_bytes()))?
    }
}

/// The format of MXFP4.
pub(super) const MXFP4: &dyn BlockFormat = &mxfp4::Mxfp4;

/// Every format that is read, by id.
pub const FORMATS: &[&dyn BlockFormat] = &[
    &float::F32,
    &float::F16,
    &q4_0::Q4_0,
    &q4_1::Q4_1,
    &q5_0::Q5_0,
    &q5_1::Q5_1,
    &q8_0::Q8_0,
    &q2_k::Q2K,
    &q3_k::Q3K,
    &q4_k::Q4K,
    &q5_k::Q5K,
    &q6_k::Q6K,
    &iq4_nl::Iq4Nl,
    &iq4_xs::Iq4Xs,
    &float::BF16,
    MXFP4,
];

/// The format with this number.
pub fn find_format(id: u32) -> Option<&'static dyn BlockFormat> {
    FORMATS.iter().copied().find(|format| format.id() == id)
}

/// The format of plain floats.
pub fn float_format(float: FloatType) -> &'static dyn BlockFormat {
    match float {
        FloatType::F32 => &float::F32,
        FloatType::F16 => &float::F16,
        FloatType::Bf16 => &float::BF16,
    }
}

/// Implements [`BlockFormat`] for a unit struct over functions on one block. The array types of
/// those functions assert that the fields of a block fill its bytes exactly.
macro_rules! block_format {
    (
        $name:ident = $shown:literal, id $id:literal: $len:literal weights in $bytes:literal bytes
        $(, rounded by $round:ident)?
    ) => {
        impl super::BlockFormat for $name {
            fn id(&self) -> u32 {
                $id
            }
            fn name(&self) -> &'static str {
                $shown
            }
            fn block_len(&self) -> usize {
                $len
            }
            fn block_bytes(&self) -> usize {
                $bytes
            }
            fn decode(&self, bytes: &[u8], out: &mut [f32]) {
                let blocks = bytes.as_chunks::<$bytes>().0;
                for (block, out) in blocks.iter().zip(out.as_chunks_mut::<$len>().0) {
                    decode_block(block, out);
                }
            }
            $(fn rounding(&self) -> Option<super::Round> {
                Some(|values, out| {
                    let blocks = values.as_chunks::<$len>().0.iter();
                    blocks.for_each(|block| out.extend::<[u8; $bytes]>($round(block)));
                })
            })?
        }
    };
}
use block_format;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_are_told_apart() {
        for (i, format) in FORMATS.iter().enumerate() {
            for other in &FORMATS[..i] {
                assert!(format.id() > other.id(), "{} after {}", format.name(), other.name());
                assert_ne!(format.name(), other.name());
            }
            assert_eq!(find_format(format.id()).unwrap().name(), format.name());
        }
        assert!(find_format(16).is_none(), "IQ2_XXS is not read");
    }

    #[test]
    fn sizes_are_whole_blocks() {
        for format in FORMATS {
            let len = format.block_len();
            assert_eq!(format.bytes(3 * len), Some(3 * format.block_bytes()));
            assert!(len == 1 || format.bytes(3 * len + 1).is_none());
            assert_eq!(format.bytes(usize::MAX / len * len).is_none(), format.block_bytes() > len);
        }
    }

    #[test]
    fn short_bytes_decode_to_fewer_blocks() {
        for format in FORMATS {
            let mut out = vec![7.0; 2 * format.block_len()];
            format.decode(&vec![0; 2 * format.block_bytes() - 1], &mut out);
            assert!(out[..format.block_len()].iter().all(|x| *x == 0.0), "{}", format.name());
            assert!(
                out[format.block_len()..].iter().all(|x| x.to_bits() == 7.0_f32.to_bits()),
                "{}",
                format.name()
            );
        }
    }
}
