//! Integers as a grid: how their scales are chosen, and where else they are stored.
//!
//! Symmetric grids are used in full: the largest magnitude of a group lands on the lowest code
//! (-8 or -128), which exists on one side only, so the scale takes the sign that puts it there:
//! `scale = extreme / lowest code`. A negative scale is a mirrored grid (llama.cpp's `Q4_0` does
//! the same). Asymmetric grids cover `[min(0, x), max(0, x)]`, so that 0 is exact:
//! `scale = (max - min) / 15`, `zero point = round(-8 - min / scale)` (and 255, -128).
//! Scales are rounded to their stored type before codes are chosen. A group of zeros, or one so
//! small that its scale would round to 0, has scale 1.
//!
//! [`Method::Mse`] tries multiples of that scale (of both signs for int4) and keeps the first of
//! least squared error; the min-max scale is among them. [`Method::MsePositive`] tries their sizes, and the scale that
//! puts the largest magnitude on the highest code. Sums are float32 in 16 lanes.
use super::{
    Activations, Granularity, IntScheme, QTensor, Qparams, WeightDecodeError,
    ggml::{BlockFormat, decode_rows, encode_row, grid_format},
    grid::{Described, Grid, Method, Rows, ScaleRule, Stored},
    groups::{self, Chooser, range, weighted_sum},
    pack::{Format, Layout, Part, PartKind},
};
use crate::tensor::{FloatType, round_to};

/// 1.5 · 2^23: adding it to a small number leaves the nearest integer, ties to even, in the low
/// bits of the sum.
const ROUND: f32 = 12_582_912.0;

impl Grid for IntScheme {
    fn name(&self) -> &'static str {
        match self.bits {
            4 => "int4",
            8 => "int8",
            _ => "int",
        }
    }

    fn shown(&self) -> String {
        self.to_string()
    }

    fn bits(&self) -> u32 {
        self.bits
    }

    fn symmetric(&self) -> bool {
        self.symmetric
    }

    fn granularity(&self) -> Granularity {
        self.granularity
    }

    fn with(&self, granularity: Granularity, symmetric: bool) -> Option<Self> {
        Some(Self { symmetric, granularity, ..*self })
    }

    fn integers(&self) -> IntScheme {
        *self
    }

    fn encode(&self, x: f32, q: Qparams) -> i8 {
        self.quantize(x, q)
    }

    fn round_scale(&self, x: f32, stored: FloatType) -> f32 {
        round_to(stored, x)
    }

    fn round(&self, values: &[f32], columns: usize, rule: ScaleRule, rows: Rows<'_>) {
        let size = self.group_size(columns).max(1);
        groups::round(Searched { scheme: *self, rule }, values, size, rows);
    }

    fn choose(
        &self,
        values: &[f32],
        weights: &[f32],
        rule: ScaleRule,
        parameters: (&mut [f32], &mut [i8]),
    ) {
        let size = self.group_size(weights.len()).max(1);
        groups::choose(Searched { scheme: *self, rule }, values, (weights, size), parameters);
    }

    /// The standard's choice: packed, unless the product takes integers on both sides.
    fn format(&self, activations: Activations) -> Format {
        match activations {
            Activations::Int8PerToken | Activations::Int8Static if self.bits == 8 => {
                Format::IntQuantized
            }
            _ => Format::PackQuantized,
        }
    }

    fn described(&self) -> Described {
        let zero_point_dtype = (!self.symmetric).then_some("torch.int8");
        Described { kind: "int", scale_dtype: None, zero_point_dtype }
    }

    fn parts(&self, stored: Stored, shape: [usize; 2]) -> Option<Vec<Part>> {
        self.layout(stored).parts(shape)
    }

    fn encode_codes(&self, stored: Stored, codes: &[i8], columns: usize, out: &mut Vec<u8>) {
        self.layout(stored).encode_codes(codes, columns, out);
    }

    fn encode_scales(&self, stored: Stored, scales: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        stored.scale_type.encode(scales, &mut bytes);
        bytes
    }

    fn encode_zero_points(&self, stored: Stored, zero_points: &[i8], groups: usize) -> Vec<u8> {
        self.layout(stored).encode_zero_points(zero_points, groups)
    }

    fn decode<'a>(
        &self,
        stored: Stored,
        shape: [usize; 2],
        part: &dyn Fn(PartKind) -> &'a [u8],
    ) -> Result<QTensor, WeightDecodeError> {
        Ok(self.layout(stored).decode(shape, part)?)
    }

    fn holds(&self, tensor: &QTensor) -> bool {
        let range = self.min_code()..=self.max_code();
        let mut codes = tensor.codes.iter().chain(&tensor.zero_points);
        tensor.scheme == *self && codes.all(|code| range.contains(&i32::from(*code)))
    }

    fn blocks(&self, columns: usize) -> Option<&'static dyn BlockFormat> {
        grid_format(*self, columns)
    }

    fn encode_blocks(&self, tensor: &QTensor, row: usize, out: &mut Vec<u8>) {
        encode_row(tensor, row, out);
    }

    fn decode_blocks<'a>(
        &self,
        shape: [usize; 2],
        row: &dyn Fn(usize) -> &'a [u8],
    ) -> Option<QTensor> {
        decode_rows(*self, shape, row)
    }
}

