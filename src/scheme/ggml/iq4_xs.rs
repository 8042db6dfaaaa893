//! The codes of IQ4_NL in superblocks of 256 weights.
use super::iq4_nl::decode_nibbles;
use crate::tensor::half_to_f32;

/// `w = d·scale·VALUES[q]` with a 6-bit scale less 32 per 32 weights: its low nibbles stand two to a
/// byte, its top bits as pairs of a 16-bit number before them.
#[derive(Debug)]
pub(super) struct Iq4Xs;

super::block_format!(Iq4Xs = "IQ4_XS", id 23: 256 weights in 136 bytes);

fn decode_block([d0, d1, h0, h1, rest @ ..]: &[u8; 136], out: &mut [f32; 256]) {
    let (low, qs) = rest.split_first_chunk::<4>().expect("132 bytes");
    let (d, high) = (half_to_f32([*d0, *d1]), u16::from_le_bytes([*h0, *h1]));
    let runs = out.as_chunks_mut::<32>().0.iter_mut().zip(qs.as_chunks::<16>().0);
    for (j, (out, qs)) in runs.enumerate() {
        let scale = low[j / 2] >> (4 * (j % 2)) & 15 | ((high >> (2 * j) & 3) as u8) << 4;
        decode_nibbles(d * (f32::from(scale) - 32.0), qs, out);
    }
}
