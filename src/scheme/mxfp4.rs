//! MXFP4 of the OCP Microscaling Formats 1.0: 4-bit floats with a power of two per 32 inputs.
//!
//! As integers: doubled codes, 0 to 12 with a sign, in groups of 32 with half the scale. The
//! standard's scale is `2^(⌊log₂ max|x|⌋ − 2)`, which puts the largest magnitude between 4 and 8
//! steps of 1, and what lies beyond 6 on 6. [`Method::Mse`] keeps the first of least squared error
//! of that, its double and its half; [`Method::Absmax`] the least that clips nothing.
//! A group of zeros has scale 1.
//!
//! Stored by compressed-tensors 0.20 (`compressors/mxfp4`) as `mxfp4-pack-quantized`: codes
//! `[out, in / 2]`, the first of two in the low half of a byte, and bytes of E8M0 `[out, in / 32]`.
use super::{
    Activations, DecodeError, Granularity, IntScheme, QTensor, Qparams, ScaleError,
    WeightDecodeError,
    e2m1::{DOUBLED, code, exponent, floor_log2, half_scale, nearest},
    ggml::{self, BlockFormat},
    grid::{Described, Grid, Method, Rows, ScaleRule, Stored},
    groups::{self, Chooser, range, weighted_sum},
    pack::{Format, Part, PartKind},
};
use crate::tensor::{Dtype, FloatType};

/// Inputs that share a scale.
const GROUP: usize = 32;
/// Largest exponent of E8M0, and the least with its sign.
const MAX_EXPONENT: i32 = 127;

/// MXFP4. There is one such grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Mxfp4 {
    /// As manifests say it.
    #[serde(rename = "mxfp4")]
    Weights,
}

