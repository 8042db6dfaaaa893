//! 5 bits, one scale per 32 weights.
use crate::tensor::half_to_f32;

/// `w = d·(q − 16)`; low four bits as in Q4_0, bit `j` of a 32-bit word is the fifth of `q[j]`.
#[derive(Debug)]
pub(super) struct Q5_0;

super::block_format!(Q5_0 = "Q5_0", id 6: 32 weights in 22 bytes);

fn decode_block([d0, d1, h0, h1, h2, h3, qs @ ..]: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_to_f32([*d0, *d1]);
    let fives = five_bits(u32::from_le_bytes([*h0, *h1, *h2, *h3]), qs);
    for (out, q) in out.iter_mut().zip(fives) {
        *out = d * (f32::from(q) - 16.0);
    }
}

/// The codes 0..=31 of a block from their fifth bits and their nibbles.
pub(super) fn five_bits(high: u32, qs: &[u8; 16]) -> [u8; 32] {
    std::array::from_fn(|j| {
        let nibble = if j < 16 { qs[j] & 15 } else { qs[j - 16] >> 4 };
        nibble | ((high >> j & 1) as u8) << 4
    })
}
