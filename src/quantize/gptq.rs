//! Adaptive rounding of one weight: codes that give the least output error, not the least weight
//! error.
//!
//! With `H = Σ x·xᵀ` over the inputs of calibration tokens, the output error of a rounded weight Q
//! is `tr((W − Q)·H·(W − Q)ᵀ)`. GPTQ (arXiv 2210.17323) rounds column after column and moves each
//! error onto the columns that are not rounded yet: with `H⁻¹ = Uᵀ·U` and `e = (w − q) / U_jj`,
//! the columns after j change by `−e·U[j, j+1..]`. Columns of large diagonal go first
//! (activation order); the grids of groups are chosen before (static groups), with each column's
//! error weighted by its diagonal. [`polish`](super::polish) then improves codes and scales.
use super::{polish::Polish, rtn::Rtn};
use crate::{
    linalg::{Cholesky, LinalgError, Team, add_assign, factor_damped, matmul_add},
    scheme::{QTensor, Qparams},
};
use ndarray::{Array2, ArrayView2, Axis, s};

/// Columns whose errors reach the columns behind them in one product.
const BLOCK: usize = 128;
/// Rows that one task takes. Fixed, so that the result does not depend on threads.
const ROWS: usize = 32;

/// How a weight is rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rounding {
    /// Grid, type of its scales, and how scales are chosen.
    pub grid: Rtn,
    /// Rounds of [`polish`](super::polish) after GPTQ.
    pub sweeps: usize,
}

/// The inputs of a layer, made ready to round any weight that reads them.
pub struct Hessian {
    /// Columns in the order in which they are rounded.
    order: Vec<usize>,
    /// H with its damping, `[in, in]`, in the order of the weight's columns.
    damped: Array2<f32>,
    /// U with `H⁻¹ = Uᵀ·U`, in the order of rounding; the upper triangle.
    upper: Array2<f32>,
    damping: f64,
    raised: u32,
}

impl Hessian {
    /// Factors `h`, `[in, in]`, of which the upper triangle is read. Damping is raised step by
    /// step where it does not suffice.
    pub fn new(h: ArrayView2<'_, f32>, damping: f64) -> Result<Self, LinalgError> {
        let n = h.nrows();
        let full = Array2::from_shape_fn((n, n), |(i, j)| f64::from(h[[i.min(j), i.max(j)]]));
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| full[[*b, *b]].total_cmp(&full[[*a, *a]]).then(a.cmp(b)));
        let ordered = Array2::from_shape_fn((n, n), |(i, j)| full[[order[i], order[j]]]);
        let factored = factor_damped(ordered.view(), damping)?;
        drop(ordered);
        let upper = Cholesky::new(factored.cholesky.inverse())?.upper().mapv(|u| u as f32);
        let mut damped = full;
        damped.diag_mut().mapv_inplace(|d| d + factored.lambda);
        let damped = damped.mapv(|x| x as f32);
        Ok(Self { order, damped, upper, damping: factored.damping, raised: factored.steps })
    }

    /// Damping that was used, relative to the mean of H's diagonal.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    /// Times that the damping had to be raised tenfold until the factorization held.
    pub fn raised(&self) -> u32 {
        self.raised
    }

    /// Rounds a weight `[out, in]` of finite numbers.
    ///
    /// # Panics
    /// When the weight has other columns than H, or the group size does not divide them.
    pub fn round(&self, weight: &Array2<f32>, rounding: Rounding, team: &Team) -> QTensor {
        let (out, columns) = weight.dim();
        assert_eq!(columns, self.order.len(), "columns of the weight and of H");
        let scheme = rounding.grid.scheme;
        let groups = scheme.groups(columns).expect("the group size divides the columns");
        let mut tensor = QTensor {
            scheme,
            shape: [out, columns],
            codes: vec![0; out * columns],
            scales: vec![0.0; out * groups],
            zero_points: vec![0; if scheme.symmetric { 0 } else { out * groups }],
        };
        let diagonal: Vec<f32> = self.damped.diag().to_vec();
        let zeros = if scheme.symmetric { 0 } else { ROWS * groups };
        let mut zero_points = tensor.zero_points.chunks_mut(zeros.max(1));
        let tasks: Vec<Tile<'_>> = weight
            .axis_chunks_iter(Axis(0), ROWS)
            .zip(tensor.codes.chunks_mut(ROWS * columns))
            .zip(tensor.scales.chunks_mut(ROWS * groups))
            .map(|((weight, codes), scales)| {
                let zero_points = zero_points.next().unwrap_or_default();
                Tile { weight, codes, scales, zero_points }
            })
            .collect();
        team.each(tasks, |_, mut tile| {
            let weight = tile.weight;
            let values = weight.as_standard_layout();
            let values = values.as_slice().expect("standard layout");
            rounding.grid.search(values, &diagonal, (tile.scales, tile.zero_points));
            self.compensate(&mut tile, rounding.grid);
            let polish = Polish { grid: rounding.grid, hessian: &self.damped };
            polish.run(values, (tile.codes, tile.scales, tile.zero_points), rounding.sweeps);
        });
        tensor
    }

    /// GPTQ over some rows whose grids are chosen.
    fn compensate(&self, tile: &mut Tile<'_>, grid: Rtn) {
        let (rows, columns) = tile.weight.dim();
        let groups = tile.scales.len() / rows.max(1);
        let size = columns / groups.max(1);
        let mut w =
            Array2::from_shape_fn((rows, columns), |(row, j)| tile.weight[[row, self.order[j]]]);
        for first in (0..columns).step_by(BLOCK) {
            let last = (first + BLOCK).min(columns);
            let mut errors = Array2::<f32>::zeros((rows, last - first));
            for (row, (mut w, mut errors)) in
                w.outer_iter_mut().zip(errors.outer_iter_mut()).enumerate()
            {
                let w = w.as_slice_mut().expect("rows are contiguous");
                let errors = errors.as_slice_mut().expect("rows are contiguous");
                for j in first..last {
                    let column = self.order[j];
                    let at = row * groups + column / size;
                    let zero_point = tile.zero_points.get(at).copied().unwrap_or(0);
                    let q = Qparams { scale: tile.scales[at], zero_point };
                    let code = grid.scheme.quantize(w[j], q);
                    tile.codes[row * columns + column] = code;
                    let upper = self.upper.row(j);
                    let upper = upper.to_slice().expect("rows are contiguous");
                    let error = (grid.scheme.dequantize(code, q) - w[j]) / upper[j];
                    errors[j - first] = error;
                    add_assign(&mut w[j + 1..last], &upper[j + 1..last], error);
                }
            }
            let behind = self.upper.slice(s![first..last, last..]);
            matmul_add(errors.view(), behind, w.slice_mut(s![.., last..]));
        }
    }
}

/// Some rows of a weight and what becomes of them.
struct Tile<'a> {
    weight: ArrayView2<'a, f32>,
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    zero_points: &'a mut [i8],
}
