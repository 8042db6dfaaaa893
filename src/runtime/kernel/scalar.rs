//! Plain Rust: what the other instruction sets must equal.
use super::activations::Block;
use super::packed::{Panel, ROWS, STEP};
use ndarray::ArrayViewMut2;

/// `Σ (u - zero) · a` over one group, for each row of the panel.
fn group_sums(panel: &Panel<'_>, block: Block<'_>, token: usize, group: usize) -> [i32; ROWS] {
    let (steps, tokens) = (panel.form.steps(), block.scales.len());
    std::array::from_fn(|lane| {
        let mut sum = -i32::from(panel.zero(group, lane)) * block.sums[group * tokens + token];
        for step in 0..steps {
            for column in 0..STEP {
                let quad = (group * steps + step) * 2 + column / 4;
                let a = block.words[quad * tokens + token].to_le_bytes()[column % 4] as i8;
                sum += i32::from(panel.code(group, step, column, lane)) * i32::from(a);
            }
        }
        sum
    })
}

/// The integer sums of every group, `[group, token, 32]`.
pub(super) fn sums(panel: &Panel<'_>, block: Block<'_>, out: &mut Vec<[i32; ROWS]>) {
    for group in 0..panel.form.groups {
        out.extend((0..block.scales.len()).map(|token| group_sums(panel, block, token, group)));
    }
}

/// `y[token, row] = (Σ_g scale[g, row] · sum[g]) · scale[token]`, groups in order, fused.
pub(super) fn integer(panel: &Panel<'_>, block: Block<'_>, mut y: ArrayViewMut2<'_, f32>) {
    for (token, mut y) in y.rows_mut().into_iter().enumerate() {
        let mut total = [0.0; ROWS];
        for group in 0..panel.form.groups {
            let scales = panel.scales(group);
            let sums = group_sums(panel, block, token, group);
            for lane in 0..ROWS {
                total[lane] = scales[lane].mul_add(sums[lane] as f32, total[lane]);
            }
        }
        for (y, total) in y.iter_mut().zip(total) {
            *y = total * block.scales[token];
        }
    }
}

/// `y[row] = Σ_g scale[g, row] · sum[g]` with float activations `x` `[width]`: within a group,
/// each of the four columns of a quad has its own sum of fused products `(u - zero) · x`.
pub(super) fn float(panel: &Panel<'_>, x: &[f32], y: &mut [f32; ROWS]) {
    *y = [0.0; ROWS];
    let steps = panel.form.steps();
    for group in 0..panel.form.groups {
        let scales = panel.scales(group);
        for lane in 0..ROWS {
            let zero = f32::from(panel.zero(group, lane));
            let mut sums = [0.0; 4];
            for step in 0..steps {
                let x = &x[(group * steps + step) * STEP..][..STEP];
                for column in 0..STEP {
                    let code = f32::from(panel.code(group, step, column, lane));
                    sums[column % 4] = (code - zero).mul_add(x[column], sums[column % 4]);
                }
            }
            let sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
            y[lane] = scales[lane].mul_add(sum, y[lane]);
        }
    }
}

/// The weights in float32, transposed: `out[column · stride + lane]`.
pub(super) fn dequantize(panel: &Panel<'_>, out: &mut [f32], stride: usize) {
    for group in 0..panel.form.groups {
        let scales = panel.scales(group);
        for (i, column) in panel.form.span(group).enumerate() {
            for lane in 0..ROWS {
                let code = f32::from(panel.code(group, i / STEP, i % STEP, lane));
                let zero = f32::from(panel.zero(group, lane));
                out[column * stride + lane] = (code - zero) * scales[lane];
            }
        }
    }
}
