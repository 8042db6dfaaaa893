//! AVX-512 with VNNI: one `vpdpbusd` takes 64 products of a unit with a quad of a token.
use super::activations::Block;
use super::packed::{Form, Panel, PanelScales, ROWS, STEP, Unit};
use ndarray::ArrayViewMut2;
#[allow(clippy::wildcard_imports, reason = "the instructions")]
use std::arch::x86_64::*;

/// How far ahead of a product with one token its weights are fetched.
const AHEAD: usize = 2048;

/// 16 rows each.
type Ints = [__m512i; 2];
type Floats = [__m512; 2];

/// The two quads of a step.
///
/// # Safety
/// `units` points to a whole step.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn load<const FOUR: bool>(units: *const Unit) -> [Ints; 2] {
    // SAFETY: a step has two units with four bits, else four.
    let unit = |i| unsafe { _mm512_load_si512(units.add(i).cast()) };
    if FOUR {
        let low = _mm512_set1_epi8(15);
        let (a, b) = (unit(0), unit(1));
        let high = |v| _mm512_and_si512(_mm512_srli_epi16::<4>(v), low);
        [[_mm512_and_si512(a, low), _mm512_and_si512(b, low)], [high(a), high(b)]]
    } else {
        [[unit(0), unit(1)], [unit(2), unit(3)]]
    }
}

/// `acc += w · a` for `M` tokens.
///
/// # Safety
/// `words` points to `M` words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dot<const M: usize>(acc: &mut [Ints; M], w: Ints, words: *const i32) {
    for m in 0..M {
        // SAFETY: promised by the caller.
        let a = _mm512_set1_epi32(unsafe { *words.add(m) });
        acc[m] = [_mm512_dpbusd_epi32(acc[m][0], w[0], a), _mm512_dpbusd_epi32(acc[m][1], w[1], a)];
    }
}

/// Calls `each(group, sums)` with `Σ (u - zero) · a` over every group, for tokens
/// `[first, first + M)` of a block.
///
/// # Safety
/// Panel and block fit each other, as `super::check` says; the block has these tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn groups<const FOUR: bool, const M: usize>(
    panel: &Panel<'_>,
    block: Block<'_>,
    first: usize,
    mut each: impl FnMut(usize, [Ints; M]),
) {
    let (steps, tokens) = (panel.form.steps(), block.scales.len());
    let per_step = if FOUR { 2 } else { 4 };
    let mut units = panel.units.as_ptr();
    let mut words = block.words.as_ptr().wrapping_add(first);
    for group in 0..panel.form.groups {
        let mut acc = starts::<M>(panel, &block.sums[group * tokens + first..][..M], group);
        // Few tokens leave the multipliers waiting for their sums: the second quads get their own.
        let mut second = [[_mm512_setzero_si512(); 2]; M];
        for _ in 0..steps {
            // SAFETY: `units` has groups × steps steps, `words` two quads of `tokens` words for
            // each (checked); the prefetch may point anywhere.
            unsafe {
                if M == 1 {
                    let ahead = units.cast::<i8>().wrapping_add(AHEAD);
                    for line in 0..per_step {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line));
                    }
                }
                let [a, b] = load::<FOUR>(units);
                dot(&mut acc, a, words);
                dot(if M <= 2 { &mut second } else { &mut acc }, b, words.add(tokens));
            }
            units = units.wrapping_add(per_step);
            words = words.wrapping_add(2 * tokens);
        }
        if M <= 2 {
            for m in 0..M {
                for i in 0..2 {
                    acc[m][i] = _mm512_add_epi32(acc[m][i], second[m][i]);
                }
            }
        }
        each(group, acc);
    }
}

/// What the sums of a group start from: `-zero · Σ a` for `M` tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn starts<const M: usize>(panel: &Panel<'_>, sums: &[i32], group: usize) -> [Ints; M] {
    let zeros = if panel.form.symmetric { None } else { Some(zeros(panel, group)) };
    std::array::from_fn(|m| match zeros {
        None => [_mm512_set1_epi32(sums[m].wrapping_neg() * i32::from(panel.form.middle())); 2],
        Some(zeros) => {
            let sum = _mm512_set1_epi32(-sums[m]);
            [_mm512_mullo_epi32(zeros[0], sum), _mm512_mullo_epi32(zeros[1], sum)]
        }
    })
}

/// The unsigned codes of value 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn zeros(panel: &Panel<'_>, group: usize) -> Ints {
    if panel.form.symmetric {
        return [_mm512_set1_epi32(i32::from(panel.form.middle())); 2];
    }
    let (halves, _) = panel.zeros[group * ROWS..][..ROWS].as_chunks::<16>();
    // SAFETY: 16 bytes each.
    [0, 1].map(|i| _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(halves[i].as_ptr().cast()) }))
}

/// Two registers from 32 floats.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_floats(from: &[f32; ROWS]) -> Floats {
    // SAFETY: 32 floats.
    unsafe { [_mm512_loadu_ps(from.as_ptr()), _mm512_loadu_ps(from.as_ptr().add(16))] }
}

/// The scales of a group.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_scales(panel: &Panel<'_>, group: usize) -> Floats {
    match panel.scales {
        PanelScales::F32(scales) => load_floats(&scales[group]),
        PanelScales::Bf16(scales) => {
            let from = scales[group].as_ptr();
            // SAFETY: 32 values of 16 bits.
            let half = |i| unsafe { _mm256_loadu_si256(from.add(i).cast()) };
            let wide = |v| _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(v));
            [_mm512_castsi512_ps(wide(half(0))), _mm512_castsi512_ps(wide(half(16)))]
        }
    }
}

