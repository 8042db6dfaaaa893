//! Keys and values on integer grids: one row is a head of a token, its grid is chosen when it is
//! stored. Scales are bfloat16, rounded up, so that every number of a row lies on its grid's range.
use crate::linalg::{lanes_sum, vectorized};
use serde::{Deserialize, Serialize};

/// How keys and values of past tokens are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvPrecision {
    /// 32-bit floating point, as they are computed
    #[default]
    Float,
    /// Symmetric, one scale per token and head
    Int8,
    /// With zero points, one scale per token and 32 channels of a head
    Int4,
}

/// Channels that share a scale at 4 bits.
const GROUP: usize = 32;
/// Numbers that are taken together.
const LANES: usize = 16;

impl KvPrecision {
    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// Bits of a code; none of numbers.
    pub fn bits(self) -> Option<u32> {
        match self {
            Self::Float => None,
            Self::Int8 => Some(8),
            Self::Int4 => Some(4),
        }
    }

    /// Channels that share a scale in heads of this width.
    pub fn group_size(self, width: usize) -> usize {
        if self == Self::Int4 { GROUP.min(width) } else { width }
    }

    /// Bytes that a head of a token takes, scales and zero points included; keys or values.
    pub fn row_bytes(self, width: usize) -> usize {
        let layout = Layout { precision: self, width };
        match self {
            Self::Float => 4 * width,
            Self::Int8 | Self::Int4 => layout.code_bytes() + 2 * layout.scales() + layout.zeros(),
        }
    }
}

/// Where the codes of a row lie.
///
/// Int8: two's complement, a byte a channel. Int4: channels in groups of 32, the last of which may
/// be shorter; byte `i` of a group of `n` holds channel `i` in its lower half, channel `i + n / 2`
/// in its upper, both from 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Not [`KvPrecision::Float`].
    pub precision: KvPrecision,
    /// Channels of a row; even.
    pub width: usize,
}

/// Rows on their grids, one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Their form.
    pub layout: Layout,
    /// [`Layout::code_bytes`] per row.
    pub codes: &'a [u8],
    /// Upper halves of float32 numbers, [`Layout::scales`] per row.
    pub scales: &'a [u16],
    /// The codes of 0, [`Layout::zeros`] per row.
    pub zeros: &'a [u8],
}

/// A row to write.
#[derive(Debug)]
pub struct RowMut<'a> {
    /// Its form.
    pub layout: Layout,
    /// [`Layout::code_bytes`] of them.
    pub codes: &'a mut [u8],
    /// [`Layout::scales`] of them.
    pub scales: &'a mut [u16],
    /// [`Layout::zeros`] of them.
    pub zeros: &'a mut [u8],
}

impl Layout {
    /// Bytes of the codes of a row.
    pub fn code_bytes(self) -> usize {
        if self.precision == KvPrecision::Int4 { self.width / 2 } else { self.width }
    }

    /// Scales of a row.
    pub fn scales(self) -> usize {
        self.width.div_ceil(self.precision.group_size(self.width).max(1))
    }

    /// Zero points of a row.
    pub fn zeros(self) -> usize {
        if self.precision == KvPrecision::Int4 { self.scales() } else { 0 }
    }
}

/// The least bfloat16 number that is not below `x ≥ 0`; NaN for what is not finite, so that a row
/// with such a number reads as NaN and is found.
#[inline(always)]
fn bf16_above(x: f32) -> u16 {
    const NAN: u16 = 0x7FC0;
    if !x.is_finite() {
        return NAN;
    }
    let bits = x.to_bits();
    ((bits >> 16) + u32::from(bits & 0xFFFF != 0)) as u16
}

#[inline(always)]
fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// 1 / scale, and 0 for the scale of zeros.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    // Scales below the least normal number have no finite inverse.
    if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale }
}

/// The largest magnitude; not finite if one of the numbers is not.
#[inline(always)]
fn magnitude(x: &[f32]) -> f32 {
    // Numbers without sign are in the order of their bits, infinity and NaN last.
    f32::from_bits(x.iter().map(|x| x.to_bits() & 0x7FFF_FFFF).max().unwrap_or(0))
}

/// The least and the greatest of some numbers and 0.
#[inline(always)]
fn range(x: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    for part in x.chunks(LANES) {
        for ((low, high), x) in low.iter_mut().zip(&mut high).zip(part) {
            *low = if *x < *low { *x } else { *low };
            *high = if *x > *high { *x } else { *high };
        }
    }
    (low.into_iter().fold(0.0, f32::min), high.into_iter().fold(0.0, f32::max))
}

