//! Integer weights as blocks of ggml and back, code by code: nothing is quantized anew.
//!
//! Blocks hold 32 weights and a float16 scale. A group of 32·k weights, or a row, becomes blocks
//! with one scale repeated: int4 symmetric → `Q4_0`, int4 with zero points → `Q4_1`
//! (`m = −scale·(8 + zero_point)`, of the scale as stored), int8 symmetric → `Q8_0`.
use super::{BlockFormat, q4_0::Q4_0, q4_1::Q4_1, q8_0::Q8_0};
use crate::scheme::{IntScheme, QTensor};
use half::f16;

/// Weights of a block.
const BLOCK: usize = 32;

/// The block format whose codes are those of a grid; `None` where no format has them, or where
/// blocks do not divide the groups.
pub(in crate::scheme) fn grid_format(
    scheme: IntScheme,
    columns: usize,
) -> Option<&'static dyn BlockFormat> {
    let size = scheme.group_size(columns);
    scheme.groups(columns).filter(|_| size.is_multiple_of(BLOCK))?;
    match (scheme.bits, scheme.symmetric) {
        (4, true) => Some(&Q4_0),
        (4, false) => Some(&Q4_1),
        (8, true) => Some(&Q8_0),
        _ => None,
    }
}

/// What storing scales as float16 changes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HalfChange {
    /// The largest relative change of a scale that float16 holds to its full width, e.g. `2^-11`.
    pub largest: f64,
    /// Scales so near 0 that float16's smallest numbers, or its 0, stand for them: the weights move by
    /// less than a millionth.
    pub tiny: usize,
}

/// What storing scales as float16 changes; `None` where one, or the minimum of a block (at most 15
/// steps), is beyond float16's range, or no number.
pub fn half_change(scales: &[f32]) -> Option<HalfChange> {
    /// Beyond this relative change, a scale is lost in float16's smallest numbers.
    const LOST: f64 = 1.0 / 64.0;
    let mut all = HalfChange::default();
    for scale in scales {
        if !f16::from_f32(scale * 16.0).is_finite() {
            return None;
        }
        let (exact, stored) = (f64::from(*scale), f16::from_f32(*scale).to_f64());
        let far = (stored - exact).abs();
        if far > LOST * exact.abs() {
            all.tiny += 1;
        } else if far > 0.0 {
            all.largest = all.largest.max(far / exact.abs());
        }
    }
    Some(all)
}

/// Appends the blocks of one row of a weight on a grid that has a [`grid_format`].
pub(in crate::scheme) fn encode_row(tensor: &QTensor, row: usize, out: &mut Vec<u8>) {
    let columns = tensor.shape[1];
    let size = tensor.scheme.group_size(columns).max(1);
    let codes = &tensor.codes[row * columns..(row + 1) * columns];
    for (block, codes) in codes.as_chunks::<BLOCK>().0.iter().enumerate() {
        let q = tensor.qparams(row, block * BLOCK / size);
        let scale = f16::from_f32(q.scale);
        out.extend(scale.to_le_bytes());
        if tensor.scheme.bits == 8 {
            out.extend(codes.map(i8::cast_unsigned));
            continue;
        }
        if !tensor.scheme.symmetric {
            out.extend(least(scale, q.zero_point).to_le_bytes());
        }
        let nibble = |code: i8| (code + 8).cast_unsigned() & 15;
        let (low, high) = codes.split_at(BLOCK / 2);
        out.extend(low.iter().zip(high).map(|(low, high)| nibble(*low) | nibble(*high) << 4));
    }
}

/// The value of the least code of a block with a zero point. The product is exact in float32: 11
/// bits by 4.
fn least(scale: f16, zero_point: i8) -> f16 {
    f16::from_f32(-scale.to_f32() * (8.0 + f32::from(zero_point)))
}

/// The zero point, -8..=7, that gives a block this least value, if one does.
fn zero_point(scale: f16, stored: f16) -> Option<i8> {
    if scale.to_f32() == 0.0 {
        // All weights of the block are its least value.
        return (stored.to_f32() == 0.0).then_some(0);
    }
    let found = (-stored.to_f32() / scale.to_f32() - 8.0).round();
    let found = Some(found).filter(|it| (-8.0..=7.0).contains(it))? as i8;
    // Numbers are compared: the least value 0 has two signs.
    (least(scale, found) == stored).then_some(found)
}

