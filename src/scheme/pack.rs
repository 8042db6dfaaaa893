//! Bytes of integer weights as compressed-tensors stores them.
//!
//! Packed codes are offset to unsigned and lie in little-endian 32-bit words along the inputs: of
//! int4 element `8k + j` in bits `4j`, of int8 element `4k + j` in bits `8j`. Zero points are packed
//! the same way down the rows. Otherwise both are signed bytes. Source: compressed-tensors 0.19,
//! `compressors/pack_quantized`, `quantized_compressors`.
use super::{DecodeError, IntScheme, QTensor};
use crate::tensor::FloatType;
use safetensors::Dtype;

/// What one tensor of an encoded weight holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKind {
    /// Codes.
    Codes,
    /// Scales `[out, groups]`.
    Scale,
    /// Zero points.
    ZeroPoint,
    /// `[out, in]` as two 64-bit integers.
    Shape,
    /// The scale of static activations, `[1]`.
    InputScale,
    /// Codes of outlier columns, see `TensorScheme::parts`.
    OutlierCodes,
    /// Scales of outlier columns, `[out, 1]`.
    OutlierScale,
    /// Places of outlier columns, `[k]`.
    OutlierColumns,
}

/// One tensor of an encoded weight: where it goes and how large it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it holds.
    pub kind: PartKind,
    /// Suffix after the module's path, e.g. `weight_packed`.
    pub suffix: &'static str,
    /// Element type on disk.
    pub dtype: Dtype,
    /// Shape on disk.
    pub shape: Vec<usize>,
    /// Size in bytes.
    pub bytes: usize,
}

impl Part {
    /// A part of `shape` with elements of one type.
    pub(super) fn new(
        kind: PartKind,
        suffix: &'static str,
        dtype: Dtype,
        shape: Vec<usize>,
    ) -> Self {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        Self { kind, suffix, dtype, shape, bytes }
    }
}

/// How codes lie in a file, by the name of the `format` of compressed-tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Words of 32 bits, `weight_packed`.
    #[default]
    PackQuantized,
    /// Signed bytes, `weight`; of int8 only.
    IntQuantized,
    /// Two 4-bit floats a byte, `weight_packed`, with powers of two.
    Mxfp4,
}

impl Format {
    /// `format` in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::PackQuantized => "pack-quantized",
            Self::IntQuantized => "int-quantized",
            Self::Mxfp4 => "mxfp4-pack-quantized",
        }
    }
}

/// Everything that decides about the bytes of a weight on integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The grid.
    pub(super) scheme: IntScheme,
    /// How codes and zero points lie.
    pub(super) format: Format,
    /// Type of the stored scales.
    pub(super) scale_type: FloatType,
}

impl Layout {
    fn packed(self) -> bool {
        self.format == Format::PackQuantized
    }

    /// Codes to a word.
    fn per_word(self) -> usize {
        (32 / self.scheme.bits.max(1)) as usize
    }

    /// The tensors that a weight of `shape` (`[out, in]`) becomes. `None` when the group size does
    /// not divide the columns.
    pub(super) fn parts(self, shape: [usize; 2]) -> Option<Vec<Part>> {
        let ([out, columns], groups) = (shape, self.scheme.groups(shape[1])?);
        let (packed, per_word) = (self.packed(), self.per_word());
        let mut parts = vec![
            if packed {
                let shape = vec![out, columns.div_ceil(per_word)];
                Part::new(PartKind::Codes, "weight_packed", Dtype::I32, shape)
            } else {
                Part::new(PartKind::Codes, "weight", Dtype::I8, vec![out, columns])
            },
            Part::new(PartKind::Scale, "weight_scale", self.scale_type.dtype(), vec![out, groups]),
        ];
        if packed {
            parts.push(Part::new(PartKind::Shape, "weight_shape", Dtype::I64, vec![2]));
        }
        if !self.scheme.symmetric {
            let (dtype, rows) =
                if packed { (Dtype::I32, out.div_ceil(per_word)) } else { (Dtype::I8, out) };
            parts.push(Part::new(
                PartKind::ZeroPoint,
                "weight_zero_point",
                dtype,
                vec![rows, groups],
            ));
        }
        Some(parts)
    }