/// 32 floats from two registers.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_floats(to: &mut [f32; ROWS], v: Floats) {
    // SAFETY: 32 floats.
    unsafe {
        _mm512_storeu_ps(to.as_mut_ptr(), v[0]);
        _mm512_storeu_ps(to.as_mut_ptr().add(16), v[1]);
    }
}

/// `M` tokens of [`integer`].
///
/// # Safety
/// As [`groups`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn rows<const FOUR: bool, const M: usize>(
    panel: &Panel<'_>,
    block: Block<'_>,
    first: usize,
    y: &mut ArrayViewMut2<'_, f32>,
) {
    let mut totals = [[_mm512_setzero_ps(); 2]; M];
    // SAFETY: promised by the caller.
    unsafe {
        groups::<FOUR, M>(panel, block, first, |group, sums| {
            let scales = load_scales(panel, group);
            for m in 0..M {
                for i in 0..2 {
                    let sum = _mm512_cvtepi32_ps(sums[m][i]);
                    totals[m][i] = _mm512_fmadd_ps(scales[i], sum, totals[m][i]);
                }
            }
        });
    }
    for m in 0..M {
        let scale = _mm512_set1_ps(block.scales[first + m]);
        let total = totals[m].map(|v| _mm512_mul_ps(v, scale));
        let mut y = y.row_mut(first + m);
        if let Some(y) = y.as_slice_mut().and_then(|y| y.as_mut_array::<ROWS>()) {
            store_floats(y, total);
        } else {
            let mut all = [0.0; ROWS];
            store_floats(&mut all, total);
            y.iter_mut().zip(all).for_each(|(y, total)| *y = total);
        }
    }
}

/// Runs `$call::<FOUR, M>` over a block in runs of 8, 4, 2 and 1 tokens.
macro_rules! in_runs {
    ($tokens:expr, |$first:ident, $M:ident| $call:expr) => {{
        let mut $first = 0;
        while $first < $tokens {
            macro_rules! run {
                ($n:literal) => {{
                    const $M: usize = $n;
                    $call;
                    $first += $n;
                }};
            }
            match $tokens - $first {
                8.. => run!(8),
                4.. => run!(4),
                2.. => run!(2),
                _ => run!(1),
            }
        }
    }};
}

mod floats;
use floats::values;
pub(super) use floats::{float, floats};

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn integer_of<const FOUR: bool>(
    panel: &Panel<'_>,
    block: Block<'_>,
    mut y: ArrayViewMut2<'_, f32>,
) {
    in_runs!(block.scales.len(), |first, M| {
        // SAFETY: promised by the caller.
        unsafe { rows::<FOUR, M>(panel, block, first, &mut y) }
    });
}

/// See `scalar::integer`.
///
/// # Safety
/// The processor has the features; panel and block fit each other (`super::check`).
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn integer(panel: &Panel<'_>, block: Block<'_>, y: ArrayViewMut2<'_, f32>) {
    // SAFETY: promised by the caller.
    unsafe {
        match panel.form.bits {
            4 => integer_of::<true>(panel, block, y),
            _ => integer_of::<false>(panel, block, y),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn sums_of<const FOUR: bool>(
    panel: &Panel<'_>,
    block: Block<'_>,
    out: &mut Vec<[i32; ROWS]>,
) {
    let (start, tokens) = (out.len(), block.scales.len());
    out.resize(start + panel.form.groups * tokens, [0; ROWS]);
    in_runs!(block.scales.len(), |first, M| {
        // SAFETY: promised by the caller; 128 bytes are 32 integers.
        unsafe {
            groups::<FOUR, M>(panel, block, first, |group, sums| {
                for m in 0..M {
                    out[start + group * tokens + first + m] =
                        std::mem::transmute::<Ints, [i32; ROWS]>(sums[m]);
                }
            });
        }
    });
}

/// See `scalar::sums`.
///
/// # Safety
/// As [`integer`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn sums(panel: &Panel<'_>, block: Block<'_>, out: &mut Vec<[i32; ROWS]>) {
    // SAFETY: promised by the caller.
    unsafe {
        match panel.form.bits {
            4 => sums_of::<true>(panel, block, out),
            _ => sums_of::<false>(panel, block, out),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dequantize_of<const FOUR: bool, const SYM: bool>(
    panel: &Panel<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let steps = panel.form.steps();
    for group in 0..panel.form.groups {
        let scales = load_scales(panel, group);
        let zeros = zeros(panel, group).map(|v| _mm512_cvtepi32_ps(v));
        let units = &panel.units[group * steps * panel.form.units()..];
        let span = panel.form.span(group);
        for (step, units) in units.chunks_exact(panel.form.units()).take(steps).enumerate() {
            values::<FOUR, SYM>(units, zeros, |column, w| {
                let column = span.start + step * STEP + column;
                if column < span.end {
                    let out = out[column * stride..][..ROWS].as_mut_array().expect("32 rows");
                    store_floats(
                        out,
                        [_mm512_mul_ps(w[0], scales[0]), _mm512_mul_ps(w[1], scales[1])],
                    );
                }
            });
        }
    }
}

/// See `scalar::dequantize`.
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn dequantize(panel: &Panel<'_>, out: &mut [f32], stride: usize) {
    match (panel.form.bits, panel.form.symmetric) {
        (4, true) => dequantize_of::<true, true>(panel, out, stride),
        (4, false) => dequantize_of::<true, false>(panel, out, stride),
        (_, true) => dequantize_of::<false, true>(panel, out, stride),
        (_, false) => dequantize_of::<false, false>(panel, out, stride),
    }
}
