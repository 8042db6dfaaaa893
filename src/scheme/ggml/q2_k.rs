//! 2 bits in superblocks of 256 weights.
use crate::tensor::half_to_f32;

/// `w = d·scale·q − dmin·min` with a 4-bit scale (low) and minimum (high) per 16 weights. Each half
/// of 128 weights has 32 bytes; its quarter `k` takes bit pair `k` of them.
#[derive(Debug)]
pub(super) struct Q2K;

super::block_format!(Q2K = "Q2_K", id 10: 256 weights in 84 bytes);

fn decode_block(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, rest) = block.split_first_chunk::<16>().expect("84 bytes");
    let (qs, rest) = rest.split_first_chunk::<64>().expect("68 bytes");
    let [d0, d1, m0, m1] = *rest.first_chunk().expect("4 bytes");
    let (d, dmin) = (half_to_f32([d0, d1]), half_to_f32([m0, m1]));
    for (j, (out, scale)) in out.as_chunks_mut::<16>().0.iter_mut().zip(scales).enumerate() {
        let (half, k, first) = (j / 8, j / 2 % 4, j % 2 * 16);
        let (scale, min) = (d * f32::from(scale & 15), dmin * f32::from(scale >> 4));
        for (out, q) in out.iter_mut().zip(&qs[32 * half + first..]) {
            *out = scale * f32::from(q >> (2 * k) & 3) - min;
        }
    }
}
