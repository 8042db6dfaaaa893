//! Float activations: of one token, and of several, for which each weight is unpacked once.
use super::{AHEAD, Floats, Form, Panel, ROWS, STEP, Unit, load_scales, store_floats, zeros};
#[allow(clippy::wildcard_imports, reason = "the instructions")]
use std::arch::x86_64::*;

/// What four bits are looked up in; `SYM`, all zero points are the middle, takes it off already.
#[inline]
#[target_feature(enable = "avx512f")]
fn table<const SYM: bool>() -> __m512 {
    let middle = if SYM { 8.0 } else { 0.0 };
    let table: [f32; 16] = std::array::from_fn(|u| u as f32 - middle);
    // SAFETY: 16 floats.
    unsafe { _mm512_loadu_ps(table.as_ptr()) }
}

/// `u - zero` in float32 for the column of two units whose codes begin at bit `shift`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn value<const FOUR: bool, const SYM: bool>(
    units: [&Unit; 2],
    shift: __m128i,
    (table, zeros): (__m512, Floats),
) -> Floats {
    [0, 1].map(|i| {
        // SAFETY: a unit has 64 aligned bytes.
        let unit = unsafe { _mm512_load_si512(std::ptr::from_ref(units[i]).cast()) };
        let code = _mm512_srl_epi32(unit, shift);
        if FOUR {
            let value = _mm512_permutexvar_ps(code, table);
            return if SYM { value } else { _mm512_sub_ps(value, zeros[i]) };
        }
        let code = _mm512_and_si512(code, _mm512_set1_epi32(255));
        _mm512_sub_ps(_mm512_cvtepi32_ps(code), zeros[i])
    })
}

