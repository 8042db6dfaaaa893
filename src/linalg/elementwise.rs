//! Loops over rows: norms, softmax, activations. Written as plain loops over 16 lanes and
//! compiled once per instruction set (`pulp`), chosen at run time; the arithmetic and its order
//! are the same in each, so the bits are too.
pub(super) const LANES: usize = 16;

/// A function whose loops are compiled for every instruction set. The body is the method of an
/// operation, which `pulp` inlines; a closure in its place would not always be.
macro_rules! vectorized {
    ($(#[$doc:meta])* $vis:vis fn $name:ident<'a>($($arg:ident: $type:ty),+) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name<'a>($($arg: $type),+) $(-> $ret)? {
            struct Op<'a>($($type),+);
            impl<'a> pulp::WithSimd for Op<'a> {
                type Output = $crate::linalg::vectorized!(@output $($ret)?);
                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
                    let Self($($arg),+) = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Op($($arg),+))
        }
    };
    (@output) => { () };
    (@output $ret:ty) => { $ret };
}
pub(crate) use vectorized;

/// eˣ to about 2 units in the last place on [-87, 88]; clamped outside, so that -∞ gives 0.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Cephes: x = n·ln 2 + r, |r| ≤ ln 2 / 2, and a polynomial of degree 6 for eʳ.
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it leaves the nearest integer
    let x = x.clamp(-104.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let e = (p * r * r + r) + 1.0;
    // 2ⁿ in two steps, since n may lie below -126; the low bits of the shifted sum hold n.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let pow2 = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
    e * pow2(half) * pow2(n.wrapping_sub(half))
}

/// The sum of 16 lanes, in pairs.
#[inline(always)]
pub(crate) fn lanes_sum(lanes: [f32; LANES]) -> f32 {
    let mut sum = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sum[i] += sum[i + width];
        }
        width /= 2;
    }
    sum[0]
}

/// Folds `f` over `x` in 16 lanes, then over the lanes.
#[inline(always)]
pub(super) fn fold(
    x: &[f32],
    start: f32,
    f: impl Fn(f32, f32) -> f32,
    join: impl Fn([f32; LANES]) -> f32,
) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut lanes = [start; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = f(lanes[i], chunk[i]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane = f(*lane, *x);
    }
    join(lanes)
}

#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    fold(x, f32::NEG_INFINITY, larger, |lanes| lanes.into_iter().fold(f32::NEG_INFINITY, larger))
}

vectorized! {
    /// `y ← x / √(mean(x²) + eps) · gain` (`RMSNorm`, arXiv 1910.07467); float32 throughout.
    pub fn rms_norm<'a>(x: &'a [f32], gain: &'a [f32], eps: f32, y: &'a mut [f32]) {
        let squares = fold(x, 0.0, |sum, x| sum + x * x, lanes_sum);
        let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
        for ((y, x), g) in y.iter_mut().zip(x).zip(gain) {
            *y = x * scale * g;
        }
    }
}

vectorized! {
    /// `x ← softmax(x)` in place; entries of -∞ become 0.
    pub fn softmax<'a>(x: &'a mut [f32]) {
        let max = max(x);
        for x in x.iter_mut() {
            *x = exp(*x - max);
        }
        let scale = 1.0 / fold(x, 0.0, |sum, x| sum + x, lanes_sum);
        for x in x.iter_mut() {
            *x *= scale;
        }
    }
}

vectorized! {
    /// `log Σ exp(x)`: each 1024 terms are summed in float32, the parts in float64.
    pub fn log_sum_exp<'a>(x: &'a [f32]) -> f64 {
        let max = max(x);
        let sum: f64 = x
            .chunks(1024)
            .map(|part| f64::from(fold(part, 0.0, |sum, x| sum + exp(x - max), lanes_sum)))
            .sum();
        f64::from(max) + sum.ln()
    }
}

vectorized! {
    /// `gate ← SiLU(gate) · up` (SwiGLU, arXiv 2002.05202), where SiLU(x) = x / (1 + e⁻ˣ).
    pub fn silu_mul<'a>(gate: &'a mut [f32], up: &'a [f32]) {
        for (g, u) in gate.iter_mut().zip(up) {
            *g = *g / (1.0 + exp(-*g)) * u;
        }
    }
}

/// `2·√(2/π)`, and 0.044715 of that: `2t = x · (GELU[0] + GELU[1] · x²)` in [`gelu_mul`].
pub const GELU: [f32; 2] = [1.595_769, 0.071_354_814];

vectorized! {
    /// `gate ← GELU(gate) · up`, by the tanh approximation: `x/2 · (1 + tanh(t)) = x / (1 + e⁻²ᵗ)`
    /// with `t = √(2/π) · (x + 0.044715 x³)`.
    pub fn gelu_mul<'a>(gate: &'a mut [f32], up: &'a [f32]) {
        for (g, u) in gate.iter_mut().zip(up) {
            let x = *g;
            let twice = x * (GELU[0] + GELU[1] * x * x);
            *g = x / (1.0 + exp(-twice)) * u;
        }
    }
}

vectorized! {
    /// `x ← x + scale · y`.
    pub fn add_assign<'a>(x: &'a mut [f32], y: &'a [f32], scale: f32) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += scale * y;
        }
    }
}

/// `Σ x·y` of one chunk layout, in 16 lanes.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let ((xs, x_tail), (ys, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(x_tail).zip(y_tail) {
        *lane += x * y;
    }
    lanes_sum(lanes)
}

