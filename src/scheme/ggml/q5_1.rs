//! 5 bits, scale and minimum per 32 weights.
use super::q5_0::five_bits;
use crate::tensor::half_to_f32;

/// `w = d·q + m`; bits as in Q5_0.
#[derive(Debug)]
pub(super) struct Q5_1;

super::block_format!(Q5_1 = "Q5_1", id 7: 32 weights in 24 bytes);

fn decode_block([d0, d1, m0, m1, h0, h1, h2, h3, qs @ ..]: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_to_f32([*d0, *d1]), half_to_f32([*m0, *m1]));
    let fives = five_bits(u32::from_le_bytes([*h0, *h1, *h2, *h3]), qs);
    for (out, q) in out.iter_mut().zip(fives) {
        *out = d * f32::from(q) + m;
    }
}
