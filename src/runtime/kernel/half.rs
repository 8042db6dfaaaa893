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
        vectors(w.float, bytes, x, each, columns);
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

vectorized! {
    /// `y[row] = Σ w[row]·x`, each row in twice 16 lanes.
    fn vector<'a>(float: FloatType, bytes: &'a [u8], x: &'a [f32], y: &'a mut [f32]) {
        match float {
            FloatType::Bf16 => rows(bytes, x, y, bfloat16),
            _ => rows(bytes, x, y, binary16),
        }
    }
}

vectorized! {
    /// `y[row, token] = Σ w[row]·x[token]`, each sum in the order of [`vector`].
    fn vectors<'a>(
        float: FloatType, bytes: &'a [u8], x: &'a [f32], y: &'a mut [f32], columns: usize
    ) {
        match float {
            FloatType::Bf16 => rows_apart(bytes, (x, columns), y, bfloat16),
            _ => rows_apart(bytes, (x, columns), y, binary16),
        }
    }
}

/// A row of weights stays in the nearest cache while the tokens pass, four at a time.
#[inline(always)]
fn rows_apart(
    bytes: &[u8],
    (x, columns): (&[f32], usize),
    y: &mut [f32],
    value: impl Fn(u16) -> f32 + Copy,
) {
    let tokens = x.len() / columns.max(1);
    let (fours, rest) = x.split_at(tokens / 4 * 4 * columns);
    for (y, row) in y.chunks_exact_mut(tokens.max(1)).zip(bytes.chunks_exact((columns * 2).max(1)))
    {
        let (four_sums, sums) = y.as_chunks_mut::<4>();
        for (y, x) in four_sums.iter_mut().zip(fours.chunks_exact((4 * columns).max(1))) {
            *y = dots(row, x, value);
        }
        for (y, x) in sums.iter_mut().zip(rest.chunks_exact(columns.max(1))) {
            [*y] = dots(row, x, value);
        }
    }
}

/// A row of weights times `M` tokens, each in the order of [`rows`].
#[inline(always)]
fn dots<const M: usize>(row: &[u8], x: &[f32], value: impl Fn(u16) -> f32) -> [f32; M] {
    let columns = row.len() / 2;
    let (ws, w_tail) = row.as_chunks::<{ 2 * LANES }>();
    let tokens: [&[f32]; M] = std::array::from_fn(|m| &x[m * columns..][..columns]);
    let mut even = [[0.0_f32; LANES]; M];
    let mut odd = [[0.0_f32; LANES]; M];
    let step = |sums: &mut [[f32; LANES]; M], i: usize| {
        let mut w = [0.0; LANES];
        for lane in 0..LANES {
            w[lane] = value(u16::from_le_bytes([ws[i][2 * lane], ws[i][2 * lane + 1]]));
        }
        for (sums, x) in sums.iter_mut().zip(tokens) {
            let x: &[f32; LANES] = x[i * LANES..].first_chunk().expect("as many as weights");
            for lane in 0..LANES {
                sums[lane] += w[lane] * x[lane];
            }
        }
    };
    for pair in 0..ws.len() / 2 {
        step(&mut even, 2 * pair);
        step(&mut odd, 2 * pair + 1);
    }
    if ws.len() % 2 == 1 {
        step(&mut even, ws.len() - 1);
    }
    std::array::from_fn(|m| {
        let tail = &tokens[m][ws.len() * LANES..];
        for ((sum, w), x) in even[m].iter_mut().zip(w_tail.as_chunks::<2>().0).zip(tail) {
            *sum += value(u16::from_le_bytes(*w)) * x;
        }
        folded([even[m], odd[m]])
    })
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
        *y = folded(sums);
    }
}

/// The sum of all lanes.
#[inline(always)]
fn folded(sums: [[f32; LANES]; 2]) -> f32 {
    let mut sum: [f32; LANES] = std::array::from_fn(|lane| sums[0][lane] + sums[1][lane]);
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            sum[lane] += sum[lane + width];
        }
    }
    sum[0]
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
