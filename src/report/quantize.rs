//! What adaptive rounding did.
use crate::pipeline::Quantized;
use std::fmt::Write;

/// The layers with the largest errors and those that needed more damping, for the terminal.
pub fn quantized_text(quantized: &Quantized) -> String {
    let mut out = String::new();
    if let Some(worst) = &quantized.worst {
        let _ = writeln!(
            out,
            "worst layer: {}, relative error {:.4} of its output over {} calibration tokens",
            worst.tensor, worst.error, worst.tokens
        );
    }
    for layer in quantized.layers.iter().filter(|it| it.raised > 0) {
        let _ = writeln!(out, "{}: damping had to be raised to {}", layer.tensor, layer.damping);
    }
    for layer in quantized.layers.iter().filter(|it| it.nearest) {
        let _ = writeln!(
            out,
            "{}: rounded to nearest, it saw {} calibration tokens",
            layer.tensor, layer.tokens
        );
    }
    out
}
