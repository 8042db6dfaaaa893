//! 8 bits, one scale per 32 weights.
use super::search;
use crate::tensor::half_to_f32;
use half::f16;

/// `w = d·q`, `q` a signed byte.
#[derive(Debug)]
pub(super) struct Q8_0;

super::block_format!(Q8_0 = "Q8_0", id 8: 32 weights in 34 bytes, rounded by round_block);

fn decode_block([d0, d1, qs @ ..]: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_to_f32([*d0, *d1]);
    for (out, q) in out.iter_mut().zip(qs) {
        *out = d * f32::from(q.cast_signed());
    }
}

/// The nearest block: the scale by search, codes to nearest.
fn round_block(weights: &[f32; 32]) -> [u8; 34] {
    const RANGE: (f32, f32) = (-127.0, 127.0);
    let scale = f16::from_f32(search::symmetric(weights, RANGE));
    let inverse = search::inverse(scale.to_f32());
    let mut block = [0; 34];
    block[..2].copy_from_slice(&scale.to_le_bytes());
    for (byte, w) in block[2..].iter_mut().zip(weights) {
        *byte = (search::code(w * inverse, RANGE) as i8).cast_unsigned();
    }
    block
}
