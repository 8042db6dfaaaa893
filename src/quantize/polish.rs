//! Coordinate descent on codes and scales: lowers `tr((W − Q)·H·(W − Q)ᵀ)` step by step.
//!
//! With `G = (W − Q)·H`, a change δ of one rounded weight changes the error of its row by
//! `−2·δ·g_j + δ²·H_jj`: the best value is `q_j + g_j / H_jj`, rounded to the grid. A change δ of
//! the scale of a group with centered codes c changes it by `−2·δ·c·g + δ²·c·H·cᵀ`: the best is
//! `δ = c·g / (c·H·cᵀ)`, rounded to the type of the scales and kept where it lowers the error.
//! (The same descent finds lattice points in `LDLQ`'s greedy passes, arXiv 2307.13304.)
use super::grids::Grids;
use crate::{
    linalg::{add_assign, matmul},
    scheme::Qparams,
};
use ndarray::{Array2, ArrayView2, s};

/// What a descent needs.
#[derive(Clone, Copy)]
pub(super) struct Polish<'a> {
    pub(super) grids: Grids,
    /// H with its damping, `[in, in]`.
    pub(super) hessian: &'a Array2<f32>,
}

impl Polish<'_> {
    /// Goes over scales and codes of some rows `sweeps` times: `values` are `[rows, in]`.
    pub(super) fn run(
        self,
        values: &[f32],
        (codes, scales, zero_points): (&mut [i8], &mut [f32], &[i8]),
        sweeps: usize,
    ) {
        let columns = self.hessian.nrows();
        if sweeps == 0 || values.is_empty() {
            return;
        }
        let rows = values.len() / columns;
        let mut state = State {
            grids: self.grids,
            hessian: self.hessian,
            gradient: Array2::zeros((rows, columns)),
            codes,
            scales,
            zero_points,
        };
        let residual = Array2::from_shape_fn((rows, columns), |(row, j)| {
            values[row * columns + j] - state.value(row, j)
        });
        matmul(residual.view(), self.hessian.view(), state.gradient.view_mut());
        for _ in 0..sweeps {
            state.scales();
            if !state.codes() {
                break;
            }
        }
    }
}

/// Rows in work.
struct State<'a> {
    grids: Grids,
    hessian: &'a Array2<f32>,
    /// `(W − Q)·H`, `[rows, in]`.
    gradient: Array2<f32>,
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    zero_points: &'a [i8],
}

impl State<'_> {
    fn qparams(&self, row: usize, column: usize) -> Qparams {
        let at = row * self.grids.count() + self.grids.of(column);
        let zero_point = self.zero_points.get(at).copied().unwrap_or(0);
        Qparams { scale: self.scales[at], zero_point }
    }

    fn value(&self, row: usize, column: usize) -> f32 {
        let code = self.codes[row * self.hessian.nrows() + column];
        self.qparams(row, column).value(code)
    }

    /// One pass over the scales, group by group.
    fn scales(&mut self) {
        let (rows, columns) = self.gradient.dim();
        let mut moved = Array2::<f32>::zeros((rows, columns));
        for group in 0..self.grids.count() {
            let here = self.grids.span(group);
            let centered = Array2::from_shape_fn((rows, here.len()), |(row, j)| {
                let zero_point = self.qparams(row, here.start).zero_point;
                f32::from(self.codes[row * columns + here.start + j]) - f32::from(zero_point)
            });
            let block: ArrayView2<'_, f32> = self.hessian.slice(s![here.clone(), ..]);
            matmul(centered.view(), block, moved.view_mut());
            for row in 0..rows {
                let codes = centered.row(row);
                let b = codes.dot(&self.gradient.slice(s![row, here.clone()]));
                let a = codes.dot(&moved.slice(s![row, here.clone()]));
                let at = row * self.grids.count() + group;
                let scale = self.scales[at];
                let grid = self.grids.grid(here.start);
                let wanted = grid.round_scale(scale + b / a, self.grids.scale_type());
                let step = wanted - scale;
                let gain = 2.0 * step * b - step * step * a;
                // A scale keeps its sign: some engines know no negative ones.
                if gain > 0.0 && wanted.is_finite() && wanted * scale > 0.0 {
                    self.scales[at] = wanted;
                    let moved = moved.row(row);
                    let moved = moved.to_slice().expect("rows are contiguous");
                    add_assign(gradient(&mut self.gradient, row), moved, -step);
                }
            }
        }
    }

    /// One pass over the codes; whether any changed.
    fn codes(&mut self) -> bool {
        let (rows, columns) = self.gradient.dim();
        let mut changed = false;
        for j in 0..columns {
            let hessian = self.hessian.row(j);
            let hessian = hessian.to_slice().expect("rows are contiguous");
            for row in 0..rows {
                let q = self.qparams(row, j);
                let best = self.value(row, j) + self.gradient[[row, j]] / hessian[j];
                let code = self.grids.grid(j).encode(best, q);
                let old = &mut self.codes[row * columns + j];
                if code != *old {
                    let step = (f32::from(code) - f32::from(*old)) * q.scale;
                    *old = code;
                    changed = true;
                    add_assign(gradient(&mut self.gradient, row), hessian, -step);
                }
            }
        }
        changed
    }
}

fn gradient(gradients: &mut Array2<f32>, row: usize) -> &mut [f32] {
    gradients.row_mut(row).into_slice().expect("rows are contiguous")
}
