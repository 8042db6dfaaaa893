//! Bytes of integer weights as compressed-tensors stores them.
//!
//! int4 codes are offset to unsigned, eight to a little-endian 32-bit word along the inputs,
//! element `8k + j` in bits `4j`; int8 codes are bytes. Zero points are packed the same way down
//! the rows. Source: compressed-tensors 0.19, `compressors/pack_quantized`, `quantized_compressors`.
use super::{IntScheme, QTensor};
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

/// The bytes do not describe a weight of the expected shape.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("part `{part}`: expected {expected} bytes, got {got}")]
pub struct DecodeError {
    /// Offending part.
    pub part: &'static str,
    /// Bytes that the shape needs.
    pub expected: usize,
    /// Bytes found.
    pub got: usize,
}

const PER_WORD: usize = 8;

impl IntScheme {
    /// The tensors that a weight of `shape` (`[out, in]`) becomes. `scale_type` is the type of the
    /// scales. `None` when the group size does not divide the columns.
    pub fn parts(self, shape: [usize; 2], scale_type: FloatType) -> Option<Vec<Part>> {
        let ([out, columns], groups) = (shape, self.groups(shape[1])?);
        let part = |kind, suffix, dtype: Dtype, shape: Vec<usize>| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            Part { kind, suffix, dtype, shape, bytes }
        };
        let mut parts = vec![
            match self.bits {
                4 => part(
                    PartKind::Codes,
                    "weight_packed",
                    Dtype::I32,
                    vec![out, columns.div_ceil(PER_WORD)],
                ),
                _ => part(PartKind::Codes, "weight", Dtype::I8, vec![out, columns]),
            },
            part(PartKind::Scale, "weight_scale", scale_type.dtype(), vec![out, groups]),
        ];
        if self.bits == 4 {
            parts.push(part(PartKind::Shape, "weight_shape", Dtype::I64, vec![2]));
        }
        if !self.symmetric {
            parts.push(match self.bits {
                4 => part(
                    PartKind::ZeroPoint,
                    "weight_zero_point",
                    Dtype::I32,
                    vec![out.div_ceil(PER_WORD), groups],
                ),
                _ => part(PartKind::ZeroPoint, "weight_zero_point", Dtype::I8, vec![out, groups]),
            });
        }
        Some(parts)
    }

    /// Appends the bytes of whole rows of codes, `columns` to a row.
    pub fn encode_codes(self, codes: &[i8], columns: usize, out: &mut Vec<u8>) {
        if self.bits == 8 {
            out.extend(codes.iter().map(|c| *c as u8));
            return;
        }
        for row in codes.chunks(columns.max(1)) {
            let (pairs, tail) = row.as_chunks::<2>();
            out.extend(pairs.iter().map(|[low, high]| nibble(*low) | nibble(*high) << 4));
            out.extend(tail.iter().map(|last| nibble(*last)));
            // A word that the row does not fill is completed with zero bits.
            let written = row.len().div_ceil(2);
            out.resize(out.len() + (written.next_multiple_of(4) - written), 0);
        }
    }

    /// The bytes of all zero points, `[out, groups]` row-major.
    pub fn encode_zero_points(self, zero_points: &[i8], groups: usize) -> Vec<u8> {
        if self.bits == 8 {
            return zero_points.iter().map(|z| *z as u8).collect();
        }
        let mut bytes = Vec::new();
        for rows in zero_points.chunks(groups.max(1) * PER_WORD) {
            for group in 0..groups {
                let word = rows
                    .iter()
                    .skip(group)
                    .step_by(groups)
                    .enumerate()
                    .fold(0_u32, |word, (j, z)| word | u32::from(nibble(*z)) << (4 * j));
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes
    }

    /// The bytes of each part of a weight on this grid, in the order of [`parts`](Self::parts);
    /// none when the group size does not divide the columns.
    pub fn encode(self, tensor: &QTensor, scale_type: FloatType) -> Vec<(Part, Vec<u8>)> {
        let [_, columns] = tensor.shape;
        let groups = self.groups(columns).unwrap_or(1);
        let parts = self.parts(tensor.shape, scale_type).unwrap_or_default();
        let bytes = |part: &Part| {
            let mut bytes = Vec::with_capacity(part.bytes);
            match part.kind {
                PartKind::Codes => self.encode_codes(&tensor.codes, columns, &mut bytes),
                PartKind::Scale => scale_type.encode(&tensor.scales, &mut bytes),
                PartKind::ZeroPoint => {
                    bytes = self.encode_zero_points(&tensor.zero_points, groups);
                }
                PartKind::Shape => {
                    bytes.extend(tensor.shape.iter().flat_map(|n| (*n as i64).to_le_bytes()));
                }
                PartKind::InputScale
                | PartKind::OutlierCodes
                | PartKind::OutlierScale
                | PartKind::OutlierColumns => {}
            }
            bytes
        };
        parts.into_iter().map(|part| (part.clone(), bytes(&part))).collect()
    }

    /// The weight that its parts describe; `part` gives the bytes of a part by kind.
    pub fn decode<'a>(
        self,
        shape: [usize; 2],
        scale_type: FloatType,
        part: impl Fn(PartKind) -> &'a [u8],
    ) -> Result<QTensor, DecodeError> {
        let uneven = DecodeError { part: "weight_scale", expected: 0, got: shape[1] };
        let groups = self.groups(shape[1]).ok_or(uneven)?;
        for expected in self.parts(shape, scale_type).unwrap_or_default() {
            let got = part(expected.kind).len();
            if got != expected.bytes {
                return Err(DecodeError { part: expected.suffix, expected: expected.bytes, got });
            }
        }
        let [out, columns] = shape;
        let mut scales = vec![0.0; out * groups];
        scale_type.decode(part(PartKind::Scale), &mut scales);
        let zero_points = match (self.symmetric, self.bits) {
            (true, _) => Vec::new(),
            (false, 4) => (0..out * groups)
                .map(|i| code_at(part(PartKind::ZeroPoint), i % groups, i / groups, groups))
                .collect(),
            (false, _) => part(PartKind::ZeroPoint).iter().map(|z| *z as i8).collect(),
        };
        let mut codes = vec![0; out * columns];
        for (row, codes) in codes.chunks_mut(columns.max(1)).enumerate() {
            self.decode_row(part(PartKind::Codes), row, codes);
        }
        Ok(QTensor { scheme: self, shape, codes, scales, zero_points })
    }

    /// The codes of one row from the bytes of all codes.
    fn decode_row(self, bytes: &[u8], row: usize, codes: &mut [i8]) {
        if self.bits == 8 {
            let start = row * codes.len();
            for (code, byte) in codes.iter_mut().zip(&bytes[start..]) {
                *code = *byte as i8;
            }
            return;
        }
        let stride = codes.len().div_ceil(PER_WORD) * 4;
        for (pair, byte) in codes.chunks_mut(2).zip(&bytes[row * stride..]) {
            for (code, nibble) in pair.iter_mut().zip([byte & 15, byte >> 4]) {
                *code = nibble as i8 - 8;
            }
        }
    }
}

