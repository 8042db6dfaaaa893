//! NEON with the dot product of signed bytes. A pass takes 16 rows of a panel, four to a register.
//!
//! 8-bit codes are read as signed ones, `u - 128`, so their zero points move by 128.
use super::activations::Block;
use super::packed::{Panel, ROWS, STEP, Unit};
use ndarray::ArrayViewMut2;
#[allow(clippy::wildcard_imports, reason = "the instructions")]
use std::arch::aarch64::*;
use std::array::from_fn;

/// Rows of a pass.
const TILE: usize = 16;

/// 4 rows each.
type Ints = [int32x4_t; 4];
type Floats = [float32x4_t; 4];

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn load(unit: &Unit) -> [uint8x16_t; 4] {
    // SAFETY: a unit has 64 bytes.
    from_fn(|i| unsafe { vld1q_u8(unit.0.as_ptr().add(16 * i)) })
}

/// The two quads of a step as signed bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn signed<const FOUR: bool>(units: &[Unit], tile: usize) -> [[int8x16_t; 4]; 2] {
    if FOUR {
        let low = vdupq_n_u8(15);
        let both = load(&units[tile]);
        [
            both.map(|v| vreinterpretq_s8_u8(vandq_u8(v, low))),
            both.map(|v| vreinterpretq_s8_u8(vshrq_n_u8::<4>(v))),
        ]
    } else {
        let sign = vdupq_n_u8(128);
        [0, 2].map(|quad| load(&units[quad + tile]).map(|v| vreinterpretq_s8_u8(veorq_u8(v, sign))))
    }
}