/// A weight `[rows, columns]` from whole blocks of a [`grid_format`] with 32 to a group, where `row` gives the bytes of
/// each row. `None` where a block of `Q4_1` begins between the steps of its scale, as those that
/// other programs rounded do: it has no zero point.
pub(in crate::scheme) fn decode_rows<'a>(
    scheme: IntScheme,
    shape: [usize; 2],
    row: &dyn Fn(usize) -> &'a [u8],
) -> Option<QTensor> {
    let groups = shape[0] * scheme.groups(shape[1])?;
    let mut tensor = QTensor {
        scheme,
        shape,
        codes: Vec::with_capacity(shape[0] * shape[1]),
        scales: Vec::with_capacity(groups),
        zero_points: Vec::with_capacity(if scheme.symmetric { 0 } else { groups }),
    };
    let head = if scheme.symmetric { 2 } else { 4 };
    let length = head + BLOCK * scheme.bits as usize / 8;
    for block in (0..shape[0]).flat_map(|at| row(at).chunks_exact(length)) {
        let (head, quants) = block.split_at(head);
        let scale = f16::from_le_bytes([head[0], head[1]]);
        tensor.scales.push(scale.to_f32());
        if let [_, _, low, high] = head {
            tensor.zero_points.push(zero_point(scale, f16::from_le_bytes([*low, *high]))?);
        }
        if scheme.bits == 8 {
            tensor.codes.extend(quants.iter().map(|byte| byte.cast_signed()));
        } else {
            tensor.codes.extend(quants.iter().map(|byte| (byte & 15).cast_signed() - 8));
            tensor.codes.extend(quants.iter().map(|byte| (byte >> 4).cast_signed() - 8));
        }
    }
    Some(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::Granularity;
    use proptest::prelude::*;

    fn tensor(bits: u32, symmetric: bool, granularity: Granularity, seed: u8) -> QTensor {
        let scheme = IntScheme { bits, symmetric, granularity };
        let groups = scheme.groups(128).unwrap();
        let code = |i: usize| {
            let range = 1 << bits;
            (((i * 37 + usize::from(seed) * 11) % range) as i32 + scheme.min_code()) as i8
        };
        // Scales that float16 holds exactly, of both signs.
        let scale =
            |i: usize| (1.0 + i as f32 / 64.0) / if i.is_multiple_of(2) { 256.0 } else { -512.0 };
        QTensor {
            scheme,
            shape: [3, 128],
            codes: (0..3 * 128).map(code).collect(),
            scales: (0..3 * groups).map(scale).collect(),
            zero_points: if symmetric {
                vec![]
            } else {
                (0..3 * groups).map(|i| code(i * 5)).collect()
            },
        }
    }

    proptest! {
        #[test]
        fn blocks_hold_the_same_weights(
            eight in any::<bool>(), symmetric in any::<bool>(), channel in any::<bool>(),
            k in 1_usize..3, seed in any::<u8>(),
        ) {
            let granularity = if channel { Granularity::Channel } else { Granularity::Group(32 * k) };
            let symmetric = symmetric || eight;
            let tensor = tensor(if eight { 8 } else { 4 }, symmetric, granularity, seed);
            let format = grid_format(tensor.scheme, 128).unwrap();
            prop_assert_eq!(half_change(&tensor.scales), Some(HalfChange::default()));
            let mut rows = Vec::new();
            for row in 0..3 {
                let mut bytes = Vec::new();
                encode_row(&tensor, row, &mut bytes);
                prop_assert_eq!(Some(bytes.len()), format.bytes(128));
                let (mut got, mut want) = ([0.0; 128], [0.0; 128]);
                format.decode(&bytes, &mut got);
                tensor.dequantize_row(row, &mut want);
                for (got, want) in got.iter().zip(want) {
                    // With zero points d·q + m rounds twice, and m is a float16 of its own: half of
                    // 2^-10 of at most 16 steps, of which the largest is 1.2 / 256.
                    let bound = if symmetric { 0.0 } else { 16.0 * 1.2 / 256.0 / 2048.0 };
                    prop_assert!((got - want).abs() <= bound, "{got} {want}");
                }
                rows.push(bytes);
            }
            let grid = IntScheme { granularity: Granularity::Group(BLOCK), ..tensor.scheme };
            let back = decode_rows(grid, [3, 128], &|row| &rows[row]).unwrap();
            prop_assert_eq!(&back.codes, &tensor.codes);
            prop_assert_eq!(back.dequantize(), tensor.dequantize());
            if !symmetric {
                // The least value of the last block a last bit farther: no zero point gives that.
                let at = rows[2].len() - 18;
                rows[2][at] ^= 1;
                prop_assert!(decode_rows(grid, [3, 128], &|row| &rows[row]).is_none());
            }
        }
    }

    #[test]
    fn grids_without_blocks_are_told() {
        let grid = |bits, symmetric, granularity| {
            grid_format(IntScheme { bits, symmetric, granularity }, 96).map(BlockFormat::name)
        };
        assert_eq!(grid(4, true, Granularity::Group(32)), Some("Q4_0"));
        assert_eq!(grid(4, true, Granularity::Group(48)), None);
        assert_eq!(grid(8, false, Granularity::Channel), None);
        let row = IntScheme { bits: 4, symmetric: true, granularity: Granularity::Channel };
        assert!(grid_format(row, 100).is_none(), "no whole blocks in a row");
    }

    #[test]
    fn scales_beyond_float16_are_told() {
        assert_eq!(half_change(&[0.5, -0.25]), Some(HalfChange::default()));
        // 1/3 lies within half of the last of 11 bits.
        assert!(
            half_change(&[1.0 / 3.0]).is_some_and(|it| {
                it.tiny == 0 && it.largest > 0.0 && it.largest <= 1.0 / 2048.0
            })
        );
        assert_eq!(half_change(&[0.5, 1e-8, 2.7e-7]), Some(HalfChange { largest: 0.0, tiny: 2 }));
        for beyond in [1e5, 5000.0, f32::INFINITY, f32::NAN] {
            assert_eq!(half_change(&[0.5, beyond]), None, "{beyond}");
        }
    }
}