impl IntScheme {
    fn layout(self, Stored { format, scale_type }: Stored) -> Layout {
        Layout { scheme: self, format, scale_type }
    }
}

/// A search among multiples of the scale that covers a group.
#[derive(Clone, Copy)]
struct Searched {
    scheme: IntScheme,
    rule: ScaleRule,
}

impl Chooser for Searched {
    #[inline(always)]
    fn choose(self, x: &[f32], weight: impl Fn(usize) -> f32 + Copy) -> Qparams {
        let (min, max) = range(x);
        let method = self.rule.method;
        let searched = matches!(method, Method::Mse | Method::MsePositive);
        let positive = self.scheme.symmetric && !matches!(method, Method::Minmax | Method::Mse);
        let start = if positive { self.highest(min, max) } else { self.params(min, max, 1.0) };
        if !searched || min >= max && min.abs() <= 0.0 {
            return start;
        }
        let (mut best, mut least) = (start, self.error(x, start, weight));
        let mut last = start;
        let (first, step, count): (f32, f32, u32) = match (self.scheme.symmetric, self.scheme.bits)
        {
            (true, 4) => (1.16, 0.02, 31),
            (true, _) => (1.01, 0.015, 16),
            (false, _) => (1.0, 0.02, 21),
        };
        let mirrored = self.scheme.symmetric && self.scheme.bits == 4 && !positive;
        let signs: &[f32] = if mirrored { &[1.0, -1.0] } else { &[1.0] };
        for sign in signs {
            for k in 0..count {
                let mut q = self.params(min, max, sign * (first - step * k as f32));
                if positive {
                    q.scale = q.scale.abs();
                }
                if q == last {
                    continue;
                }
                last = q;
                let error = self.error(x, q, weight);
                if error < least {
                    (best, least) = (q, error);
                }
            }
        }
        best
    }

    /// The nearest codes, as [`IntScheme::quantize`] gives them.
    #[inline(always)]
    fn codes(self, x: &[f32], q: Qparams, codes: &mut [i8]) {
        let (low, high) = (self.scheme.min_code() as f32, self.scheme.max_code() as f32);
        let zero = f32::from(q.zero_point);
        for (code, x) in codes.iter_mut().zip(x) {
            let nearest = (x / q.scale + zero).clamp(low, high) + ROUND;
            *code = nearest.to_bits().wrapping_sub(ROUND.to_bits()) as i8;
        }
    }
}

impl Searched {
    /// The positive scale that puts the largest magnitude on the highest code.
    #[inline(always)]
    fn highest(self, min: f32, max: f32) -> Qparams {
        let scale = max.max(-min) / self.scheme.max_code() as f32;
        let scale = round_to(self.rule.scale_type, scale);
        Qparams { scale: if scale > 0.0 { scale } else { 1.0 }, zero_point: 0 }
    }

    /// Parameters for a range scaled by `factor`. Negative factors mirror symmetric grids.
    #[inline(always)]
    fn params(self, min: f32, max: f32, factor: f32) -> Qparams {
        let (low, high) = (self.scheme.min_code() as f32, self.scheme.max_code() as f32);
        let stored = |scale: f32| match round_to(self.rule.scale_type, scale) {
            scale if scale.abs() > 0.0 => scale,
            _ => 1.0,
        };
        if self.scheme.symmetric {
            let extreme = if max >= -min { max } else { min };
            return Qparams { scale: stored(extreme / low * factor), zero_point: 0 };
        }
        let (min, max) = (min.min(0.0) * factor, max.max(0.0) * factor);
        // Halves first: the difference of two large numbers may overflow.
        let scale = stored((max / (high - low)) - (min / (high - low)));
        let zero_point = (low - min / scale).clamp(low, high).round_ties_even() as i8;
        Qparams { scale, zero_point }
    }

    /// Squared error of a group on a grid, each square times the weight of its place.
    #[inline(always)]
    fn error(self, x: &[f32], q: Qparams, weight: impl Fn(usize) -> f32) -> f32 {
        let (low, high) = (self.scheme.min_code() as f32, self.scheme.max_code() as f32);
        let (inverse, zero) = (1.0 / q.scale, f32::from(q.zero_point));
        weighted_sum(
            x,
            #[inline(always)]
            |x| {
                let code = ((x * inverse + zero).clamp(low, high) + ROUND) - ROUND;
                let error = x - (code - zero) * q.scale;
                error * error
            },
            weight,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_for_products_of_two_integers() {
        let [float, token] = [Activations::Float, Activations::Int8PerToken];
        let formats = [(4, float), (4, token), (8, float), (8, token)];
        let names = formats.map(|(bits, activations)| {
            IntScheme { bits, symmetric: true, granularity: Granularity::Channel }
                .format(activations)
                .name()
        });
        assert_eq!(names, ["pack-quantized", "pack-quantized", "pack-quantized", "int-quantized"]);
    }
}