vectorized! {
    /// Rounds a row `x`, `[width]`, to nearest on its grid.
    pub fn encode_row<'a>(x: &'a [f32], row: RowMut<'a>) {
        match row.layout.precision {
            KvPrecision::Int4 => {
                let parts = row.scales.iter_mut().zip(row.zeros).zip(row.codes.chunks_mut(GROUP / 2));
                for (x, ((scale, zero), codes)) in x.chunks(GROUP).zip(parts) {
                    let (low, high) = range(x);
                    let width = (high - low) / 15.0;
                    *scale = bf16_above(if magnitude(x).is_finite() { width } else { f32::NAN });
                    let inverse = inverse(from_bf16(*scale));
                    let shift = (-low * inverse).round_ties_even();
                    *zero = shift as u8;
                    let code = |x: f32| {
                        (x * inverse).round_ties_even().max(-shift).min(15.0 - shift) + shift
                    };
                    let (first, second) = x.split_at(codes.len());
                    for ((byte, x), y) in codes.iter_mut().zip(first).zip(second) {
                        *byte = code(*x) as u8 | ((code(*y) as u8) << 4);
                    }
                }
            }
            KvPrecision::Int8 | KvPrecision::Float => {
                let scale = bf16_above(magnitude(x) / 127.0);
                let inverse = inverse(from_bf16(scale));
                row.scales.fill(scale);
                for (code, x) in row.codes.iter_mut().zip(x) {
                    *code = (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8 as u8;
                }
            }
        }
    }
}

/// Numbers of 16 codes of 8 bits.
#[inline(always)]
fn wide(codes: &[u8; LANES], scale: f32) -> [f32; LANES] {
    codes.map(
        #[inline(always)]
        |code| f32::from(code as i8) * scale,
    )
}

/// Numbers of the 32 codes in 16 bytes.
#[inline(always)]
fn narrow(codes: &[u8; LANES], scale: f32, zero: f32) -> [[f32; LANES]; 2] {
    let (mut first, mut second) = ([0.0; LANES], [0.0; LANES]);
    for i in 0..LANES {
        first[i] = (f32::from(codes[i] & 15) - zero) * scale;
        second[i] = (f32::from(codes[i] >> 4) - zero) * scale;
    }
    [first, second]
}

impl Rows<'_> {
    /// Each row alone.
    #[inline(always)]
    fn each(self) -> impl Iterator<Item = Self> {
        let Self { layout, codes, scales, zeros } = self;
        let (per, groups) = (layout.code_bytes().max(1), layout.scales().max(1));
        codes.chunks_exact(per).zip(scales.chunks_exact(groups)).enumerate().map(
            move |(row, (codes, scales))| {
                let zeros = zeros.get(row * groups..(row + 1) * groups).unwrap_or(&[]);
                Self { layout, codes, scales, zeros }
            },
        )
    }

    /// The numbers of one row, 16 at a time: first channel and numbers; what is left of a row, or
    /// of a group, one at a time.
    #[inline(always)]
    fn walk(self, mut lanes: impl FnMut(usize, [f32; LANES]), mut one: impl FnMut(usize, f32)) {
        if self.layout.precision == KvPrecision::Int4 {
            let parts = self.codes.chunks(GROUP / 2).zip(self.scales).zip(self.zeros);
            for (group, ((codes, scale), zero)) in parts.enumerate() {
                let (scale, zero, at) = (from_bf16(*scale), f32::from(*zero), group * GROUP);
                if let Ok(codes) = codes.try_into() {
                    let [first, second] = narrow(codes, scale, zero);
                    lanes(at, first);
                    lanes(at + LANES, second);
                } else {
                    for (i, code) in codes.iter().enumerate() {
                        one(at + i, (f32::from(code & 15) - zero) * scale);
                        one(at + codes.len() + i, (f32::from(code >> 4) - zero) * scale);
                    }
                }
            }
            return;
        }
        let scale = self.scales.first().map_or(0.0, |scale| from_bf16(*scale));
        let (chunks, tail) = self.codes.as_chunks::<LANES>();
        for (chunk, codes) in chunks.iter().enumerate() {
            lanes(chunk * LANES, wide(codes, scale));
        }
        for (i, code) in tail.iter().enumerate() {
            one(chunks.len() * LANES + i, f32::from(*code as i8) * scale);
        }
    }
}

