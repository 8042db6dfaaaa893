//! 4 bits that name values which lie closer together around 0, one scale per 32 weights.
use crate::tensor::half_to_f32;

/// What codes stand for, in steps of the scale.
pub(super) const VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// `w = d·VALUES[q]`; nibbles as in Q4_0.
#[derive(Debug)]
pub(super) struct Iq4Nl;

super::block_format!(Iq4Nl = "IQ4_NL", id 20: 32 weights in 18 bytes);

fn decode_block([d0, d1, qs @ ..]: &[u8; 18], out: &mut [f32; 32]) {
    decode_nibbles(half_to_f32([*d0, *d1]), qs, out);
}

/// 32 weights on one scale.
pub(super) fn decode_nibbles(scale: f32, qs: &[u8; 16], out: &mut [f32; 32]) {
    let value = |q: u8| scale * f32::from(VALUES[usize::from(q)]);
    let (low, high) = out.split_at_mut(16);
    for ((q, low), high) in qs.iter().zip(low).zip(high) {
        *low = value(q & 15);
        *high = value(q >> 4);
    }
}