impl Grid for Mxfp4 {
    fn name(&self) -> &'static str {
        "mxfp4"
    }

    fn shown(&self) -> String {
        format!("mxfp4 g{GROUP}")
    }

    fn bits(&self) -> u32 {
        4
    }

    fn symmetric(&self) -> bool {
        true
    }

    fn granularity(&self) -> Granularity {
        Granularity::Group(GROUP)
    }

    fn with(&self, granularity: Granularity, symmetric: bool) -> Option<Self> {
        (symmetric && granularity == self.granularity()).then_some(*self)
    }

    fn integers(&self) -> IntScheme {
        IntScheme { bits: 8, symmetric: true, granularity: self.granularity() }
    }

    fn encode(&self, x: f32, q: Qparams) -> i8 {
        nearest(x / q.scale) as i8
    }

    /// The nearer of the powers of two around it.
    fn round_scale(&self, x: f32, _: FloatType) -> f32 {
        if !(x.is_finite() && x > 0.0) {
            return 0.0;
        }
        let down = floor_log2(x);
        let up = f64::from(x) >= 1.5 * f64::from(down).exp2();
        half_of(down + 1 + i32::from(up))
    }

    fn round(&self, values: &[f32], _: usize, rule: ScaleRule, rows: Rows<'_>) {
        groups::round(Shared(rule.method), values, GROUP, rows);
    }

    fn choose(
        &self,
        values: &[f32],
        weights: &[f32],
        rule: ScaleRule,
        parameters: (&mut [f32], &mut [i8]),
    ) {
        groups::choose(Shared(rule.method), values, (weights, GROUP), parameters);
    }

    fn format(&self, _: Activations) -> Format {
        Format::Mxfp4
    }

    fn described(&self) -> Described {
        Described { kind: "float", scale_dtype: Some("torch.uint8"), zero_point_dtype: None }
    }

    fn parts(&self, _: Stored, [out, columns]: [usize; 2]) -> Option<Vec<Part>> {
        let groups = self.integers().groups(columns)?;
        let bytes = |kind, suffix, width| Part::new(kind, suffix, Dtype::U8, vec![out, width]);
        Some(vec![
            bytes(PartKind::Codes, "weight_packed", columns / 2),
            bytes(PartKind::Scale, "weight_scale", groups),
        ])
    }

    fn encode_codes(&self, _: Stored, codes: &[i8], _: usize, out: &mut Vec<u8>) {
        let pairs = codes.as_chunks::<2>().0.iter();
        out.extend(pairs.map(|[low, high]| code(*low) | code(*high) << 4));
    }

    fn encode_scales(&self, _: Stored, scales: &[f32]) -> Vec<u8> {
        scales.iter().map(|half| exponent(*half).unwrap_or(u8::MAX)).collect()
    }

    fn encode_zero_points(&self, _: Stored, _: &[i8], _: usize) -> Vec<u8> {
        Vec::new()
    }

    fn check_scales(&self, bytes: &[u8], groups: usize) -> Result<(), ScaleError> {
        match bytes.iter().position(|byte| *byte == u8::MAX) {
            Some(at) => Err(ScaleError { row: at / groups.max(1), group: at % groups.max(1) }),
            None => Ok(()),
        }
    }

    fn decode<'a>(
        &self,
        stored: Stored,
        shape: [usize; 2],
        part: &dyn Fn(PartKind) -> &'a [u8],
    ) -> Result<QTensor, WeightDecodeError> {
        let uneven = DecodeError { part: "weight_scale", expected: 0, got: shape[1] };
        for expected in self.parts(stored, shape).ok_or(uneven)? {
            let got = part(expected.kind).len();
            if got != expected.bytes {
                let (part, expected) = (expected.suffix, expected.bytes);
                return Err(DecodeError { part, expected, got }.into());
            }
        }
        let scales = part(PartKind::Scale);
        self.check_scales(scales, shape[1] / GROUP)?;
        let codes = part(PartKind::Codes).iter().flat_map(|byte| [byte & 15, byte >> 4]);
        Ok(QTensor {
            scheme: self.integers(),
            shape,
            codes: codes.map(|code| DOUBLED[usize::from(code)]).collect(),
            scales: scales.iter().map(|byte| half_scale(*byte)).collect(),
            zero_points: Vec::new(),
        })
    }

    fn holds(&self, tensor: &QTensor) -> bool {
        tensor.scheme == self.integers()
            && tensor.codes.iter().all(|code| DOUBLED.contains(code))
            && tensor.scales.iter().all(|half| exponent(*half).is_some())
    }

    fn blocks(&self, columns: usize) -> Option<&'static dyn BlockFormat> {
        columns.is_multiple_of(GROUP).then_some(ggml::MXFP4)
    }

    fn encode_blocks(&self, tensor: &QTensor, row: usize, out: &mut Vec<u8>) {
        let columns = tensor.shape[1];
        let codes = tensor.codes[row * columns..(row + 1) * columns].as_chunks::<GROUP>().0;
        for (group, codes) in codes.iter().enumerate() {
            let scale = tensor.qparams(row, group).scale;
            ggml::encode_mxfp4(codes.map(code), exponent(scale).unwrap_or(u8::MAX), out);
        }
    }

    fn decode_blocks<'a>(
        &self,
        shape: [usize; 2],
        row: &dyn Fn(usize) -> &'a [u8],
    ) -> Option<QTensor> {
        let groups = self.integers().groups(shape[1])?;
        let mut tensor = QTensor {
            scheme: self.integers(),
            shape,
            codes: Vec::with_capacity(shape[0] * shape[1]),
            scales: Vec::with_capacity(shape[0] * groups),
            zero_points: Vec::new(),
        };
        for (codes, byte) in (0..shape[0]).flat_map(|at| ggml::decode_mxfp4(row(at))) {
            tensor.codes.extend(codes.map(|code| DOUBLED[usize::from(code)]));
            tensor.scales.push(Some(half_scale(byte)).filter(|it| it.is_finite())?);
        }
        Some(tensor)
    }
}

/// Half of the scale `2^power`, or of the nearest that E8M0 has.
#[inline(always)]
fn half_of(power: i32) -> f32 {
    half_scale((power.clamp(-MAX_EXPONENT, MAX_EXPONENT) + MAX_EXPONENT) as u8)
}

/// A search among the powers of two around the standard's.
#[derive(Clone, Copy)]
struct Shared(Method);