    /// Appends the bytes of whole rows of codes, `columns` to a row.
    pub(super) fn encode_codes(self, codes: &[i8], columns: usize, out: &mut Vec<u8>) {
        if !self.packed() {
            out.extend(codes.iter().map(|c| *c as u8));
            return;
        }
        for row in codes.chunks(columns.max(1)) {
            let start = out.len();
            if self.scheme.bits == 4 {
                let (pairs, tail) = row.as_chunks::<2>();
                out.extend(pairs.iter().map(|[low, high]| nibble(*low) | nibble(*high) << 4));
                out.extend(tail.iter().map(|last| nibble(*last)));
            } else {
                out.extend(row.iter().map(|code| offset_byte(*code)));
            }
            // A word that the row does not fill is completed with zero bits.
            let written = out.len() - start;
            out.resize(start + written.next_multiple_of(4), 0);
        }
    }

    /// The bytes of all zero points, `[out, groups]` row-major.
    pub(super) fn encode_zero_points(self, zero_points: &[i8], groups: usize) -> Vec<u8> {
        if !self.packed() {
            return zero_points.iter().map(|z| *z as u8).collect();
        }
        let bits = self.scheme.bits as usize;
        let code = |z: i8| if bits == 4 { nibble(z) } else { offset_byte(z) };
        let mut bytes = Vec::new();
        for rows in zero_points.chunks(groups.max(1) * self.per_word()) {
            for group in 0..groups {
                let word = rows
                    .iter()
                    .skip(group)
                    .step_by(groups)
                    .enumerate()
                    .fold(0_u32, |word, (j, z)| word | u32::from(code(*z)) << (bits * j));
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes
    }

    /// The weight that its parts describe; `part` gives the bytes of a part by kind.
    pub(super) fn decode<'a>(
        self,
        shape: [usize; 2],
        part: impl Fn(PartKind) -> &'a [u8],
    ) -> Result<QTensor, DecodeError> {
        let scheme = self.scheme;
        let uneven = DecodeError { part: "weight_scale", expected: 0, got: shape[1] };
        let groups = scheme.groups(shape[1]).ok_or(uneven)?;
        for expected in self.parts(shape).unwrap_or_default() {
            let got = part(expected.kind).len();
            if got != expected.bytes {
                return Err(DecodeError { part: expected.suffix, expected: expected.bytes, got });
            }
        }
        let [out, columns] = shape;
        let mut scales = vec![0.0; out * groups];
        self.scale_type.decode(part(PartKind::Scale), &mut scales);
        let zero_points = if scheme.symmetric {
            Vec::new()
        } else {
            self.decode_zero_points(part(PartKind::ZeroPoint), out, groups)
        };
        let (bytes, mut codes) = (part(PartKind::Codes), vec![0; out * columns]);
        for (row, codes) in codes.chunks_mut(columns.max(1)).enumerate() {
            self.decode_row(bytes, row, codes);
        }
        Ok(QTensor { scheme, shape, codes, scales, zero_points })
    }

    /// The codes of one row from the bytes of all codes.
    fn decode_row(self, bytes: &[u8], row: usize, codes: &mut [i8]) {
        let stride = match self.format {
            Format::IntQuantized | Format::Mxfp4 => codes.len(),
            Format::PackQuantized => codes.len().div_ceil(self.per_word()) * 4,
        };
        let bytes = &bytes[row * stride..];
        if self.packed() && self.scheme.bits == 4 {
            for (pair, byte) in codes.chunks_mut(2).zip(bytes) {
                for (code, nibble) in pair.iter_mut().zip([byte & 15, byte >> 4]) {
                    *code = nibble as i8 - 8;
                }
            }
            return;
        }
        let offset = if self.packed() { 0x80 } else { 0 };
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code = (byte ^ offset) as i8;
        }
    }

    /// All zero points, `[out, groups]`, from their bytes: a row of words holds some rows of them.
    fn decode_zero_points(self, bytes: &[u8], out: usize, groups: usize) -> Vec<i8> {
        if !self.packed() {
            return bytes.iter().map(|z| *z as i8).collect();
        }
        let mut zero_points = vec![0; out * groups];
        let rows = zero_points.chunks_mut((groups * self.per_word()).max(1));
        for (rows, words) in rows.zip(bytes.chunks((groups * 4).max(1))) {
            for (place, row) in rows.chunks_mut(groups.max(1)).enumerate() {
                for (zero_point, word) in row.iter_mut().zip(words.as_chunks::<4>().0) {
                    *zero_point = match self.scheme.bits {
                        4 => (word[place / 2] >> (4 * (place % 2)) & 15) as i8 - 8,
                        _ => (word[place] ^ 0x80) as i8,
                    };
                }
            }
        }
        zero_points
    }
}

/// A code in -8..=7 as the low four bits of its offset form.
fn nibble(code: i8) -> u8 {
    (code + 8) as u8 & 15
}