vectorized! {
    /// `y[i] ← scale · Σ x·rows[i]`: `rows` is `[y.len(), x.len()]`, row-major.
    pub fn scaled_dots<'a>(x: &'a [f32], rows: &'a [f32], scale: f32, y: &'a mut [f32]) {
        for (y, row) in y.iter_mut().zip(rows.chunks_exact(x.len().max(1))) {
            *y = dot(x, row) * scale;
        }
    }
}

vectorized! {
    /// `y ← Σ weights[i] · rows[i]`: `rows` is `[weights.len(), y.len()]`, row-major.
    pub fn weighted_sum<'a>(weights: &'a [f32], rows: &'a [f32], y: &'a mut [f32]) {
        let width = y.len().max(1);
        let (chunks, tail) = y.as_chunks_mut::<LANES>();
        let full = chunks.len() * LANES;
        for (column, y) in chunks.iter_mut().enumerate() {
            // An array, so that it stays in a register from row to row.
            let mut lanes = [0.0; LANES];
            for (weight, row) in weights.iter().zip(rows.chunks_exact(width)) {
                if let Some(x) = row[column * LANES..].first_chunk::<LANES>() {
                    for i in 0..LANES {
                        lanes[i] += weight * x[i];
                    }
                }
            }
            *y = lanes;
        }
        tail.fill(0.0);
        for (weight, row) in weights.iter().zip(rows.chunks_exact(width)) {
            for (y, x) in tail.iter_mut().zip(&row[full..]) {
                *y += weight * x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_three_units_in_the_last_place() {
        for i in -8600..8700 {
            let x = i as f32 * 0.01;
            let want = f64::from(x).exp();
            let got = f64::from(exp(x));
            // 3 units of 2^-23 relative
            assert!((got - want).abs() <= want * 3.0 / 8_388_608.0, "{x}: {got} {want}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-44);
    }

    #[test]
    fn softmax_of_hand_computed_logits() {
        let mut x = [0.0, 2.0_f32.ln(), 5.0_f32.ln(), f32::NEG_INFINITY];
        softmax(&mut x);
        for (got, want) in x.iter().zip([0.125, 0.25, 0.625, 0.0]) {
            assert!((got - want).abs() < 4.0 * f32::EPSILON, "{got} {want}");
        }
        let lse = log_sum_exp(&[0.0, 2.0_f32.ln(), 5.0_f32.ln()]);
        assert!((lse - 8.0_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn rms_norm_of_a_constant_row_is_the_gain() {
        let (x, gain) = ([3.0; 37], [2.0; 37]);
        let mut y = [0.0; 37];
        rms_norm(&x, &gain, 0.0, &mut y);
        assert!(y.iter().all(|y| (y - 2.0).abs() < 4.0 * f32::EPSILON), "{y:?}");
    }

    #[test]
    fn silu_and_dot_follow_their_definitions() {
        let mut gate: Vec<f32> = (0..35).map(|i| i as f32 * 0.5 - 8.0).collect();
        let up: Vec<f32> = (0..35).map(|i| 1.0 + i as f32).collect();
        let want: Vec<f32> =
            gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
        silu_mul(&mut gate, &up);
        for (got, want) in gate.iter().zip(&want) {
            assert!((got - want).abs() <= want.abs() * 1e-6, "{got} {want}");
        }
    }

    #[test]
    fn gelu_follows_its_definition() {
        let mut gate: Vec<f32> = (0..35).map(|i| i as f32 * 0.5 - 8.0).collect();
        let up: Vec<f32> = (0..35).map(|i| 1.0 + i as f32).collect();
        let want = gate.iter().zip(&up).map(|(g, u)| {
            let (g, u) = (f64::from(*g), f64::from(*u));
            let t = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044_715 * g * g * g);
            g / 2.0 * (1.0 + t.tanh()) * u
        });
        let want: Vec<f64> = want.collect();
        gelu_mul(&mut gate, &up);
        for (got, want) in gate.iter().zip(&want) {
            // e²ᵗ grows with the rounding of 2t, which is up to 104 here before it is clamped.
            assert!((f64::from(*got) - want).abs() <= want.abs() * 1e-5 + 1e-12, "{got} {want}");
        }
    }

    #[test]
    fn one_pass_over_rows_is_the_matrix_product() {
        // Small integers: float32 sums are exact in any order.
        let rows: Vec<f32> = (0..5 * 37).map(|i| ((i * 7) % 11) as f32 - 5.0).collect();
        let x: Vec<f32> = (0..37).map(|i| ((i * 3) % 7) as f32 - 3.0).collect();
        let mut y = [0.0; 5];
        scaled_dots(&x, &rows, 0.5, &mut y);
        for (y, row) in y.iter().zip(rows.chunks(37)) {
            let want: f32 = row.iter().zip(&x).map(|(r, x)| r * x).sum();
            assert!((y - 0.5 * want).abs() <= 0.0);
        }
        let mut sum = [0.0; 37];
        weighted_sum(&[1.0, 2.0, 0.0, -1.0, 3.0], &rows, &mut sum);
        for (i, sum) in sum.iter().enumerate() {
            let at = |row: usize| rows[row * 37 + i];
            assert!((sum - (at(0) + 2.0 * at(1) - at(3) + 3.0 * at(4))).abs() <= 0.0);
        }
    }
}
