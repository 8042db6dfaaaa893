//! Activations as the kernels read them: int8 per token, or float with the padding of a form.
use super::packed::{Form, STEP};
use crate::linalg::{Team, vectorized};
use ndarray::{ArrayView1, ArrayView2, Axis};

/// Tokens whose quads lie side by side: the most that a kernel multiplies at once.
pub const TOKENS: usize = 8;

/// Activations `[tokens, in]` in 8 bits: `x ≈ code · scale`, `scale = max|x| / 127` per token.
///
/// Tokens lie in blocks of [`TOKENS`], the last one shorter.
#[derive(Clone, Debug)]
pub struct Int8Rows {
    form: Form,
    /// Four codes each, little-endian; `[block, quad, token of the block]`.
    words: Vec<i32>,
    /// Sums of codes; `[block, group, token of the block]`.
    sums: Vec<i32>,
    /// `[tokens]`.
    scales: Vec<f32>,
}

/// Some tokens of [`Int8Rows`], quad by quad.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// `[quad, token]`.
    pub(super) words: &'a [i32],
    /// `[group, token]`.
    pub(super) sums: &'a [i32],
    /// `[token]`; at most [`TOKENS`].
    pub(super) scales: &'a [f32],
}

impl Int8Rows {
    /// Quantizes `x`, `[tokens, in]`, for products with matrices of this form: with one scale per
    /// token, or with `scale` and what lies beyond ±127 of it clamped.
    ///
    /// # Panics
    /// When the columns differ.
    pub fn new(x: ArrayView2<'_, f32>, (form, scale): (Form, Option<f32>), team: &Team) -> Self {
        assert_eq!(x.ncols(), form.columns, "columns of a linear layer");
        let (tokens, quads) = (x.nrows(), form.width() / 4);
        let mut words = vec![0; tokens * quads];
        let mut sums = vec![0; tokens * form.groups];
        let mut scales = vec![0.0; tokens];
        let blocks = x
            .axis_chunks_iter(Axis(0), TOKENS)
            .zip(words.chunks_mut((TOKENS * quads).max(1)))
            .zip(sums.chunks_mut((TOKENS * form.groups).max(1)))
            .zip(scales.chunks_mut(TOKENS));
        team.each(blocks.collect(), |_, (((x, words), sums), scales)| {
            let mut codes = vec![0; form.width()];
            for (token, x) in x.rows().into_iter().enumerate() {
                let padded = pad(x, form);
                let x = padded.as_deref().or(x.as_slice()).expect("rows are contiguous");
                scales[token] = match scale {
                    Some(scale) => quantize_row_with(x, scale, &mut codes),
                    None => quantize_row(x, &mut codes),
                };
                spread(
                    &codes,
                    form.steps() * STEP,
                    &mut words[token..],
                    &mut sums[token..],
                    scales.len(),
                );
            }
        });
        Self { form, words, sums, scales }
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.scales.len()
    }

    /// The form of the matrices that they are multiplied with.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.tokens().div_ceil(TOKENS)
    }

    /// A block of tokens.
    pub fn block(&self, index: usize) -> Block<'_> {
        let tokens = index * TOKENS..((index + 1) * TOKENS).min(self.tokens());
        let of = |width: usize| tokens.start * width..tokens.end * width;
        Block {
            words: &self.words[of(self.form.width() / 4)],
            sums: &self.sums[of(self.form.groups)],
            scales: &self.scales[tokens.clone()],
        }
    }
}

/// `x` with every group padded to whole steps by zeros; `None` when it can be read in place.
pub(super) fn pad(x: ArrayView1<'_, f32>, form: Form) -> Option<Vec<f32>> {
    if form.is_dense() && x.as_slice().is_some() {
        return None;
    }
    let mut padded = vec![0.0; form.width()];
    for (group, out) in padded.chunks_mut(form.steps() * STEP).enumerate() {
        for (out, column) in out.iter_mut().zip(form.span(group)) {
            *out = x[column];
        }
    }
    Some(padded)
}