/// A code in -128..=127 in its offset form.
fn offset_byte(code: i8) -> u8 {
    code as u8 ^ 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::Granularity;
    use proptest::prelude::*;

    const INT4: Layout = Layout {
        scheme: IntScheme { bits: 4, symmetric: true, granularity: Granularity::Channel },
        format: Format::PackQuantized,
        scale_type: FloatType::F32,
    };

    #[test]
    fn int4_words_equal_the_published_check_vectors() {
        let word = |codes: [i8; 8]| {
            let mut bytes = Vec::new();
            INT4.encode_codes(&codes, 8, &mut bytes);
            i32::from_le_bytes(bytes.try_into().unwrap())
        };
        assert_eq!(word([1, 2, 3, 4, 5, 6, 7, 0]), -1_880_241_239);
        assert_eq!(word([-1, -2, -3, -4, -5, -6, -7, -8]), 0x0123_4567);
    }

    #[test]
    fn zero_points_are_packed_down_the_rows() {
        let scheme = IntScheme { symmetric: false, ..INT4.scheme };
        let asym = Layout { scheme, ..INT4 };
        // Two groups; column 0 holds 1..=8 down the rows, column 1 holds -8.
        let zero_points: Vec<i8> = [1, 2, 3, 4, 5, 6, 7, 0].iter().flat_map(|z| [*z, -8]).collect();
        let bytes = asym.encode_zero_points(&zero_points, 2);
        assert_eq!(bytes[..4], (-1_880_241_239_i32).to_le_bytes());
        assert_eq!(bytes[4..], [0; 4]);
    }

    #[test]
    fn int8_words_hold_four_codes_offset_by_128() {
        let scheme = IntScheme { bits: 8, symmetric: false, ..INT4.scheme };
        let int8 = Layout { scheme, ..INT4 };
        let mut bytes = Vec::new();
        int8.encode_codes(&[-128, -1, 0, 127, 1], 5, &mut bytes);
        assert_eq!(bytes, [0, 127, 128, 255, 129, 0, 0, 0], "two words, the second filled up");
        // Three rows of two groups: one word of rows for each group.
        let bytes = int8.encode_zero_points(&[1, -128, 2, -127, 3, -126], 2);
        assert_eq!(bytes, [129, 130, 131, 0, 0, 1, 2, 0]);
        let shapes: Vec<_> = int8.parts([3, 5]).unwrap().into_iter().map(|it| it.shape).collect();
        assert_eq!(shapes, [vec![3, 2], vec![3, 1], vec![2], vec![1, 1]]);
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(
            out in 1_usize..20, groups in 1_usize..4, form in 0_usize..3,
            symmetric in any::<bool>(), seed in any::<u64>(),
        ) {
            let group = 8;
            let (bits, format) = [
                (4, Format::PackQuantized), (8, Format::PackQuantized), (8, Format::IntQuantized),
            ][form];
            let scheme = IntScheme { bits, symmetric, granularity: Granularity::Group(group) };
            let shape = [out, groups * group];
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ((state >> 33) as i32 % (scheme.max_code() + 1)) as i8
            };
            let codes = (0..shape[0] * shape[1]).map(|_| next() - (next() & 1)).collect();
            let zero_points =
                if symmetric { vec![] } else { (0..out * groups).map(|_| next()).collect() };
            let scales = (0..out * groups).map(|_| f32::from(next()) + 0.5).collect();
            let tensor = QTensor { scheme, shape, codes, scales, zero_points };

            let layout = Layout { scheme, format, scale_type: FloatType::F32 };
            let encoded: Vec<_> = layout.parts(shape).unwrap().into_iter().map(|part| {
                let mut bytes = Vec::new();
                match part.kind {
                    PartKind::Codes => layout.encode_codes(&tensor.codes, shape[1], &mut bytes),
                    PartKind::Scale => layout.scale_type.encode(&tensor.scales, &mut bytes),
                    PartKind::ZeroPoint => {
                        bytes = layout.encode_zero_points(&tensor.zero_points, groups);
                    }
                    _ => bytes.extend(shape.iter().flat_map(|n| (*n as i64).to_le_bytes())),
                }
                (part, bytes)
            }).collect();
            for (part, bytes) in &encoded {
                prop_assert_eq!(part.bytes, bytes.len());
            }
            let part = |kind| {
                let found = encoded.iter().find(|(part, _)| part.kind == kind);
                found.map_or(&[][..], |(_, bytes)| bytes)
            };
            prop_assert_eq!(layout.decode(shape, part).unwrap(), tensor);
        }
    }

    #[test]
    fn short_input_is_an_error_that_names_the_part() {
        let error = INT4.decode([4, 64], |_| &[]).unwrap_err();
        assert_eq!(error, DecodeError { part: "weight_packed", expected: 128, got: 0 });
    }
}
