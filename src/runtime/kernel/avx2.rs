//! AVX2 with FMA. A pass takes 16 rows of a panel, eight to a register.
//!
//! `vpmaddubsw` saturates at 2 · 255 · 127, so 8-bit codes are widened to 16 bits first, the even
//! and the odd columns apart; with 4-bit codes even four products stay below 2^15.
use super::activations::Block;
use super::packed::{Panel, ROWS, STEP, Unit};
use ndarray::ArrayViewMut2;
#[allow(clippy::wildcard_imports, reason = "the instructions")]
use std::arch::x86_64::*;

/// How far ahead of a product with one token its weights are fetched.
const AHEAD: usize = 2048;
/// Rows of a pass.
const TILE: usize = 16;

/// 8 rows each.
type Ints = [__m256i; 2];
type Floats = [__m256; 2];

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(unit: &Unit) -> Ints {
    // SAFETY: a unit has 64 bytes.
    [0, 1].map(|i| unsafe { _mm256_load_si256(std::ptr::from_ref(unit).cast::<__m256i>().add(i)) })
}

/// `acc += w · a` for `M` tokens and a step of 8-bit codes.
///
/// # Safety
/// `words` and `words + stride` point to `M` words each.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn dot8<const M: usize>(
    acc: &mut [Ints; M],
    w: [Ints; 2],
    words: *const i32,
    stride: usize,
) {
    let low = _mm256_set1_epi16(255);
    for quad in 0..2 {
        let even = w[quad].map(|w| _mm256_and_si256(w, low));
        let odd = w[quad].map(|w| _mm256_srli_epi16::<8>(w));
        for m in 0..M {
            // SAFETY: promised by the caller.
            let a = _mm256_set1_epi32(unsafe { *words.add(quad * stride + m) });
            let a_even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(a));
            let a_odd = _mm256_srai_epi16::<8>(a);
            for i in 0..2 {
                let even = _mm256_madd_epi16(even[i], a_even);
                let both = _mm256_add_epi32(even, _mm256_madd_epi16(odd[i], a_odd));
                acc[m][i] = _mm256_add_epi32(acc[m][i], both);
            }
        }
    }
}

/// `acc += w · a` for `M` tokens and a step of 4-bit codes.
///
/// # Safety
/// As [`dot8`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn dot4<const M: usize>(acc: &mut [Ints; M], w: Ints, words: *const i32, stride: usize) {
    let (low, one) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let first = w.map(|w| _mm256_and_si256(w, low));
    let second = w.map(|w| _mm256_and_si256(_mm256_srli_epi16::<4>(w), low));
    for m in 0..M {
        // SAFETY: promised by the caller.
        let (a, b) = unsafe { (*words.add(m), *words.add(stride + m)) };
        let (a, b) = (_mm256_set1_epi32(a), _mm256_set1_epi32(b));
        for i in 0..2 {
            let first = _mm256_maddubs_epi16(first[i], a);
            let both = _mm256_add_epi16(first, _mm256_maddubs_epi16(second[i], b));
            acc[m][i] = _mm256_add_epi32(acc[m][i], _mm256_madd_epi16(both, one));
        }
    }
}

/// Where a pass stands.
#[derive(Clone, Copy)]
struct At {
    /// First token of the block.
    first: usize,
    group: usize,
    /// Rows 0-15 or 16-31.
    tile: usize,
}

/// `Σ (u - zero) · a` over a group for tokens `[first, first + M)` of a block and 16 rows.
///
/// # Safety
/// Panel and block fit each other, as `super::check` says; the block has these tokens.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn group_sums<const FOUR: bool, const M: usize>(
    panel: &Panel<'_>,
    block: Block<'_>,
    At { first, group, tile }: At,
) -> [Ints; M] {
    let (steps, tokens) = (panel.form.steps(), block.scales.len());
    let zeros = zeros(panel, group, tile);
    let mut acc: [Ints; M] = std::array::from_fn(|m| {
        let sum = _mm256_set1_epi32(-block.sums[group * tokens + first + m]);
        zeros.map(|zeros| _mm256_mullo_epi32(zeros, sum))
    });
    let per_step = if FOUR { 2 } else { 4 };
    let units = &panel.units[group * steps * per_step..][..steps * per_step];
    // SAFETY: the quads of the group lie within `words` (checked).
    let mut words = unsafe { block.words.as_ptr().add(group * steps * 2 * tokens + first) };
    for units in units.chunks_exact(per_step) {
        if M == 1 {
            let ahead = units.as_ptr().cast::<i8>().wrapping_add(AHEAD);
            for line in (tile..per_step).step_by(2) {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line));
            }
        }
        // SAFETY: each step has two quads of `tokens` words.
        unsafe {
            if FOUR {
                dot4(&mut acc, load(&units[tile]), words, tokens);
            } else {
                dot8(&mut acc, [load(&units[tile]), load(&units[2 + tile])], words, tokens);
            }
            words = words.add(2 * tokens);
        }
    }
    acc
}

