//! The numbers of MXFP4 (OCP Microscaling Formats 1.0): E2M1 codes and E8M0 scales.
//!
//! A code is a sign, two bits of exponent and one of mantissa: 0, 0.5, 1, 1.5, 2, 3, 4, 6. Doubled
//! they are integers, with half the scale; that is how the program holds them.

/// Twice the values of the codes.
pub(super) const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The code of a doubled value, which is one of [`DOUBLED`].
#[inline]
pub(super) fn code(doubled: i8) -> u8 {
    let size = doubled.unsigned_abs();
    let index = match size {
        0..=4 => size,
        6 => 5,
        8 => 6,
        _ => 7,
    };
    index | u8::from(doubled < 0) << 3
}

/// The doubled value nearest to `x`, ties to even codes, as a whole float.
#[inline(always)]
pub(super) fn nearest(x: f32) -> f32 {
    let size = x.abs();
    let above = |it: bool, by: f32| if it { by } else { 0.0 };
    let small = above(size > 0.5, 1.0) + above(size >= 1.5, 1.0) + above(size > 2.5, 1.0);
    let large = above(size > 5.0, 2.0) + above(size >= 7.0, 2.0) + above(size > 10.0, 4.0);
    let rounded = small + above(size >= 3.5, 1.0) + large;
    if x < 0.0 { -rounded } else { rounded }
}

/// `2^(e − 128)`, half the scale that a byte of E8M0 stands for, with 255 not a number.
#[inline]
pub(super) fn half_scale(exponent: u8) -> f32 {
    match exponent {
        255 => f32::NAN,
        // Below the normal numbers of float32.
        0 | 1 => f32::from_bits(0x0020_0000 << exponent),
        normal => f32::from_bits(u32::from(normal - 1) << 23),
    }
}

/// The byte whose [`half_scale`] is the number; `None` where there is none.
#[inline]
pub(super) fn exponent(half: f32) -> Option<u8> {
    let bits = half.to_bits();
    match bits {
        0x0020_0000 => Some(0),
        0x0040_0000 => Some(1),
        _ if bits.trailing_zeros() >= 23 && (1 << 23..254 << 23).contains(&bits) => {
            Some((bits >> 23) as u8 + 1)
        }
        _ => None,
    }
}

/// `⌊log₂ x⌋` of a finite number above 0.
#[inline]
pub(super) fn floor_log2(x: f32) -> i32 {
    match x.to_bits() >> 23 {
        0 => x.to_bits().ilog2() as i32 - 149,
        biased => biased as i32 - 127,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_scales_are_told_apart() {
        for (at, doubled) in DOUBLED.into_iter().enumerate() {
            let wanted = if at == 8 { 0 } else { at as u8 };
            assert_eq!(code(doubled), wanted, "{doubled}; the negative zero is not written");
        }
        for byte in 0..255 {
            let half = half_scale(byte);
            assert_eq!(exponent(half), Some(byte));
            assert!((f64::from(half) - 2.0_f64.powi(i32::from(byte) - 128)).abs() <= 0.0);
        }
        let none = [0.0, -0.5, 3.0, f32::NAN, f32::INFINITY, 2.0_f32.powi(127), 1e-45];
        for none in none {
            assert_eq!(exponent(none), None, "{none}");
        }
    }

    /// Ties as in compressed-tensors' `_round_to_fp4`: 0.25 → 0, 0.75 → 1, 1.25 → 1, 1.75 → 2,
    /// 2.5 → 2, 3.5 → 4, 5 → 4.
    #[test]
    fn ties_go_to_even_codes() {
        let ties = [(0.5, 0), (1.5, 2), (2.5, 2), (3.5, 4), (5.0, 4), (7.0, 8), (10.0, 8)];
        for (tie, even) in ties {
            assert_eq!((nearest(tie) as i8, nearest(-tie) as i8), (even, -even), "{tie}");
            for (x, sign) in [(tie - 1e-3, -1.0), (tie + 1e-3, 1.0)] {
                let found = nearest(x);
                assert!((found - tie) * sign > 0.0, "{x} became {found}");
            }
        }
        for value in DOUBLED {
            assert_eq!(nearest(f32::from(value)) as i8, value);
        }
        assert_eq!((nearest(f32::INFINITY) as i8, nearest(-1e30) as i8), (12, -12));
    }

    #[test]
    fn the_logarithm_holds_below_normal_numbers() {
        for (x, floor) in [(1.0, 0), (7.9, 2), (0.5, -1), (1e-45, -149), (3e-39, -128)] {
            assert_eq!(floor_log2(x), floor, "{x}");
        }
    }
}
