//! 4 bits, one scale per 32 weights.
use crate::tensor::half_to_f32;

/// `w = d·(q − 8)`; byte `j` holds `q[j]` in its low and `q[j + 16]` in its high nibble.
#[derive(Debug)]
pub(super) struct Q4_0;

super::block_format!(Q4_0 = "Q4_0", id 2: 32 weights in 18 bytes);

fn decode_block([d0, d1, qs @ ..]: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_to_f32([*d0, *d1]);
    let (low, high) = out.split_at_mut(16);
    for ((q, low), high) in qs.iter().zip(low).zip(high) {
        *low = d * (f32::from(q & 15) - 8.0);
        *high = d * (f32::from(q >> 4) - 8.0);
    }
}
