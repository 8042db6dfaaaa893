//! 6 bits in superblocks of 256 weights.
use crate::tensor::half_to_f32;

/// `w = d·scale·(q − 32)` with a signed 8-bit scale per 16 weights.
///
/// Each half of 128 weights has 64 bytes of low nibbles and 32 bytes of high bit pairs. Its
/// quarter `k` takes the low (`k < 2`) or high nibbles of bytes `32·(k mod 2)..`, and bit pair `k`.
#[derive(Debug)]
pub(super) struct Q6K;

super::block_format!(Q6K = "Q6_K", id 14: 256 weights in 210 bytes);

fn decode_block(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, rest) = block.split_first_chunk::<128>().expect("210 bytes");
    let (high, rest) = rest.split_first_chunk::<64>().expect("82 bytes");
    let (scales, rest) = rest.split_first_chunk::<16>().expect("18 bytes");
    let d = half_to_f32(*rest.first_chunk().expect("2 bytes"));
    for (eighth, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (half, k) = (eighth / 4, eighth % 4);
        let low = &low[64 * half + 32 * (k % 2)..];
        let high = &high[32 * half..];
        for (i, out) in out.iter_mut().enumerate() {
            let q = low[i] >> (4 * (k / 2)) & 15 | (high[i] >> (2 * k) & 3) << 4;
            let scale = d * f32::from(scales[2 * eighth + i / 16].cast_signed());
            *out = scale * (f32::from(q) - 32.0);
        }
    }
}
