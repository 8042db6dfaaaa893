//! 4-bit floats (E2M1) with a power of two (E8M0) per 32 weights: MXFP4 of the OCP microscaling
//! standard 1.0, in ggml's order of nibbles. ggml takes the scale 255, not a number, for one.

use crate::scheme::e2m1::{DOUBLED, half_scale};

/// `w = 2^(e − 128)·DOUBLED[q]`; nibbles as in Q4_0.
#[derive(Debug)]
pub(super) struct Mxfp4;

super::block_format!(Mxfp4 = "MXFP4", id 39: 32 weights in 17 bytes);

fn decode_block([exponent, qs @ ..]: &[u8; 17], out: &mut [f32; 32]) {
    let scale = half_scale(*exponent);
    let value = |q: u8| scale * f32::from(DOUBLED[usize::from(q)]);
    let (low, high) = out.split_at_mut(16);
    for ((q, low), high) in qs.iter().zip(low).zip(high) {
        *low = value(q & 15);
        *high = value(q >> 4);
    }
}

/// Appends the block of some codes with a byte of E8M0.
pub(in crate::scheme) fn encode_mxfp4(codes: [u8; 32], exponent: u8, out: &mut Vec<u8>) {
    let (low, high) = codes.split_at(16);
    out.push(exponent);
    out.extend(low.iter().zip(high).map(|(low, high)| low | high << 4));
}

/// Codes and bytes of E8M0 of whole blocks.
pub(in crate::scheme) fn decode_mxfp4(blocks: &[u8]) -> impl Iterator<Item = ([u8; 32], u8)> {
    blocks.as_chunks::<17>().0.iter().map(|[exponent, qs @ ..]| {
        let code = |at: usize| if at < 16 { qs[at] & 15 } else { qs[at - 16] >> 4 };
        (std::array::from_fn(code), *exponent)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_scales_are_those_of_the_standard() {
        let block = |exponent: u8, q: u8| {
            let mut bytes = [q; 17];
            bytes[0] = exponent;
            let mut out = [0.0; 32];
            decode_block(&bytes, &mut out);
            out[0]
        };
        // E8M0 127 is 1: the codes are 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
        let values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        for (q, value) in (0_u8..).zip(values) {
            assert!(
                (block(127, q) - value).abs() <= 0.0 && (block(127, q + 8) + value).abs() <= 0.0
            );
        }
        for exponent in [0_u8, 1, 2, 126, 128, 250] {
            let scale = 2.0_f64.powi(i32::from(exponent) - 127);
            assert!((f64::from(block(exponent, 2)) - scale).abs() <= 0.0, "{exponent}");
        }
        assert!(block(255, 2).is_nan());
    }
}
