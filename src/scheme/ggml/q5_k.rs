//! 5 bits in superblocks of 256 weights.
use super::k_scales;
use crate::tensor::half_to_f32;

/// As Q4_K, with a fifth bit: bit `j` of byte `i` of the 32 bytes `qh` belongs to weight `i` of
/// sub-block `j`.
#[derive(Debug)]
pub(super) struct Q5K;

super::block_format!(Q5K = "Q5_K", id 13: 256 weights in 176 bytes);

fn decode_block(block: &[u8; 176], out: &mut [f32; 256]) {
    let ([d0, d1, m0, m1, rest @ ..], bits) = block.split_first_chunk::<16>().expect("176 bytes");
    let (qh, qs) = bits.split_first_chunk::<32>().expect("160 bytes");
    let (d, dmin) = (half_to_f32([*d0, *d1]), half_to_f32([*m0, *m1]));
    let scales = k_scales::unpack(rest);
    for (j, (out, (scale, min))) in out.as_chunks_mut::<32>().0.iter_mut().zip(scales).enumerate() {
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let shift = 4 * (j % 2);
        for ((out, q), high) in out.iter_mut().zip(&qs[j / 2 * 32..]).zip(qh) {
            *out = scale * f32::from(q >> shift & 15 | (high >> j & 1) << 4) - min;
        }
    }
}
