//! Gradients of row-wise functions: what [`rms_norm`](super::rms_norm), [`silu_mul`](super::silu_mul),
//! [`gelu_mul`](super::gelu_mul) and [`softmax`](super::softmax) pass back.
use super::elementwise::{GELU, dot, exp, fold, lanes_sum, vectorized};

vectorized! {
    /// Of `y = x · r · gain` with `r = 1 / √(mean(x²) + eps)`: `dy ← dx`, where
    /// `dx = r · (gain∘dy) − x · r³ · ⟨x, gain∘dy⟩ / n`; `dgain ← dgain + dy∘x·r`.
    pub fn rms_norm_gradient<'a>(
        x: &'a [f32],
        gain: &'a [f32],
        eps: f32,
        dy: &'a mut [f32],
        dgain: &'a mut [f32]
    ) {
        let squares = fold(x, 0.0, |sum, x| sum + x * x, lanes_sum);
        let n = x.len() as f32;
        let r = 1.0 / (squares / n + eps).sqrt();
        for (((dg, dy), x), g) in dgain.iter_mut().zip(dy.iter_mut()).zip(x).zip(gain) {
            *dg += *dy * x * r;
            *dy *= g;
        }
        let along = dot(x, dy) * r * r / n;
        for (dy, x) in dy.iter_mut().zip(x) {
            *dy = r * (*dy - x * along);
        }
    }
}

vectorized! {
    /// Of `y = SiLU(gate) · up`: `gate ← dgate`, `up ← dup`.
    pub fn silu_mul_gradient<'a>(gate: &'a mut [f32], up: &'a mut [f32], dy: &'a [f32]) {
        for ((g, u), dy) in gate.iter_mut().zip(up.iter_mut()).zip(dy) {
            let open = 1.0 / (1.0 + exp(-*g));
            let silu = *g * open;
            *g = dy * *u * (open + silu * (1.0 - open));
            *u = dy * silu;
        }
    }
}

vectorized! {
    /// Of `y = GELU(gate) · up` by the tanh approximation: `gate ← dgate`, `up ← dup`.
    pub fn gelu_mul_gradient<'a>(gate: &'a mut [f32], up: &'a mut [f32], dy: &'a [f32]) {
        for ((g, u), dy) in gate.iter_mut().zip(up.iter_mut()).zip(dy) {
            let x = *g;
            let open = 1.0 / (1.0 + exp(-x * (GELU[0] + GELU[1] * x * x)));
            let slope = GELU[0] + 3.0 * GELU[1] * x * x;
            *g = dy * *u * (open + x * open * (1.0 - open) * slope);
            *u = dy * x * open;
        }
    }
}

vectorized! {
    /// Of `p = softmax(z)`: `dp ← dz = p∘(dp − ⟨p, dp⟩)`.
    pub fn softmax_gradient<'a>(p: &'a [f32], dp: &'a mut [f32]) {
        let mean = dot(p, dp);
        for (dp, p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::{gelu_mul, rms_norm, silu_mul, softmax};

    fn wave(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| 1.5 * (i as f32 * 0.7 + phase).sin()).collect()
    }

    /// `Σ weights · f(x)`.
    fn weighed(y: &[f32], weights: &[f32]) -> f64 {
        y.iter().zip(weights).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
    }

    /// Compares gradients of `loss` at `x` with central differences of a step of 2⁻⁶: these are off by a
    /// sixth of its square times the third derivative (below 8 here), and by two roundings of sums of 40
    /// terms of a size below 8 (2⁻²⁴ each) over the step.
    fn compare(x: &[f32], gradient: &[f32], loss: &dyn Fn(&[f32]) -> f64) {
        let step = 1.0 / 64.0_f32;
        let tolerance = 8.0 * f64::from(step).powi(2) / 6.0
            + 2.0 * 40.0 * 8.0 * 2_f64.powi(-24) / f64::from(step);
        for i in 0..x.len() {
            let at = |by: f32| {
                let mut moved = x.to_vec();
                moved[i] += by;
                loss(&moved)
            };
            let want = (at(step) - at(-step)) / (2.0 * f64::from(step));
            let got = f64::from(gradient[i]);
            assert!((got - want).abs() < tolerance, "{i}: {got} {want} ± {tolerance}");
            // The twin: another sign is seen wherever there is one.
            if want.abs() > tolerance {
                assert!((got + want).abs() > tolerance, "{i}");
            }
        }
    }

    #[test]
    fn norms_pass_back_what_central_differences_give() {
        let (x, gain, weights) = (wave(35, 0.0), wave(35, 2.0), wave(35, 4.0));
        let loss = |x: &[f32], gain: &[f32]| {
            let mut y = vec![0.0; x.len()];
            rms_norm(x, gain, 1e-3, &mut y);
            weighed(&y, &weights)
        };
        let (mut dx, mut dgain) = (weights.clone(), vec![0.0; 35]);
        rms_norm_gradient(&x, &gain, 1e-3, &mut dx, &mut dgain);
        compare(&x, &dx, &|x| loss(x, &gain));
        compare(&gain, &dgain, &|gain| loss(&x, gain));
    }

    #[test]
    fn gates_pass_back_what_central_differences_give() {
        type Forward = fn(&mut [f32], &[f32]);
        type Backward = fn(&mut [f32], &mut [f32], &[f32]);
        let both: [(Forward, Backward); 2] =
            [(silu_mul, silu_mul_gradient), (gelu_mul, gelu_mul_gradient)];
        for (forward, backward) in both {
            let (gate, up, weights) = (wave(35, 0.0), wave(35, 2.0), wave(35, 4.0));
            let loss = |gate: &[f32], up: &[f32]| {
                let mut y = gate.to_vec();
                forward(&mut y, up);
                weighed(&y, &weights)
            };
            let (mut dgate, mut dup) = (gate.clone(), up.clone());
            backward(&mut dgate, &mut dup, &weights);
            compare(&gate, &dgate, &|gate| loss(gate, &up));
            compare(&up, &dup, &|up| loss(&gate, up));
        }
    }

    #[test]
    fn softmax_passes_back_what_central_differences_give() {
        let (z, weights) = (wave(35, 0.0), wave(35, 4.0));
        let loss = |z: &[f32]| {
            let mut p = z.to_vec();
            softmax(&mut p);
            weighed(&p, &weights)
        };
        let (mut p, mut dz) = (z.clone(), weights.clone());
        softmax(&mut p);
        softmax_gradient(&p, &mut dz);
        compare(&z, &dz, &loss);
    }
}