/// Adds to each sum four products; the compiler's own function for it is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot(mut sums: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on three registers; its feature is enabled here.
    unsafe {
        std::arch::asm!(
            "sdot {sums:v}.4s, {w:v}.16b, {a:v}.16b",
            sums = inout(vreg) sums,
            w = in(vreg) w,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
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
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn group_sums<const FOUR: bool, const M: usize>(
    panel: &Panel<'_>,
    block: Block<'_>,
    At { first, group, tile }: At,
) -> [Ints; M] {
    let (steps, tokens) = (panel.form.steps(), block.scales.len());
    let moved = vdupq_n_s32(if FOUR { 0 } else { 128 });
    let zeros = zeros(panel, group, tile).map(|zeros| vsubq_s32(zeros, moved));
    let mut acc: [Ints; M] = from_fn(|m| {
        let sum = vdupq_n_s32(-block.sums[group * tokens + first + m]);
        zeros.map(|zeros| vmulq_s32(zeros, sum))
    });
    let per_step = if FOUR { 2 } else { 4 };
    let units = &panel.units[group * steps * per_step..][..steps * per_step];
    let words = &block.words[group * steps * 2 * tokens..][..steps * 2 * tokens];
    for (units, words) in units.chunks_exact(per_step).zip(words.chunks_exact(2 * tokens)) {
        let w = signed::<FOUR>(units, tile);
        for quad in 0..2 {
            let words = &words[quad * tokens + first..][..M];
            for m in 0..M {
                let a = vreinterpretq_s8_s32(vdupq_n_s32(words[m]));
                for i in 0..4 {
                    acc[m][i] = dot(acc[m][i], w[quad][i], a);
                }
            }
        }
    }
    acc
}

/// The unsigned codes of value 0.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn zeros(panel: &Panel<'_>, group: usize, tile: usize) -> Ints {
    if panel.form.symmetric {
        return [vdupq_n_s32(i32::from(panel.form.middle())); 4];
    }
    let zeros = &panel.zeros[group * ROWS + tile * TILE..][..TILE];
    // SAFETY: 16 bytes.
    let zeros = unsafe { vld1q_u8(zeros.as_ptr()) };
    let (low, high) = (vmovl_u8(vget_low_u8(zeros)), vmovl_high_u8(zeros));
    let wide = |v: uint16x8_t| [vmovl_u16(vget_low_u16(v)), vmovl_high_u16(v)];
    let ([a, b], [c, d]) = (wide(low), wide(high));
    [a, b, c, d].map(|v| vreinterpretq_s32_u32(v))
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn load_floats(from: &[f32]) -> Floats {
    let from = &from[..TILE];
    // SAFETY: 16 floats.
    from_fn(|i| unsafe { vld1q_f32(from.as_ptr().add(4 * i)) })
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn store_floats(to: &mut [f32], v: Floats) {
    let to = &mut to[..TILE];
    for i in 0..4 {
        // SAFETY: 16 floats.
        unsafe { vst1q_f32(to.as_mut_ptr().add(4 * i), v[i]) };
    }
}

/// `M` tokens of [`integer`].
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn rows<const FOUR: bool, const M: usize>(
    panel: &Panel<'_>,
    block: Block<'_>,
    first: usize,
    y: &mut ArrayViewMut2<'_, f32>,
) {
    let mut totals = [[0.0; ROWS]; M];
    for group in 0..panel.form.groups {
        let scales = panel.scales(group);
        for tile in 0..2 {
            let sums = group_sums::<FOUR, M>(panel, block, At { first, group, tile });
            let scales = load_floats(&scales[tile * TILE..]);
            for m in 0..M {
                let total = &mut totals[m][tile * TILE..];
                let old = load_floats(total);
                let new = from_fn(|i| vfmaq_f32(old[i], scales[i], vcvtq_f32_s32(sums[m][i])));
                store_floats(total, new);
            }
        }
    }
    for m in 0..M {
        let scale = block.scales[first + m];
        let mut y = y.row_mut(first + m);
        y.iter_mut().zip(totals[m]).for_each(|(y, total)| *y = total * scale);
    }
}

#[target_feature(enable = "neon,dotprod")]
fn integer_of<const FOUR: bool>(
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
        match run {
            4 => rows::<FOUR, 4>(panel, block, first, &mut y),
            2 => rows::<FOUR, 2>(panel, block, first, &mut y),
            _ => rows::<FOUR, 1>(panel, block, first, &mut y),
        }
        first += run;
    }
}

/// See `scalar::integer`.
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn integer(panel: &Panel<'_>, block: Block<'_>, y: ArrayViewMut2<'_, f32>) {
    match panel.form.bits {
        4 => integer_of::<true>(panel, block, y),
        _ => integer_of::<false>(panel, block, y),
    }
}

/// See `scalar::sums`.
///
/// # Safety
/// As [`integer`].
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn sums(panel: &Panel<'_>, block: Block<'_>, out: &mut Vec<[i32; ROWS]>) {
    for group in 0..panel.form.groups {
        for first in 0..block.scales.len() {
            let mut lanes = [0; ROWS];
            for tile in 0..2 {
                let at = At { first, group, tile };
                let [sums] = match panel.form.bits {
                    4 => group_sums::<true, 1>(panel, block, at),
                    _ => group_sums::<false, 1>(panel, block, at),
                };
                for i in 0..4 {
                    let four = &mut lanes[tile * TILE + 4 * i..][..4];
                    // SAFETY: 4 integers.
                    unsafe { vst1q_s32(four.as_mut_ptr(), sums[i]) };
                }
            }
            out.push(lanes);
        }
    }
}

/// Calls `each(column of the step, values)` with `u - zero` in float32 for the columns of a step.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn values<const FOUR: bool>(
    units: &[Unit],
    tile: usize,
    zeros: Floats,
    mut each: impl FnMut(usize, Floats),
) {
    let low = vdupq_n_u32(if FOUR { 15 } else { 255 });
    for quad in 0..2 {
        let unit = load(&units[if FOUR { tile } else { 2 * quad + tile }]);
        for column in 0..4 {
            // A negative count shifts to the right.
            let shift = vdupq_n_s32(-((column * 8 + if FOUR { 4 * quad } else { 0 }) as i32));
            let value = |i: usize| {
                let code = vandq_u32(vshlq_u32(vreinterpretq_u32_u8(unit[i]), shift), low);
                vsubq_f32(vcvtq_f32_u32(code), zeros[i])
            };
            each(quad * 4 + column, [value(0), value(1), value(2), value(3)]);
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
fn float_of<const FOUR: bool>(panel: &Panel<'_>, x: &[f32], y: &mut [f32; ROWS]) {
    let (steps, per_step) = (panel.form.steps(), if FOUR { 2 } else { 4 });
    for tile in 0..2 {
        let mut total = [vdupq_n_f32(0.0); 4];
        for group in 0..panel.form.groups {
            let zeros = zeros(panel, group, tile).map(|v| vcvtq_f32_s32(v));
            let units = &panel.units[group * steps * per_step..];
            let mut sums = [[vdupq_n_f32(0.0); 4]; 4];
            let columns = x[group * steps * STEP..][..steps * STEP].as_chunks::<STEP>().0;
            for (x, units) in columns.iter().zip(units.chunks_exact(per_step)) {
                values::<FOUR>(units, tile, zeros, |column, w| {
                    let (x, sum) = (vdupq_n_f32(x[column]), &mut sums[column % 4]);
                    *sum = from_fn(|i| vfmaq_f32(sum[i], w[i], x));
                });
            }
            let scales = load_floats(&panel.scales(group)[tile * TILE..]);
            for i in 0..4 {
                let left = vaddq_f32(sums[0][i], sums[1][i]);
                let sum = vaddq_f32(left, vaddq_f32(sums[2][i], sums[3][i]));
                total[i] = vfmaq_f32(total[i], scales[i], sum);
            }
        }
        store_floats(&mut y[tile * TILE..], total);
    }
}

/// See `scalar::float`.
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn float(panel: &Panel<'_>, x: &[f32], y: &mut [f32; ROWS]) {
    match panel.form.bits {
        4 => float_of::<true>(panel, x, y),
        _ => float_of::<false>(panel, x, y),
    }
}

#[target_feature(enable = "neon,dotprod")]
fn dequantize_of<const FOUR: bool>(panel: &Panel<'_>, out: &mut [f32], stride: usize) {
    let (steps, per_step) = (panel.form.steps(), if FOUR { 2 } else { 4 });
    for group in 0..panel.form.groups {
        let scales = panel.scales(group);
        let units = &panel.units[group * steps * per_step..];
        let span = panel.form.span(group);
        for tile in 0..2 {
            let zeros = zeros(panel, group, tile).map(|v| vcvtq_f32_s32(v));
            let scales = load_floats(&scales[tile * TILE..]);
            for (step, units) in units.chunks_exact(per_step).take(steps).enumerate() {
                values::<FOUR>(units, tile, zeros, |column, w| {
                    let column = span.start + step * STEP + column;
                    if column < span.end {
                        let out = &mut out[column * stride + tile * TILE..];
                        store_floats(out, from_fn(|i| vmulq_f32(w[i], scales[i])));
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
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn dequantize(panel: &Panel<'_>, out: &mut [f32], stride: usize) {
    match panel.form.bits {
        4 => dequantize_of::<true>(panel, out, stride),
        _ => dequantize_of::<false>(panel, out, stride),
    }
}