/// Calls `each(column of the step, values)` with [`value`] for the columns of a step.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn values<const FOUR: bool, const SYM: bool>(
    units: &[Unit],
    zeros: Floats,
    mut each: impl FnMut(usize, Floats),
) {
    let table = table::<SYM>();
    for quad in 0..2 {
        let at = if FOUR { 0 } else { 2 * quad };
        for column in 0..4 {
            let shift = _mm_cvtsi32_si128((column * 8 + if FOUR { 4 * quad } else { 0 }) as i32);
            let units = [&units[at], &units[at + 1]];
            each(quad * 4 + column, value::<FOUR, SYM>(units, shift, (table, zeros)));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn float_of<const FOUR: bool, const SYM: bool>(panel: &Panel<'_>, x: &[f32], y: &mut [f32; ROWS]) {
    let Form { groups, .. } = panel.form;
    let steps = panel.form.steps();
    let mut total = [_mm512_setzero_ps(); 2];
    for group in 0..groups {
        let zeros = zeros(panel, group).map(|v| _mm512_cvtepi32_ps(v));
        let units = &panel.units[group * steps * panel.form.units()..];
        let mut sums = [[_mm512_setzero_ps(); 2]; 4];
        let columns = x[group * steps * STEP..][..steps * STEP].as_chunks::<STEP>().0;
        for (x, units) in columns.iter().zip(units.chunks_exact(if FOUR { 2 } else { 4 })) {
            _mm_prefetch::<_MM_HINT_T0>(units.as_ptr().cast::<i8>().wrapping_add(AHEAD));
            _mm_prefetch::<_MM_HINT_T0>(units.as_ptr().cast::<i8>().wrapping_add(AHEAD + 64));
            values::<FOUR, SYM>(units, zeros, |column, w| {
                let (x, sum) = (_mm512_set1_ps(x[column]), &mut sums[column % 4]);
                *sum = [_mm512_fmadd_ps(w[0], x, sum[0]), _mm512_fmadd_ps(w[1], x, sum[1])];
            });
        }
        let scales = load_scales(panel, group);
        for i in 0..2 {
            let left = _mm512_add_ps(sums[0][i], sums[1][i]);
            let sum = _mm512_add_ps(left, _mm512_add_ps(sums[2][i], sums[3][i]));
            total[i] = _mm512_fmadd_ps(scales[i], sum, total[i]);
        }
    }
    store_floats(y, total);
}

/// See `scalar::float`.
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(in crate::runtime::kernel) unsafe fn float(panel: &Panel<'_>, x: &[f32], y: &mut [f32; ROWS]) {
    match (panel.form.bits, panel.form.symmetric) {
        (4, true) => float_of::<true, true>(panel, x, y),
        (4, false) => float_of::<true, false>(panel, x, y),
        (_, true) => float_of::<false, true>(panel, x, y),
        (_, false) => float_of::<false, false>(panel, x, y),
    }
}

/// [`float`] of tokens `[first, first + M)` of `x` `[width, tokens]`. The four sums of a row are
/// made one after the other, so that those of all tokens stay in registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn floats_of<const FOUR: bool, const SYM: bool, const M: usize>(
    panel: &Panel<'_>,
    (x, first): (&[f32], usize),
    y: &mut [[f32; ROWS]],
) {
    let (steps, tokens, per_step) = (panel.form.steps(), y.len(), if FOUR { 2 } else { 4 });
    let table = table::<SYM>();
    let none = [[_mm512_setzero_ps(); 2]; M];
    let mut total = none;
    for group in 0..panel.form.groups {
        let zeros = zeros(panel, group).map(|v| _mm512_cvtepi32_ps(v));
        let units = &panel.units[group * steps * per_step..][..steps * per_step];
        let x = &x[group * steps * STEP * tokens..][..steps * STEP * tokens];
        let mut pairs = [none; 2];
        for column in 0..4 {
            let mut sums = none;
            for (units, x) in units.chunks_exact(per_step).zip(x.chunks_exact(STEP * tokens)) {
                for quad in 0..2 {
                    let at = if FOUR { 0 } else { 2 * quad };
                    let shift = column * 8 + if FOUR { 4 * quad } else { 0 };
                    let shift = _mm_cvtsi32_si128(shift as i32);
                    let w = value::<FOUR, SYM>([&units[at], &units[at + 1]], shift, (table, zeros));
                    let x: &[f32; M] =
                        x[(quad * 4 + column) * tokens + first..].first_chunk().expect("M tokens");
                    for m in 0..M {
                        let (x, sum) = (_mm512_set1_ps(x[m]), &mut sums[m]);
                        *sum = [_mm512_fmadd_ps(w[0], x, sum[0]), _mm512_fmadd_ps(w[1], x, sum[1])];
                    }
                }
            }
            for (pair, sum) in pairs[column / 2].iter_mut().zip(sums) {
                for i in 0..2 {
                    pair[i] = if column % 2 == 0 { sum[i] } else { _mm512_add_ps(pair[i], sum[i]) };
                }
            }
        }
        let scales = load_scales(panel, group);
        for m in 0..M {
            for i in 0..2 {
                let sum = _mm512_add_ps(pairs[0][m][i], pairs[1][m][i]);
                total[m][i] = _mm512_fmadd_ps(scales[i], sum, total[m][i]);
            }
        }
    }
    for (y, total) in y[first..].iter_mut().zip(total) {
        store_floats(y, total);
    }
}

/// See [`Isa::floats`](crate::runtime::kernel::Isa::floats).
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(in crate::runtime::kernel) unsafe fn floats(
    panel: &Panel<'_>,
    x: &[f32],
    y: &mut [[f32; ROWS]],
) {
    in_runs!(y.len(), |first, M| {
        match (panel.form.bits, panel.form.symmetric) {
            (4, true) => floats_of::<true, true, M>(panel, (x, first), y),
            (4, false) => floats_of::<true, false, M>(panel, (x, first), y),
            (_, true) => floats_of::<false, true, M>(panel, (x, first), y),
            (_, false) => floats_of::<false, false, M>(panel, (x, first), y),
        }
    });
}
