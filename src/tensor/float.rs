//! The three floating-point formats of checkpoints, to and from float32.
use half::{bf16, f16};
use safetensors::Dtype;

/// A format that weights are computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
}

impl FloatType {
    /// The float format of a safetensors type.
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// The safetensors type.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    /// Name in `config.json` (`dtype`, `torch_dtype`).
    pub fn config_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// Decodes little-endian elements, exactly. Converts `min(bytes / size, out.len())` of them.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => {
                for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *o = f32::from_le_bytes(*b);
                }
            }
            Self::Bf16 => {
                for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
                }
            }
            Self::F16 => {
                for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *o = f16::from_le_bytes(*b).to_f32();
                }
            }
        }
    }

    /// Appends little-endian elements, rounded to nearest, ties to even.
    pub fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        out.reserve(values.len() * self.size());
        match self {
            Self::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Self::Bf16 => out.extend(values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes())),
            Self::F16 => out.extend(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes())),
        }
    }
}

/// The nearest value of `float` to `x`, as float32.
pub fn round_to(float: FloatType, x: f32) -> f32 {
    match float {
        FloatType::F32 => x,
        FloatType::F16 => f16::from_f32(x).to_f32(),
        FloatType::Bf16 => bf16::from_f32(x).to_f32(),
    }
}

/// The value of IEEE binary16 bits in little-endian order.
pub fn half_to_f32(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_16_bit_pattern_survives_a_round_trip() {
        for float in [FloatType::F16, FloatType::Bf16] {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let mut values = vec![0.0; 1 << 16];
            float.decode(&bytes, &mut values);
            let mut back = Vec::new();
            float.encode(&values, &mut back);
            for (i, value) in values.iter().enumerate() {
                let same = back[2 * i..2 * i + 2] == bytes[2 * i..2 * i + 2];
                assert!(same || value.is_nan(), "{float:?} {i:#x}");
            }
        }
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        // bfloat16 has 7 fraction bits: 1 + 2^-8 lies half way between 1 and 1 + 2^-7.
        assert!((round_to(FloatType::Bf16, 1.0 + 1.0 / 256.0) - 1.0).abs() < f32::EPSILON);
        let up = round_to(FloatType::Bf16, 1.0 + 3.0 / 256.0);
        assert!((up - (1.0 + 4.0 / 256.0)).abs() < f32::EPSILON);
    }
}