vectorized! {
    /// The numbers of rows, `[rows, width]`.
    pub fn decode_rows<'a>(rows: Rows<'a>, out: &'a mut [f32]) {
        let width = rows.layout.width.max(1);
        for (out, row) in out.chunks_exact_mut(width).zip(rows.each()) {
            let out = std::cell::Cell::from_mut(out).as_slice_of_cells();
            row.walk(
                #[inline(always)]
                |at, numbers| {
                    for (out, x) in out[at..at + LANES].iter().zip(numbers) {
                        out.set(x);
                    }
                },
                #[inline(always)]
                |at, x| out[at].set(x),
            );
        }
    }
}

vectorized! {
    /// `y[i] ← scale · Σ x·rows[i]`, as [`scaled_dots`](crate::linalg::scaled_dots).
    pub fn row_dots<'a>(x: &'a [f32], rows: Rows<'a>, scale: f32, y: &'a mut [f32]) {
        for (y, row) in y.iter_mut().zip(rows.each()) {
            let (mut sums, mut rest) = ([0.0_f32; LANES], 0.0_f32);
            row.walk(
                #[inline(always)]
                |at, numbers| {
                    if let Some(x) = x.get(at..).and_then(|x| x.first_chunk::<LANES>()) {
                        for i in 0..LANES {
                            sums[i] += x[i] * numbers[i];
                        }
                    }
                },
                #[inline(always)]
                |at, number| rest += x[at] * number,
            );
            *y = (lanes_sum(sums) + rest) * scale;
        }
    }
}

