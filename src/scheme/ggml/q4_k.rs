//! 4 bits in superblocks of 256 weights.
use super::{
    k_scales,
    search::{self, Sums},
};
use crate::tensor::half_to_f32;
use half::f16;

/// `w = d·scale·q − dmin·min` with a 6-bit scale and minimum per 32 weights. Of each 32 bytes, the
/// low nibbles are one sub-block and the high nibbles the next.
#[derive(Debug)]
pub(super) struct Q4K;

super::block_format!(Q4K = "Q4_K", id 12: 256 weights in 144 bytes, rounded by round_block);

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

/// Steps of a sub-block.
const RANGE: (f32, f32) = (0.0, 15.0);
/// Largest scale and minimum in steps of the superblock's.
const MOST: f32 = 63.0;

/// A superblock before it is packed.
#[derive(Clone, Copy)]
struct Fit {
    d: f32,
    dmin: f32,
    scales: [(u8, u8); 8],
}

impl Fit {
    /// Scale and minimum of a sub-block.
    fn of(&self, (scale, min): (u8, u8)) -> (f32, f32) {
        (self.d * f32::from(scale), self.dmin * f32::from(min))
    }

    fn error(&self, weights: &[f32; 256]) -> f32 {
        let blocks = weights.as_chunks::<32>().0.iter().zip(self.scales);
        blocks.map(|(weights, it)| error(weights, self.of(it))).sum()
    }

    /// The best of each sub-block's own numbers and their neighbours.
    fn nudge(&mut self, weights: &[f32; 256]) {
        for (j, weights) in weights.as_chunks::<32>().0.iter().enumerate() {
            let (scale, min) = self.scales[j];
            let mut best = error(weights, self.of((scale, min)));
            for scale in scale.saturating_sub(1)..=(scale + 1).min(MOST as u8) {
                for min in min.saturating_sub(1)..=(min + 1).min(MOST as u8) {
                    let found = error(weights, self.of((scale, min)));
                    if found < best {
                        (best, self.scales[j]) = (found, (scale, min));
                    }
                }
            }
        }
    }

    /// The superblock's scales that fit the codes best.
    fn refit(&mut self, weights: &[f32; 256]) {
        let mut sums = Sums::default();
        for (weights, (scale, min)) in weights.as_chunks::<32>().0.iter().zip(self.scales) {
            for (w, q) in weights.iter().zip(codes(weights, self.of((scale, min)))) {
                sums.add(*w, f32::from(scale) * q, -f32::from(min));
            }
        }
        let (d, dmin) = sums.solve();
        (self.d, self.dmin) = (half(d), half(dmin));
    }
}

fn half(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

fn codes(weights: &[f32; 32], (scale, min): (f32, f32)) -> [f32; 32] {
    let inverse = search::inverse(scale);
    weights.map(|w| search::code((w + min) * inverse, RANGE))
}

fn error(weights: &[f32; 32], (scale, min): (f32, f32)) -> f32 {
    let inverse = search::inverse(scale);
    search::distance(weights, |w| scale * search::code((w + min) * inverse, RANGE) - min)
}

/// A near superblock: scale and minimum of each sub-block by search, the superblock's two scales
/// from the largest, then both in turns while the error shrinks.
fn round_block(weights: &[f32; 256]) -> [u8; 144] {
    let blocks: &[[f32; 32]; 8] = weights.as_chunks().0.try_into().expect("eight of 32");
    let wanted = blocks.map(|block| search::affine(&block, RANGE.1));
    let most = |of: fn(&(f32, f32)) -> f32| wanted.iter().map(of).fold(0.0, f32::max) / MOST;
    let (d, dmin) = (search::half_up(most(|it| it.0)), search::half_up(most(|it| it.1)));
    let (scale, min) = (search::inverse(d), search::inverse(dmin));
    let number = |x: f32| search::code(x, (0.0, MOST)) as u8;
    let scales = wanted.map(|(s, m)| (number(s * scale), number(m * min)));
    let mut best = Fit { d, dmin, scales };
    best.nudge(weights);
    let turn = |fit: &mut Fit| {
        fit.refit(weights);
        fit.nudge(weights);
    };
    pack(weights, &search::improved(best, turn, |fit| fit.error(weights)))
}

fn pack(weights: &[f32; 256], fit: &Fit) -> [u8; 144] {
    let mut block = [0; 144];
    block[..2].copy_from_slice(&f16::from_f32(fit.d).to_le_bytes());
    block[2..4].copy_from_slice(&f16::from_f32(fit.dmin).to_le_bytes());
    block[4..16].copy_from_slice(&k_scales::pack(fit.scales));
    for (j, (weights, it)) in weights.as_chunks::<32>().0.iter().zip(fit.scales).enumerate() {
        let bytes = &mut block[16 + j / 2 * 32..][..32];
        for (byte, q) in bytes.iter_mut().zip(codes(weights, fit.of(it))) {
            *byte |= (q as u8) << (4 * (j % 2));
        }
    }
    block
}
