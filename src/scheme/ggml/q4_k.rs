//! 4 bits in superblocks of 256 weights.
use super::k_scales;
use crate::tensor::half_to_f32;

/// `w = d·scale·q − dmin·min` with a 6-bit scale and minimum per 32 weights. Of each 32 bytes, the
/// low nibbles are one sub-block and the high nibbles the next.
#[derive(Debug)]
pub(super) struct Q4K;

super::block_format!(Q4K = "Q4_K", id 12: 256 weights in 144 bytes);

fn decode_block(block: &[u8; 144], out: &mut [f32; 256]) {
    let ([d0, d1, m0, m1, rest @ ..], qs) = block.split_first_chunk::<16>().expect("144 bytes");
    let (d, dmin) = (half_to_f32([*d0, *d1]), half_to_f32([*m0, *m1]));
    let scales = k_scales::unpack(rest);
    for (j, (out, (scale, min))) in out.as_chunks_mut::<32>().0.iter_mut().zip(scales).enumerate() {
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let shift = 4 * (j % 2);
        for (out, q) in out.iter_mut().zip(&qs[j / 2 * 32..]) {
            *out = scale * f32::from(q >> shift & 15) - min;
        }
    }
}
