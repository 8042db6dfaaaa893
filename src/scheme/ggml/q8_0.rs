//! 8 bits, one scale per 32 weights.
use crate::tensor::half_to_f32;

/// `w = d·q`, `q` a signed byte.
#[derive(Debug)]
pub(super) struct Q8_0;

super::block_format!(Q8_0 = "Q8_0", id 8: 32 weights in 34 bytes);

fn decode_block([d0, d1, qs @ ..]: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_to_f32([*d0, *d1]);
    for (out, q) in out.iter_mut().zip(qs) {
        *out = d * f32::from(q.cast_signed());
    }
}
