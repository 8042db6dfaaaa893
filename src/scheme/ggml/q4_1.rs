//! 4 bits, scale and minimum per 32 weights.
use crate::tensor::half_to_f32;

/// `w = d·q + m`; nibbles as in Q4_0.
#[derive(Debug)]
pub(super) struct Q4_1;

super::block_format!(Q4_1 = "Q4_1", id 3: 32 weights in 20 bytes);

fn decode_block([d0, d1, m0, m1, qs @ ..]: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_to_f32([*d0, *d1]), half_to_f32([*m0, *m1]));
    let (low, high) = out.split_at_mut(16);
    for ((q, low), high) in qs.iter().zip(low).zip(high) {
        *low = d * f32::from(q & 15) + m;
        *high = d * f32::from(q >> 4) + m;
    }
}