impl Chooser for Shared {
    #[inline(always)]
    fn choose(self, x: &[f32], weight: impl Fn(usize) -> f32 + Copy) -> Qparams {
        let (min, max) = range(x);
        let largest = max.max(-min);
        if largest <= 0.0 {
            return Qparams { scale: 0.5, zero_point: 0 };
        }
        let power = floor_log2(largest) - 2;
        let start = half_of(power);
        let clips = largest / start > 12.0;
        let scale = match self.0 {
            Method::Minmax => start,
            Method::Absmax => half_of(power + i32::from(clips)),
            Method::Mse | Method::MsePositive => {
                let mut best = (start, error(x, start, weight));
                for other in [half_of(power + 1), half_of(power - 1)] {
                    let found = error(x, other, weight);
                    if found < best.1 {
                        best = (other, found);
                    }
                }
                best.0
            }
        };
        Qparams { scale, zero_point: 0 }
    }

    #[inline(always)]
    fn codes(self, x: &[f32], q: Qparams, codes: &mut [i8]) {
        for (code, x) in codes.iter_mut().zip(x) {
            *code = nearest(x / q.scale) as i8;
        }
    }
}

/// Squared error of a group with a scale, each square times the weight of its place.
#[inline(always)]
fn error(x: &[f32], half: f32, weight: impl Fn(usize) -> f32) -> f32 {
    weighted_sum(
        x,
        #[inline(always)]
        |x| {
            let error = x - nearest(x / half) * half;
            error * error
        },
        weight,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::WeightGrid;
    use proptest::prelude::*;

    const GRID: Mxfp4 = Mxfp4::Weights;
    const STORED: Stored = Stored { format: Format::Mxfp4, scale_type: FloatType::F32 };

    fn rounded(values: &[f32], method: Method) -> QTensor {
        let shape = [1, values.len()];
        let mut tensor = QTensor {
            scheme: GRID.integers(),
            shape,
            codes: vec![0; values.len()],
            scales: vec![0.0; values.len() / GROUP],
            zero_points: vec![],
        };
        let (codes, scales) = (&mut tensor.codes, &mut tensor.scales);
        let rule = ScaleRule { method, scale_type: FloatType::F32 };
        let rows = Rows { codes, scales, zero_points: &mut [] };
        GRID.round(values, shape[1], rule, rows);
        tensor
    }

    fn parts(tensor: &QTensor) -> [Vec<u8>; 2] {
        let mut codes = Vec::new();
        GRID.encode_codes(STORED, &tensor.codes, tensor.shape[1], &mut codes);
        [codes, GRID.encode_scales(STORED, &tensor.scales)]
    }

    fn read(shape: [usize; 2], parts: &[Vec<u8>; 2]) -> Result<QTensor, WeightDecodeError> {
        let part = |kind| &parts[usize::from(kind == PartKind::Scale)][..];
        GRID.decode(STORED, shape, &part)
    }

    /// By hand: the largest magnitude 5.5 gives the standard's scale 2^(2 − 2) = 1.
    #[test]
    fn a_hand_computed_block() {
        let mut x = [0.0_f32; 32];
        x[..8].copy_from_slice(&[5.5, -5.0, 0.25, 0.75, -1.75, 2.6, 3.4, -0.5]);
        x[31] = 6.0;
        let tensor = rounded(&x, Method::Minmax);
        let values = tensor.dequantize();
        assert_eq!(values[..8], [6.0, -4.0, 0.0, 1.0, -2.0, 3.0, 3.0, -0.5]);
        let [codes, scales] = parts(&tensor);
        assert_eq!(scales, [127], "E8M0 of 1");
        // 6 is code 7, −4 is 8 + 6; 0 and 1 are 0 and 2; −2 is 8 + 4, 3 is 5; 3 is 5, −0.5 is 8 + 1.
        assert_eq!(codes[..4], [0xe7, 0x20, 0x5c, 0x95]);
        assert_eq!((codes.len(), codes[15]), (16, 0x70), "the last code in the high half");
        let mut block = Vec::new();
        GRID.encode_blocks(&tensor, 0, &mut block);
        // ggml: weights 0 to 15 in low halves, 16 to 31 in high ones.
        assert_eq!(block[..9], [127, 7, 14, 0, 2, 12, 5, 5, 9]);
        assert_eq!(block[16], 0x70);
        let mut decoded = [0.0; 32];
        GRID.blocks(32).unwrap().decode(&block, &mut decoded);
        assert_eq!(decoded.as_slice(), values);
    }

    /// 7 lies beyond 6 steps of the standard's scale 1: absmax takes 2, minmax clips. With all others
    /// on the fine grid, clipping costs less.
    #[test]
    fn methods_choose_among_powers_of_two() {
        let mut x = [0.5_f32; 32];
        x[0] = 7.0;
        let byte = |method| exponent(rounded(&x, method).scales[0]).unwrap();
        assert_eq!([Method::Minmax, Method::Absmax, Method::Mse].map(byte), [127, 128, 127]);
        let far = [7.9_f32; 32];
        let values = rounded(&far, Method::Mse).dequantize();
        assert_eq!(values, [8.0; 32], "clipping would cost 1.9 each");
        for tiny in [0.0, 1e-45, 1e-39, f32::MAX] {
            let tensor = rounded(&[tiny; 32], Method::Mse);
            assert!(GRID.holds(&tensor) && tensor.dequantize()[0].is_finite(), "{tiny}");
        }
        assert_eq!(rounded(&[0.0; 32], Method::Mse).scales, [0.5], "zeros have scale 1");
    }

    #[test]
    fn scales_move_to_the_nearer_power_of_two() {
        // Half a scale of 1 is 2^-1, the byte 128.
        let near = [(1.0, 128), (1.49, 128), (1.5, 129), (0.7, 127), (f32::MAX, 254), (1e-45, 0)];
        for (x, byte) in near {
            assert_eq!(exponent(GRID.round_scale(x, FloatType::F16)), Some(byte), "{x}");
        }
        for none in [-1.0, 0.0, f32::NAN, f32::INFINITY] {
            assert_eq!(exponent(GRID.round_scale(none, FloatType::F16)), None, "{none}");
        }
    }

    #[test]
    fn what_is_not_on_the_grid_is_told() {
        let tensor = rounded(&[1.0; 64], Method::Mse);
        assert!(GRID.holds(&tensor));
        let other = |change: fn(&mut QTensor)| {
            let mut tensor = tensor.clone();
            change(&mut tensor);
            GRID.holds(&tensor)
        };
        assert!(!other(|it| it.codes[3] = 5) && !other(|it| it.codes[3] = 7));
        assert!(!other(|it| it.scales[1] = 0.75) && !other(|it| it.scales[1] = -1.0));
        let mut stored = parts(&tensor);
        stored[1][1] = 255;
        let error = read([1, 64], &stored).unwrap_err();
        assert_eq!(error, ScaleError { row: 0, group: 1 }.into());
        stored[1].push(0);
        assert!(matches!(read([1, 64], &stored), Err(WeightDecodeError::Part(_))));
        for (group, symmetric) in [(64, true), (16, true), (32, false)] {
            let grid = WeightGrid::MXFP4.with(Granularity::Group(group), symmetric);
            assert_eq!(grid, None, "{group} {symmetric}");
        }
    }

    proptest! {
        /// Codes are the nearest there are, down to the least numbers of float32.
        #[test]
        fn codes_are_the_nearest(
            x in prop::collection::vec(-1e3_f32..1e3, 96), small in -140_i32..20, mse in any::<bool>(),
        ) {
            let x: Vec<f32> = x.iter().map(|x| x * (small as f32).exp2()).collect();
            let tensor = rounded(&x, if mse { Method::Mse } else { Method::Minmax });
            prop_assert_eq!(&read([1, 96], &parts(&tensor)).unwrap(), &tensor);
            for (at, (x, code)) in x.iter().zip(&tensor.codes).enumerate() {
                let q = tensor.qparams(0, at / GROUP);
                let distance = |code: i8| (f64::from(*x) - f64::from(q.value(code))).abs();
                let least = DOUBLED.iter().map(|it| distance(*it)).fold(f64::INFINITY, f64::min);
                prop_assert!(distance(*code) <= least);
                prop_assert_eq!(GRID.encode(*x, q), *code);
            }
            // What is on the grid stays: codes, scales and all that they stand for.
            let again = rounded(&tensor.dequantize(), Method::Mse);
            prop_assert_eq!(again.dequantize(), tensor.dequantize());
        }
    }
}