/// A code in -8..=7 as the low four bits of its offset form.
fn nibble(code: i8) -> u8 {
    (code + 8) as u8 & 15
}

/// The int4 code of `row` in word column `column`, words stored `[rows / 8, columns]`.
fn code_at(words: &[u8], column: usize, row: usize, columns: usize) -> i8 {
    let byte = words[(row / PER_WORD * columns + column) * 4 + row % PER_WORD / 2];
    ((byte >> (4 * (row % 2))) & 15) as i8 - 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::Granularity;
    use proptest::prelude::*;

    const INT4: IntScheme =
        IntScheme { bits: 4, symmetric: true, granularity: Granularity::Channel };

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
        let asym = IntScheme { symmetric: false, ..INT4 };
        // Two groups; column 0 holds 1..=8 down the rows, column 1 holds -8.
        let zero_points: Vec<i8> = [1, 2, 3, 4, 5, 6, 7, 0].iter().flat_map(|z| [*z, -8]).collect();
        let bytes = asym.encode_zero_points(&zero_points, 2);
        assert_eq!(bytes[..4], (-1_880_241_239_i32).to_le_bytes());
        assert_eq!(bytes[4..], [0; 4]);
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(
            out in 1_usize..20, groups in 1_usize..4, eight in any::<bool>(),
            symmetric in any::<bool>(), seed in any::<u64>(),
        ) {
            let (bits, group) = (if eight { 8 } else { 4 }, 8);
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

            let mut bytes = [const { Vec::new() }; 4];
            scheme.encode_codes(&tensor.codes, shape[1], &mut bytes[0]);
            FloatType::F32.encode(&tensor.scales, &mut bytes[1]);
            bytes[2] = scheme.encode_zero_points(&tensor.zero_points, groups);
            bytes[3] = vec![0; 16];
            let part = |kind| match kind {
                PartKind::Codes => &*bytes[0],
                PartKind::Scale => &*bytes[1],
                PartKind::ZeroPoint => &*bytes[2],
                _ => &*bytes[3],
            };
            prop_assert_eq!(scheme.decode(shape, FloatType::F32, part).unwrap(), tensor);
            let declared: usize =
                scheme.parts(shape, FloatType::F32).unwrap().iter().map(|p| p.bytes).sum();
            let real: usize = bytes[..3].iter().map(Vec::len).sum();
            prop_assert_eq!(declared, real + if eight { 0 } else { 16 });
        }
    }

    #[test]
    fn short_input_is_an_error_that_names_the_part() {
        let error = INT4.decode([4, 64], FloatType::F32, |_| &[]).unwrap_err();
        assert_eq!(error, DecodeError { part: "weight_packed", expected: 128, got: 0 });
    }
}
