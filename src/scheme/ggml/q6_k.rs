//! 6 bits in superblocks of 256 weights.
use super::search;
use crate::tensor::half_to_f32;
use half::f16;

/// `w = d·scale·(q − 32)` with a signed 8-bit scale per 16 weights.
///
/// Each half of 128 weights has 64 bytes of low nibbles and 32 bytes of high bit pairs. Its
/// quarter `k` takes the low (`k < 2`) or high nibbles of bytes `32·(k mod 2)..`, and bit pair `k`.
#[derive(Debug)]
pub(super) struct Q6K;

super::block_format!(Q6K = "Q6_K", id 14: 256 weights in 210 bytes, rounded by round_block);

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

/// Steps of a sub-block.
const RANGE: (f32, f32) = (-32.0, 31.0);
/// Scales of sub-blocks in steps of the superblock's.
const SCALES: (f32, f32) = (-128.0, 127.0);

/// A superblock before it is packed.
#[derive(Clone, Copy)]
struct Fit {
    d: f32,
    scales: [i8; 16],
}

impl Fit {
    fn error(&self, weights: &[f32; 256]) -> f32 {
        let blocks = weights.as_chunks::<16>().0.iter().zip(self.scales);
        blocks.map(|(weights, scale)| error(weights, self.d * f32::from(scale))).sum()
    }

    /// The best of each sub-block's own scale and its neighbours.
    fn nudge(&mut self, weights: &[f32; 256]) {
        for (j, weights) in weights.as_chunks::<16>().0.iter().enumerate() {
            let scale = self.scales[j];
            let mut best = error(weights, self.d * f32::from(scale));
            for scale in [scale.saturating_sub(1), scale.saturating_add(1)] {
                let found = error(weights, self.d * f32::from(scale));
                if found < best {
                    (best, self.scales[j]) = (found, scale);
                }
            }
        }
    }

    /// The superblock's scale that fits the codes best; of either sign.
    fn refit(&mut self, weights: &[f32; 256]) {
        let (mut wa, mut aa) = (0.0_f64, 0.0_f64);
        for (weights, scale) in weights.as_chunks::<16>().0.iter().zip(self.scales) {
            let scale = f32::from(scale);
            for (w, q) in weights.iter().zip(codes(weights, self.d * scale)) {
                wa += f64::from(*w) * f64::from(scale * q);
                aa += f64::from(scale * q).powi(2);
            }
        }
        if aa > 0.0 {
            self.d = half((wa / aa) as f32);
        }
    }
}

fn half(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

fn codes(weights: &[f32; 16], scale: f32) -> [f32; 16] {
    let inverse = search::inverse(scale);
    weights.map(|w| search::code(w * inverse, RANGE))
}

fn error(weights: &[f32; 16], scale: f32) -> f32 {
    let inverse = search::inverse(scale);
    search::distance(weights, |w| scale * search::code(w * inverse, RANGE))
}

/// A near superblock: the scale of each sub-block by search, the superblock's from the largest,
/// then both in turns while the error shrinks.
fn round_block(weights: &[f32; 256]) -> [u8; 210] {
    let blocks: &[[f32; 16]; 16] = weights.as_chunks().0.try_into().expect("sixteen of 16");
    let wanted = blocks.map(|block| search::symmetric(&block, RANGE));
    let extreme =
        wanted.into_iter().fold(0.0, |far: f32, s| if s.abs() > far.abs() { s } else { far });
    let d = search::half_up(extreme / SCALES.0);
    let inverse = search::inverse(d);
    let scales = wanted.map(|scale| search::code(scale * inverse, SCALES) as i8);
    let mut best = Fit { d, scales };
    best.nudge(weights);
    let turn = |fit: &mut Fit| {
        fit.refit(weights);
        fit.nudge(weights);
    };
    pack(weights, &search::improved(best, turn, |fit| fit.error(weights)))
}

fn pack(weights: &[f32; 256], fit: &Fit) -> [u8; 210] {
    let mut block = [0; 210];
    for (j, (weights, scale)) in weights.as_chunks::<16>().0.iter().zip(fit.scales).enumerate() {
        let (half, k, first) = (j / 8, j / 2 % 4, j % 2 * 16);
        for (i, q) in codes(weights, fit.d * f32::from(scale)).into_iter().enumerate() {
            let q = (q + 32.0) as u8;
            block[64 * half + 32 * (k % 2) + first + i] |= (q & 15) << (4 * (k / 2));
            block[128 + 32 * half + first + i] |= q >> 4 << (2 * k);
        }
        block[192 + j] = scale.cast_unsigned();
    }
    block[208..].copy_from_slice(&f16::from_f32(fit.d).to_le_bytes());
    block
}
