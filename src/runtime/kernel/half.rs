//! Weights in bfloat16 or binary16, read as they are stored.
//!
//! Plain loops over 16 lanes, compiled once per instruction set (`pulp`); the arithmetic and its
//! order are the same in each.
use crate::linalg::{Team, matmul, vectorized};
use crate::tensor::FloatType;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};

const LANES: usize = 16;
/// Rows that are widened together for many tokens.
const PANEL: usize = 96;
/// Fewer tokens are multiplied one by one.
const FEW: usize = 4;
/// Parts of a product per thread.
const PARTS: usize = 4;

/// A matrix of 16-bit floats, little-endian, row-major.
#[derive(Clone, Copy, Debug)]
pub struct HalfRows<'a> {
    /// F16 or BF16.
    pub float: FloatType,
    /// `[out, in]`, two bytes each.
    pub bytes: &'a [u8],
}

/// `y ← x·Wᵀ`: `x` is `[tokens, in]`, `y` is `[tokens, out]`. Same bits at any number of threads.
///
/// # Panics
/// When the shapes do not fit.
pub fn forward(
    w: &HalfRows<'_>,
    x: ArrayView2<'_, f32>,
    mut y: ArrayViewMut2<'_, f32>,
    team: &Team,
) {
    let columns = x.ncols();
    assert_eq!(w.bytes.len(), y.ncols() * columns * 2, "bytes of a weight");
    let few = x.nrows() < FEW;
    let parts = if team.threads() == 1 { 1 } else { team.threads() * PARTS };
    let rows = y.ncols().div_ceil(parts).next_multiple_of(PANEL).max(PANEL);
    let inputs: Vec<_> =
        x.rows().into_iter().filter(|_| few).map(|x| x.as_standard_layout().into_owned()).collect();
    team.each(y.axis_chunks_iter_mut(Axis(1), rows).collect(), |i, mut y| {
        let bytes = &w.bytes[i * rows * columns * 2..][..y.ncols() * columns * 2];
        if few {
            for (x, mut y) in inputs.iter().zip(y.rows_mut()) {
                let (x, y) = (x.as_slice(), y.as_slice_mut());
                vector(w.float, bytes, x.expect("standard layout"), y.expect("contiguous"));
            }
            return;
        }
        let mut wide = Array2::zeros((PANEL.min(y.ncols()), columns));
        let panels = bytes.chunks((PANEL * columns * 2).max(1));
        for (bytes, y) in panels.zip(y.axis_chunks_iter_mut(Axis(1), PANEL)) {
            widen(w.float, bytes, wide.as_slice_mut().expect("row-major"));
            matmul(x, wide.slice(s![..y.ncols(), ..]).t(), y);
        }
    });
}

/// The value of binary16 bits, without branches.
#[inline(always)]
fn binary16(bits: u16) -> f32 {
    const SCALE: f32 = f32::from_bits((127 + 112) << 23); // 2^112 moves the exponent's bias
    let (sign, rest) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff) << 13);
    let finite = (f32::from_bits(rest) * SCALE).to_bits();
    let special = rest | 0x7f80_0000;
    f32::from_bits(sign | if rest >= 0x7c00 << 13 { special } else { finite })
}

#[inline(always)]
fn bfloat16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

vectorized! {
    /// `y[row] = Σ w[row]·x`, each row in twice 16 lanes.
    fn vector<'a>(float: FloatType, bytes: &'a [u8], x: &'a [f32], y: &'a mut [f32]) {
        match float {
            FloatType::Bf16 => rows(bytes, x, y, bfloat16),
            _ => rows(bytes, x, y, binary16),
        }
    }
}

#[inline(always)]
fn rows(bytes: &[u8], x: &[f32], y: &mut [f32], value: impl Fn(u16) -> f32) {
    let (xs, x_tail) = x.as_chunks::<LANES>();
    for (y, row) in y.iter_mut().zip(bytes.chunks_exact((x.len() * 2).max(1))) {
        let (ws, w_tail) = row.as_chunks::<{ 2 * LANES }>();
        let mut sums = [[0.0; LANES]; 2];
        for (i, (w, x)) in ws.iter().zip(xs).enumerate() {
            for lane in 0..LANES {
                let bits = u16::from_le_bytes([w[2 * lane], w[2 * lane + 1]]);
                sums[i % 2][lane] += value(bits) * x[lane];
            }
        }
        for ((sum, w), x) in sums[0].iter_mut().zip(w_tail.as_chunks::<2>().0).zip(x_tail) {
            *sum += value(u16::from_le_bytes(*w)) * x;
        }
        let mut sum: [f32; LANES] = std::array::from_fn(|lane| sums[0][lane] + sums[1][lane]);
        for width in [8, 4, 2, 1] {
            for lane in 0..width {
                sum[lane] += sum[lane + width];
            }
        }
        *y = sum[0];
    }
}

vectorized! {
    /// All values in float32.
    fn widen<'a>(float: FloatType, bytes: &'a [u8], out: &'a mut [f32]) {
        let pairs = bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
        match float {
            FloatType::Bf16 => out.iter_mut().zip(pairs).for_each(|(o, bits)| *o = bfloat16(bits)),
            _ => out.iter_mut().zip(pairs).for_each(|(o, bits)| *o = binary16(bits)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binary16_pattern_has_its_value() {
        for bits in 0..=u16::MAX {
            let want = half::f16::from_bits(bits).to_f32();
            let got = binary16(bits);
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#x}");
        }
    }
}
