//! 3 bits in superblocks of 256 weights.
use crate::tensor::half_to_f32;

/// `w = d·scale·q`, `q` from -4 to 3, with a 6-bit scale less 32 per 16 weights.
///
/// The low two bits lie as in Q2_K. Bit `j` of byte `i` of the 32 bytes in front belongs to weight
/// `i` of the `j`-th run of 32 weights: where it is not set, 4 is taken off.
#[derive(Debug)]
pub(super) struct Q3K;

super::block_format!(Q3K = "Q3_K", id 11: 256 weights in 110 bytes);

fn decode_block(block: &[u8; 110], out: &mut [f32; 256]) {
    let (high, rest) = block.split_first_chunk::<32>().expect("110 bytes");
    let (qs, rest) = rest.split_first_chunk::<64>().expect("78 bytes");
    let (scales, rest) = rest.split_first_chunk::<12>().expect("14 bytes");
    let d = half_to_f32(*rest.first_chunk().expect("2 bytes"));
    for (j, (out, scale)) in out.as_chunks_mut::<16>().0.iter_mut().zip(unpack(scales)).enumerate()
    {
        let (run, first) = (j / 2, j % 2 * 16);
        let (low, high) = (&qs[32 * (run / 4) + first..], &high[first..]);
        let scale = d * scale;
        for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
            let q = low >> (2 * (run % 4)) & 3 | (high >> run & 1) << 2;
            *out = scale * (f32::from(q) - 4.0);
        }
    }
}

/// Scales, -32..=31: low nibbles of bytes 0..8, then their high nibbles; the top two bits of scale
/// `j` are bit pair `j / 4` of byte `8 + j mod 4`.
fn unpack(s: &[u8; 12]) -> [f32; 16] {
    std::array::from_fn(|j| {
        let scale = s[j % 8] >> (4 * (j / 8)) & 15 | (s[8 + j % 4] >> (2 * (j / 4)) & 3) << 4;
        f32::from(scale) - 32.0
    })
}