vectorized! {
    /// Writes `x / scale`, rounded half to even, and returns `scale = max|x| / 127`.
    ///
    /// A row with a value that is not finite has scale NaN, so that its products say so; a row
    /// whose scale would not be a normal number counts as zero.
    fn quantize_row<'a>(x: &'a [f32], codes: &'a mut [i8]) -> f32 {
        // 1.5 · 2^23: adding it rounds to an integer, which the low bits of the sum hold.
        const ROUND: f32 = 12_582_912.0;
        // Compared as integers, magnitudes keep their order and NaN lies above all of them.
        let largest = x.iter().fold(0, |max, x| (x.to_bits() & 0x7fff_ffff).max(max));
        let scale = f32::from_bits(largest) / 127.0;
        if !scale.is_normal() {
            codes.fill(0);
            return if scale.is_finite() { 0.0 } else { f32::NAN };
        }
        for (code, x) in codes.iter_mut().zip(x) {
            *code = (x / scale + ROUND).to_bits() as i8;
        }
        scale
    }
}

vectorized! {
    /// Writes `x / scale`, clamped to -128…127 and rounded half to even, and returns the scale; NaN for a
    /// row with a value that is not finite, so that its products say so.
    fn quantize_row_with<'a>(x: &'a [f32], scale: f32, codes: &'a mut [i8]) -> f32 {
        const ROUND: f32 = 12_582_912.0; // as above
        let largest = x.iter().fold(0, |max, x| (x.to_bits() & 0x7fff_ffff).max(max));
        if !f32::from_bits(largest).is_finite() {
            codes.fill(0);
            return f32::NAN;
        }
        for (code, x) in codes.iter_mut().zip(x) {
            *code = ((x / scale).clamp(-128.0, 127.0) + ROUND).to_bits() as i8;
        }
        scale
    }
}

vectorized! {
    /// Writes the codes of a token as words and the sums of its groups of `width` codes, each
    /// `stride` apart.
    fn spread<'a>(
        codes: &'a [i8], width: usize, words: &'a mut [i32], sums: &'a mut [i32], stride: usize
    ) {
        for (word, quad) in words.iter_mut().step_by(stride).zip(codes.as_chunks::<4>().0) {
            *word = i32::from_le_bytes(quad.map(|code| code as u8));
        }
        for (sum, codes) in sums.iter_mut().step_by(stride).zip(codes.chunks(width)) {
            *sum = codes.iter().map(|code| i32::from(*code)).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_a_hand_computed_row() {
        let mut codes = [9; 6];
        // scale 2; halves go to the even neighbour
        let scale = quantize_row(&[254.0, -254.0, 1.0, 3.0, -5.0, 0.1], &mut codes);
        assert_eq!(codes, [127, -127, 0, 2, -2, 0]);
        assert!((scale - 2.0).abs() < f32::EPSILON);
    }

    #[test]
    fn static_codes_are_nearest_and_clamped() {
        let mut codes = [9; 6];
        let scale = quantize_row_with(&[254.0, -300.0, 1.0, 3.0, -5.0, 0.1], 2.0, &mut codes);
        assert_eq!((codes, scale.to_bits()), ([127, -128, 0, 2, -2, 0], 2.0_f32.to_bits()));
        for wrong in [f32::NAN, f32::INFINITY] {
            assert!(quantize_row_with(&[1.0, wrong], 2.0, &mut codes).is_nan());
        }
    }

    #[test]
    fn what_is_not_finite_shows_and_zero_stays_zero() {
        let mut codes = [1; 3];
        assert!(quantize_row(&[1.0, f32::NAN, 2.0], &mut codes).is_nan());
        assert!(quantize_row(&[1.0, f32::NEG_INFINITY, 2.0], &mut codes).is_nan());
        assert!(quantize_row(&[0.0, -0.0, 1e-40], &mut codes).abs() <= 0.0);
        assert_eq!(codes, [0; 3]);
    }
}
