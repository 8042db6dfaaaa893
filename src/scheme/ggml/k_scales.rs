//! The twelve bytes that hold eight 6-bit scales and eight 6-bit minima of Q4_K and Q5_K.

/// Scale and minimum, 0..=63, of each of the eight sub-blocks of 32 weights.
///
/// The first four stand in the low six bits of bytes 0..4 (scales) and 4..8 (minima); of the last
/// four, bytes 8..12 hold the low nibbles and the top two bits of bytes 0..8 the rest.
pub(super) fn unpack(s: &[u8; 12]) -> [(u8, u8); 8] {
    std::array::from_fn(|j| match j {
        0..4 => (s[j] & 63, s[j + 4] & 63),
        _ => (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4),
    })
}

/// The bytes of eight scales and minima: [`unpack`] backwards.
pub(super) fn pack(all: [(u8, u8); 8]) -> [u8; 12] {
    let (first, last) = all.split_at(4);
    let mut s = [0; 12];
    for (j, ((scale, min), (scale4, min4))) in first.iter().zip(last).enumerate() {
        s[j] = scale | scale4 >> 4 << 6;
        s[j + 4] = min | min4 >> 4 << 6;
        s[j + 8] = scale4 & 15 | (min4 & 15) << 4;
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_come_back() {
        for seed in 0..64_u8 {
            let all = std::array::from_fn(|j| {
                let j = j as u8;
                ((seed + 9 * j) & 63, (63 - seed + 23 * j) & 63)
            });
            assert_eq!(unpack(&pack(all)), all);
        }
    }
}
