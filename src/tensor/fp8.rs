//! The 8-bit float format E4M3 (without infinities), which checkpoints are stored in.

/// The value of each code: 1 sign, 4 exponent bits with a bias of 7, 3 fraction bits. Exponent 0
/// is subnormal, and the codes whose other bits are all set are NaN: there are no infinities.
pub static E4M3: [f32; 256] = table();

const fn table() -> [f32; 256] {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        values[code] = value(code as u32);
        code += 1;
    }
    values
}

const fn value(code: u32) -> f32 {
    let (exponent, fraction) = (code >> 3 & 0xf, code & 7);
    let magnitude = match (exponent, fraction) {
        (0xf, 7) => f32::NAN,
        (0, _) => fraction as f32 / 512.0,
        _ => f32::from_bits((exponent + 127 - 7) << 23 | fraction << 20),
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_for_the_values_of_the_format() {
        let named = [
            (0x01, 0.001_953_125), // 2^-9, the smallest
            (0x07, 0.013_671_875), // 7/512, the largest subnormal
            (0x08, 0.015_625),     // 2^-6, the smallest normal
            (0x38, 1.0),
            (0x39, 1.125),
            (0x7e, 448.0), // the largest
        ];
        for (code, value) in named {
            assert_eq!(E4M3[code].to_bits(), f32::to_bits(value), "{code:#x}");
            assert_eq!(E4M3[code | 0x80].to_bits(), f32::to_bits(-value), "{code:#x}");
        }
        assert_eq!((E4M3[0].to_bits(), E4M3[0x80].to_bits()), (0, 0x8000_0000));
        let nan: Vec<usize> = (0..256).filter(|code| E4M3[*code].is_nan()).collect();
        assert_eq!(nan, [0x7f, 0xff]);
        assert!((0..0x7e).all(|code| E4M3[code] < E4M3[code + 1]), "ascending");
    }
}