vectorized! {
    /// `y ← Σ weights[i] · rows[i]`, as [`weighted_sum`](crate::linalg::weighted_sum).
    pub fn row_sum<'a>(weights: &'a [f32], rows: Rows<'a>, y: &'a mut [f32]) {
        y.fill(0.0);
        let y = std::cell::Cell::from_mut(y).as_slice_of_cells();
        for (weight, row) in weights.iter().zip(rows.each()) {
            row.walk(
                #[inline(always)]
                |at, numbers| {
                    for (y, x) in y[at..at + LANES].iter().zip(numbers) {
                        y.set(y.get() + weight * x);
                    }
                },
                #[inline(always)]
                |at, x| y[at].set(y[at].get() + weight * x),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [KvPrecision; 2] = [KvPrecision::Int8, KvPrecision::Int4];

    /// Rows as they are stored.
    struct Stored {
        layout: Layout,
        codes: Vec<u8>,
        scales: Vec<u16>,
        zeros: Vec<u8>,
    }

    impl Stored {
        fn new(precision: KvPrecision, width: usize, x: &[f32]) -> Self {
            let layout = Layout { precision, width };
            let rows = x.len() / width;
            let mut stored = Self {
                layout,
                codes: vec![0; rows * layout.code_bytes()],
                scales: vec![0; rows * layout.scales()],
                zeros: vec![0; rows * layout.zeros()],
            };
            for (row, x) in x.chunks(width).enumerate() {
                let of = |per: usize| row * per..(row + 1) * per;
                let codes = &mut stored.codes[of(layout.code_bytes())];
                let scales = &mut stored.scales[of(layout.scales())];
                let zeros = &mut stored.zeros[of(layout.zeros())];
                encode_row(x, RowMut { layout, codes, scales, zeros });
            }
            stored
        }

        fn rows(&self) -> Rows<'_> {
            let Self { layout, codes, scales, zeros } = self;
            Rows { layout: *layout, codes, scales, zeros }
        }

        fn numbers(&self) -> Vec<f32> {
            let rows = self.codes.len() / self.layout.code_bytes();
            let mut out = vec![0.0; rows * self.layout.width];
            decode_rows(self.rows(), &mut out);
            out
        }
    }

    /// Numbers of very different sizes, without a pattern.
    fn numbers(count: usize) -> Vec<f32> {
        let wave = |i: usize| ((i * i * 7 + i * 13) % 101) as f32 / 50.0 - 1.0;
        (0..count).map(|i| wave(i) * if i % 17 == 3 { 40.0 } else { 1.0 }).collect()
    }

    #[test]
    fn no_number_is_off_by_more_than_half_a_step() {
        for precision in BOTH {
            for width in [2, 30, 32, 40, 64, 128, 130] {
                let x = numbers(width * 5);
                let stored = Stored::new(precision, width, &x);
                let group = precision.group_size(width);
                for (row, (x, got)) in
                    x.chunks(width).zip(stored.numbers().chunks(width)).enumerate()
                {
                    for (i, (x, got)) in x.iter().zip(got).enumerate() {
                        let at = row * stored.layout.scales() + i / group;
                        let step = from_bf16(stored.scales[at]);
                        // One part in 10⁵ for the float32 arithmetic around codes of up to 127.
                        let bound = step * 0.500_01 + x.abs() * 1e-6;
                        assert!((x - got).abs() <= bound, "{precision:?} {width} {i}: {x} {got}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_step_is_the_range_over_the_codes() {
        for precision in BOTH {
            let x = numbers(64);
            let stored = Stored::new(precision, 64, &x);
            for (group, x) in x.chunks(precision.group_size(64)).enumerate() {
                let (low, high) = range(x);
                let exact = match precision {
                    KvPrecision::Int4 => (high - low) / 15.0,
                    _ => high.max(-low) / 127.0,
                };
                let step = from_bf16(stored.scales[group]);
                // Rounded up by at most one unit in the last place of bfloat16.
                assert!(step >= exact * 0.999_999 && step <= exact * (1.0 + 1.0 / 128.0));
            }
        }
    }

    #[test]
    fn numbers_on_a_grid_stay_as_they_are() {
        // Scales 1/4 of 127 and 15 codes; the second time from what the first gave.
        let int8: Vec<f32> = (0..64).map(|i| ((i * 37) % 255 - 127) as f32 / 4.0).collect();
        assert!(int8.contains(&-31.75));
        let int4: Vec<f32> = (0..64).map(|i| ((i * 7) % 16 - 5) as f32 / 4.0).collect();
        for (precision, x) in BOTH.into_iter().zip([int8, int4]) {
            assert_eq!(Stored::new(precision, 64, &x).numbers(), x, "{precision:?}");
        }
        // The negative twin: between two codes.
        let x = [1.0 / 8.0, 31.75];
        assert_ne!(Stored::new(KvPrecision::Int8, 2, &x).numbers(), x);
    }

    #[test]
    fn zeros_tiny_numbers_and_constants_are_held() {
        for precision in BOTH {
            for x in [0.0, -0.0, 1e-42, -3e-39] {
                let got = Stored::new(precision, 32, &[x; 32]).numbers();
                assert!(got.iter().all(|got| got.abs() < 1e-37), "{precision:?} {x}: {got:?}");
            }
            for x in [5.0, -5.0] {
                let got = Stored::new(precision, 32, &[x; 32]).numbers();
                assert!(got.iter().all(|got| (got - x).abs() <= 0.05), "{precision:?} {got:?}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_read_as_none() {
        for precision in BOTH {
            for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = numbers(64);
                x[40] = wrong;
                let got = Stored::new(precision, 64, &x).numbers();
                assert!(got[40].is_nan(), "{precision:?} {wrong}");
            }
        }
    }

    #[test]
    fn products_with_rows_are_those_with_their_numbers() {
        for precision in BOTH {
            for width in [2, 40, 64, 96] {
                let stored = Stored::new(precision, width, &numbers(width * 9));
                let rows = stored.numbers();
                let x: Vec<f32> = numbers(width + 5)[5..].to_vec();
                let (mut got, mut want) = (vec![0.0; 9], vec![0.0; 9]);
                row_dots(&x, stored.rows(), 0.5, &mut got);
                crate::linalg::scaled_dots(&x, &rows, 0.5, &mut want);
                let close = |got: &[f32], want: &[f32]| {
                    // Sums of up to 96 terms of at most 1600, in another order.
                    got.iter()
                        .zip(want)
                        .all(|(got, want)| (got - want).abs() < 96.0 * 1600.0 * 1e-6)
                };
                assert!(close(&got, &want), "{precision:?} {width}: {got:?} {want:?}");
                let weights = numbers(9);
                let (mut got, mut want) = (vec![1.0; width], vec![2.0; width]);
                row_sum(&weights, stored.rows(), &mut got);
                crate::linalg::weighted_sum(&weights, &rows, &mut want);
                assert!(close(&got, &want), "{precision:?} {width}: {got:?} {want:?}");
            }
        }
    }

    #[test]
    fn bytes_of_a_row_by_hand() {
        // 64 codes and a scale; two groups of 16 bytes, a scale and a zero point.
        assert_eq!(KvPrecision::Int8.row_bytes(64), 66);
        assert_eq!(KvPrecision::Int4.row_bytes(64), 38);
        assert_eq!(KvPrecision::Float.row_bytes(64), 256);
        // A group of 32 and one of 8.
        assert_eq!(KvPrecision::Int4.row_bytes(40), 20 + 2 * 3);
    }
}