/// The unsigned codes of value 0.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn zeros(panel: &Panel<'_>, group: usize, tile: usize) -> Ints {
    if panel.form.symmetric {
        return [_mm256_set1_epi32(i32::from(panel.form.middle())); 2];
    }
    let halves = panel.zeros[group * ROWS + tile * TILE..][..TILE].as_chunks::<8>().0;
    // SAFETY: 8 bytes each.
    [0, 1].map(|i| _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(halves[i].as_ptr().cast()) }))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_floats(from: &[f32]) -> Floats {
    let from = &from[..TILE];
    // SAFETY: 16 floats.
    [0, 1].map(|i| unsafe { _mm256_loadu_ps(from.as_ptr().add(8 * i)) })
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_floats(to: &mut [f32], v: Floats) {
    let to = &mut to[..TILE];
    for i in 0..2 {
        // SAFETY: 16 floats.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr().add(8 * i), v[i]) };
    }
}

/// `M` tokens of [`integer`].
///
/// # Safety
/// As [`group_sums`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn rows<const FOUR: bool, const M: usize>(
    panel: &Panel<'_>,
    block: Block<'_>,
    first: usize,
    y: &mut ArrayViewMut2<'_, f32>,
) {
    let mut totals = [[0.0; ROWS]; M];
    for group in 0..panel.form.groups {
        let scales = panel.scales(group);
        for tile in 0..2 {
            // SAFETY: promised by the caller.
            let sums = unsafe { group_sums::<FOUR, M>(panel, block, At { first, group, tile }) };
            let scales = load_floats(&scales[tile * TILE..]);
            for m in 0..M {
                let total = &mut totals[m][tile * TILE..];
                let old = load_floats(total);
                let sum = |i: usize| _mm256_cvtepi32_ps(sums[m][i]);
                let add = |i: usize| _mm256_fmadd_ps(scales[i], sum(i), old[i]);
                store_floats(total, [add(0), add(1)]);
            }
        }
    }
    for m in 0..M {
        let scale = block.scales[first + m];
        let mut y = y.row_mut(first + m);
        y.iter_mut().zip(totals[m]).for_each(|(y, total)| *y = total * scale);
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn integer_of<const FOUR: bool>(
    panel: &Panel<'_>,
    block: Block<'_>,
    mut y: ArrayViewMut2<'_, f32>,
) {
    let mut first = 0;
    while first < block.scales.len() {
        let run = match block.scales.len() - first {
            4.. => 4,
            left => left.min(2),
        };
        // SAFETY: promised by the caller.
        unsafe {
            match run {
                4 => rows::<FOUR, 4>(panel, block, first, &mut y),
                2 => rows::<FOUR, 2>(panel, block, first, &mut y),
                _ => rows::<FOUR, 1>(panel, block, first, &mut y),
            }
        }
        first += run;
    }
}

/// See `scalar::integer`.
///
/// # Safety
/// The processor has the features; panel and block fit each other (`super::check`).
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn integer(panel: &Panel<'_>, block: Block<'_>, y: ArrayViewMut2<'_, f32>) {
    // SAFETY: promised by the caller.
    unsafe {
        match panel.form.bits {
            4 => integer_of::<true>(panel, block, y),
            _ => integer_of::<false>(panel, block, y),
        }
    }
}

/// See `scalar::sums`.
///
/// # Safety
/// As [`integer`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn sums(panel: &Panel<'_>, block: Block<'_>, out: &mut Vec<[i32; ROWS]>) {
    for group in 0..panel.form.groups {
        for first in 0..block.scales.len() {
            let tiles = [0, 1].map(|tile| {
                let at = At { first, group, tile };
                // SAFETY: promised by the caller.
                let [sums] = unsafe {
                    match panel.form.bits {
                        4 => group_sums::<true, 1>(panel, block, at),
                        _ => group_sums::<false, 1>(panel, block, at),
                    }
                };
                // SAFETY: 64 bytes are 16 integers.
                unsafe { std::mem::transmute::<Ints, [i32; TILE]>(sums) }
            });
            out.push(std::array::from_fn(|lane| tiles[lane / TILE][lane % TILE]));
        }
    }
}

/// Calls `each(column of the step, values)` with `u - zero` in float32 for the columns of a step.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn values<const FOUR: bool>(
    units: &[Unit],
    tile: usize,
    zeros: Floats,
    mut each: impl FnMut(usize, Floats),
) {
    let low = _mm256_set1_epi32(if FOUR { 15 } else { 255 });
    for quad in 0..2 {
        let unit = load(&units[if FOUR { tile } else { 2 * quad + tile }]);
        for column in 0..4 {
            let shift = _mm_cvtsi32_si128((column * 8 + if FOUR { 4 * quad } else { 0 }) as i32);
            let value = |i: usize| {
                let code = _mm256_and_si256(_mm256_srl_epi32(unit[i], shift), low);
                _mm256_sub_ps(_mm256_cvtepi32_ps(code), zeros[i])
            };
            each(quad * 4 + column, [value(0), value(1)]);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn float_of<const FOUR: bool>(panel: &Panel<'_>, x: &[f32], y: &mut [f32; ROWS]) {
    let (steps, per_step) = (panel.form.steps(), if FOUR { 2 } else { 4 });
    for tile in 0..2 {
        let mut total = [_mm256_setzero_ps(); 2];
        for group in 0..panel.form.groups {
            let zeros = zeros(panel, group, tile).map(|v| _mm256_cvtepi32_ps(v));
            let units = &panel.units[group * steps * per_step..];
            let mut sums = [[_mm256_setzero_ps(); 2]; 4];
            let columns = x[group * steps * STEP..][..steps * STEP].as_chunks::<STEP>().0;
            for (x, units) in columns.iter().zip(units.chunks_exact(per_step)) {
                let ahead = units.as_ptr().cast::<i8>().wrapping_add(AHEAD);
                _mm_prefetch::<_MM_HINT_T0>(ahead);
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64));
                values::<FOUR>(units, tile, zeros, |column, w| {
                    let (x, sum) = (_mm256_set1_ps(x[column]), &mut sums[column % 4]);
                    *sum = [_mm256_fmadd_ps(w[0], x, sum[0]), _mm256_fmadd_ps(w[1], x, sum[1])];
                });
            }
            let scales = load_floats(&panel.scales(group)[tile * TILE..]);
            for i in 0..2 {
                let left = _mm256_add_ps(sums[0][i], sums[1][i]);
                let sum = _mm256_add_ps(left, _mm256_add_ps(sums[2][i], sums[3][i]));
                total[i] = _mm256_fmadd_ps(scales[i], sum, total[i]);
            }
        }
        store_floats(&mut y[tile * TILE..], total);
    }
}

/// See `scalar::float`.
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn float(panel: &Panel<'_>, x: &[f32], y: &mut [f32; ROWS]) {
    match panel.form.bits {
        4 => float_of::<true>(panel, x, y),
        _ => float_of::<false>(panel, x, y),
    }
}

#[target_feature(enable = "avx2,fma")]
fn dequantize_of<const FOUR: bool>(panel: &Panel<'_>, out: &mut [f32], stride: usize) {
    let (steps, per_step) = (panel.form.steps(), if FOUR { 2 } else { 4 });
    for group in 0..panel.form.groups {
        let scales = panel.scales(group);
        let units = &panel.units[group * steps * per_step..];
        let span = panel.form.span(group);
        for tile in 0..2 {
            let zeros = zeros(panel, group, tile).map(|v| _mm256_cvtepi32_ps(v));
            let scales = load_floats(&scales[tile * TILE..]);
            for (step, units) in units.chunks_exact(per_step).take(steps).enumerate() {
                values::<FOUR>(units, tile, zeros, |column, w| {
                    let column = span.start + step * STEP + column;
                    if column < span.end {
                        let out = &mut out[column * stride + tile * TILE..];
                        let [a, b] = [0, 1].map(|i| _mm256_mul_ps(w[i], scales[i]));
                        store_floats(out, [a, b]);
                    }
                });
            }
        }
    }
}

/// See `scalar::dequantize`.
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn dequantize(panel: &Panel<'_>, out: &mut [f32], stride: usize) {
    match panel.form.bits {
        4 => dequantize_of::<true>(panel, out, stride),
        _ => dequantize_of::<false>(panel, out, stride),
    }
}
