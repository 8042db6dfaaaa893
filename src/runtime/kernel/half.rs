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
                let (x, y) = (x.expect("standard layout"), y.expect("contiguous"));
                pulp::Arch::new().dispatch(Product { float: w.float, bytes, x, columns, y });
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

/// Each row of `x` as [`forward`] of it alone, bit for bit; the weights are read once.
///
/// # Panics
/// When the shapes do not fit.
pub fn forward_apart(
    w: &HalfRows<'_>,
    x: ArrayView2<'_, f32>,
    mut y: ArrayViewMut2<'_, f32>,
    team: &Team,
) {
    let (tokens, columns) = x.dim();
    assert_eq!(w.bytes.len(), y.ncols() * columns * 2, "bytes of a weight");
    let x = x.as_standard_layout();
    let x = x.as_slice().expect("standard layout");
    let parts = if team.threads() == 1 { 1 } else { team.threads() * PARTS };
    let rows = y.ncols().div_ceil(parts).max(1);
    team.each(y.axis_chunks_iter_mut(Axis(1), rows).collect(), |i, mut y| {
        let bytes = &w.bytes[i * rows * columns * 2..][..y.ncols() * columns * 2];
        let mut out = Array2::zeros((y.ncols(), tokens));
        let each = out.as_slice_mut().expect("row-major");
        pulp::Arch::new().dispatch(Product { float: w.float, bytes, x, columns, y: each });
        y.assign(&out.t());
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

/// `y[row, token] = Σ w[row]·x[token]`: each product is rounded and added to one of twice 16 lanes.
struct Product<'a> {
    float: FloatType,
    /// `[rows, columns]`, two bytes each.
    bytes: &'a [u8],
    /// `[tokens, columns]`
    x: &'a [f32],
    columns: usize,
    /// `[rows, tokens]`
    y: &'a mut [f32],
}

impl pulp::WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        // As many registers as hold 32 lanes; as many tokens as leave some for the rest.
        match S::F32_LANES {
            16 => self.run::<S, 2, 4>(simd),
            8 => self.run::<S, 4, 2>(simd),
            4 => self.run::<S, 8, 2>(simd),
            _ => self.run::<S, 32, 1>(simd),
        }
    }
}

impl Product<'_> {
    /// A row of weights is widened once and stays in the nearest cache while the tokens pass, `M`
    /// at a time.
    #[inline(always)]
    fn run<S: pulp::Simd, const P: usize, const M: usize>(self, simd: S) {
        let Self { float, bytes, x, columns, y } = self;
        let tokens = (x.len() / columns.max(1)).max(1);
        let mut wide = vec![0.0; columns];
        for (y, row) in y.chunks_exact_mut(tokens).zip(bytes.chunks_exact((columns * 2).max(1))) {
            match float {
                FloatType::Bf16 => widen_row(row, &mut wide, bfloat16),
                _ => widen_row(row, &mut wide, binary16),
            }
            let (many, few) = y.as_chunks_mut::<M>();
            let (x_many, x_few) = x.split_at(many.len() * M * columns);
            for (y, x) in many.iter_mut().zip(x_many.chunks_exact((M * columns).max(1))) {
                *y = dots::<S, P, M>(simd, &wide, x);
            }
            for (y, x) in few.iter_mut().zip(x_few.chunks_exact(columns.max(1))) {
                [*y] = dots::<S, P, 1>(simd, &wide, x);
            }
        }
    }
}

#[inline(always)]
fn widen_row(row: &[u8], out: &mut [f32], value: impl Fn(u16) -> f32) {
    for (out, pair) in out.iter_mut().zip(row.as_chunks::<2>().0) {
        *out = value(u16::from_le_bytes(*pair));
    }
}

/// A row of weights times `M` tokens. Lane `l` of the first 16 sums columns `32·i + l`, of the
/// second `32·i + 16 + l`; columns that fill no 16 go to the first. `P` registers are 32 lanes.
#[inline(always)]
fn dots<S: pulp::Simd, const P: usize, const M: usize>(simd: S, w: &[f32], x: &[f32]) -> [f32; M] {
    let tokens: [&[f32]; M] = std::array::from_fn(|m| &x[m * w.len()..][..w.len()]);
    let whole = w.len() / LANES * LANES;
    let (ws, _) = S::as_simd_f32s(&w[..whole]);
    let xs = tokens.map(|x| S::as_simd_f32s(&x[..whole]).0);
    let mut sums = [[simd.splat_f32s(0.0); P]; M];
    let (turns, rest) = ws.as_chunks::<P>();
    for (turn, w) in turns.iter().enumerate() {
        for m in 0..M {
            let x: &[S::f32s; P] = xs[m][turn * P..].first_chunk().expect("as many as weights");
            for p in 0..P {
                sums[m][p] = simd.add_f32s(sums[m][p], simd.mul_f32s(w[p], x[p]));
            }
        }
    }
    let mut y = [0.0; M];
    for m in 0..M {
        let mut all = [0.0; 2 * LANES];
        all.copy_from_slice(pulp::bytemuck::cast_slice(&sums[m]));
        // What fills no 32: one by one, to the same lanes.
        let done = turns.len() * 2 * LANES;
        let first = done + if rest.is_empty() { 0 } else { LANES };
        for columns in [done..first, first..w.len()] {
            for (lane, column) in columns.enumerate() {
                all[lane] += w[column] * tokens[m][column];
            }
        }
        for width in [16, 8, 4, 2, 1] {
            for lane in 0..width {
                all[lane] += all[lane + width];
            }
        }
        y[m] = all[0];
    }
    y
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
