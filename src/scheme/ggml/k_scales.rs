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
