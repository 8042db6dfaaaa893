//! 4 bits, one scale per 32 weights.
use super::search;
use crate::tensor::half_to_f32;
use half::f16;

/// `w = d·(q − 8)`; byte `j` holds `q[j]` in its low and `q[j + 16]` in its high nibble.
#[derive(Debug)]
pub(super) struct Q4_0;

super::block_format!(Q4_0 = "Q4_0", id 2: 32 weights in 18 bytes, rounded by round_block);

fn decode_block([d0, d1, qs @ ..]: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_to_f32([*d0, *d1]);
    let (low, high) = out.split_at_mut(16);
    for ((q, low), high) in qs.iter().zip(low).zip(high) {
        *low = d * (f32::from(q & 15) - 8.0);
        *high = d * (f32::from(q >> 4) - 8.0);
    }
}

/// The nearest block: the scale by search, codes to nearest.
fn round_block(weights: &[f32; 32]) -> [u8; 18] {
    const RANGE: (f32, f32) = (-8.0, 7.0);
    let scale = f16::from_f32(search::symmetric(weights, RANGE));
    let inverse = search::inverse(scale.to_f32());
    let nibble = |w: f32| (search::code(w * inverse, RANGE) + 8.0) as u8;
    let mut block = [0; 18];
    block[..2].copy_from_slice(&scale.to_le_bytes());
    let (low, high) = weights.split_at(16);
    for (byte, (low, high)) in block[2..].iter_mut().zip(low.iter().zip(high)) {
        *byte = nibble(*low) | nibble(*high) << 4;
    }
    block
}
