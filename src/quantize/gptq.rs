//! Adaptive rounding of one weight: codes that give the least output error, not the least weight
//! error.
//!
//! With `H = Σ x·xᵀ` over the inputs of calibration tokens, the output error of a rounded weight Q
//! is `tr((W − Q)·H·(W − Q)ᵀ)`. GPTQ (arXiv 2210.17323) rounds column after column and moves each
//! error onto the columns that are not rounded yet: with `H⁻¹ = Uᵀ·U` and `e = (w − q) / U_jj`,
//! the columns after j change by `−e·U[j, j+1..]`. Columns of large diagonal go first
//! (activation order); the grids of groups are chosen before (static groups), with each column's
//! error weighted by its diagonal. Descent on codes and scales (`polish.rs`) follows.
//!
//! Outlier columns lie behind the others, on the last grid of each row, and are rounded last: the
//! errors of coarse columns move onto fine ones (`QUIK`, arXiv 2310.09259).
use super::{grids::Grids, polish::Polish, rtn::Rtn};
use crate::{
    linalg::{Cholesky, LinalgError, Team, add_assign, factor_damped, matmul_add},
    scheme::{OutlierColumns, QTensor, Qparams, Rounded},
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
    /// Rounds of descent on codes and scales after GPTQ.
    pub sweeps: usize,
}

/// The inputs of a layer, made ready to round any weight that reads them.
pub struct Hessian {
    /// Columns that are kept finer. Where there are some, all columns are in the order of
    /// [`OutlierColumns::order`].
    outliers: Option<OutlierColumns>,
    /// Columns in the order in which they are rounded.
    order: Vec<usize>,
    /// H with its damping, `[in, in]`.
    damped: Array2<f32>,
    /// U with `H⁻¹ = Uᵀ·U`, in the order of rounding; the upper triangle.
    upper: Array2<f32>,
    damping: f64,
    raised: u32,
}

impl Hessian {
    /// Factors `h`, `[in, in]`, of which the upper triangle is read. Damping is raised step by
    /// step where it does not suffice.
    pub fn new(
        h: ArrayView2<'_, f32>,
        damping: f64,
        outliers: Option<OutlierColumns>,
    ) -> Result<Self, LinalgError> {
        let n = h.nrows();
        let places = outliers.as_ref().map_or_else(|| (0..n).collect(), OutlierColumns::order);
        let full = Array2::from_shape_fn((n, n), |(i, j)| {
            let (i, j) = (places[i], places[j]);
            f64::from(h[[i.min(j), i.max(j)]])
        });
        let mut order: Vec<usize> = (0..n).collect();
        let base = outliers.as_ref().map_or(n, OutlierColumns::base);
        order.sort_by(|a, b| {
            let larger = full[[*b, *b]].total_cmp(&full[[*a, *a]]);
            (*a >= base).cmp(&(*b >= base)).then(larger).then(a.cmp(b))
        });
        let ordered = Array2::from_shape_fn((n, n), |(i, j)| full[[order[i], order[j]]]);
        let factored = factor_damped(ordered.view(), damping)?;
        drop(ordered);
        let upper = Cholesky::new(factored.cholesky.inverse())?.upper().mapv(|u| u as f32);
        let mut damped = full;
        damped.diag_mut().mapv_inplace(|d| d + factored.lambda);
        let damped = damped.mapv(|x| x as f32);
        let (damping, raised) = (factored.damping, factored.steps);
        Ok(Self { outliers, order, damped, upper, damping, raised })
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
    pub fn round(&self, weight: &Array2<f32>, rounding: Rounding, team: &Team) -> Rounded {
        let (out, columns) = weight.dim();
        assert_eq!(columns, self.order.len(), "columns of the weight and of H");
        let places = self.outliers.as_ref().map(OutlierColumns::order);
        let moved = places.map(|places| weight.select(Axis(1), &places));
        let weight = moved.as_ref().unwrap_or(weight);
        let base = self.outliers.as_ref().map_or(columns, OutlierColumns::base);
        let grids = Grids::new(rounding.grid, base, columns - base);
        let count = grids.count();
        let zeros = if rounding.grid.grid.symmetric() { 0 } else { count };
        let mut codes = vec![0; out * columns];
        let mut scales = vec![0.0; out * count];
        let mut zero_points = vec![0; out * zeros];
        let diagonal: Vec<f32> = self.damped.diag().to_vec();
        let mut zeros = zero_points.chunks_mut((ROWS * zeros).max(1));
        let tasks: Vec<Tile<'_>> = weight
            .axis_chunks_iter(Axis(0), ROWS)
            .zip(codes.chunks_mut(ROWS * columns))
            .zip(scales.chunks_mut(ROWS * count))
            .map(|((weight, codes), scales)| {
                let zero_points = zeros.next().unwrap_or_default();
                Tile { weight, codes, scales, zero_points }
            })
            .collect();
        team.each(tasks, |_, mut tile| {
            let weight = tile.weight;
            let values = weight.as_standard_layout();
            let values = values.as_slice().expect("standard layout");
            grids.search(values, &diagonal, tile.scales, tile.zero_points);
            self.compensate(&mut tile, grids);
            let polish = Polish { grids, hessian: &self.damped };
            polish.run(values, (tile.codes, tile.scales, tile.zero_points), rounding.sweeps);
        });
        let scheme = rounding.grid.grid.integers();
        let whole = QTensor { scheme, shape: [out, columns], codes, scales, zero_points };
        match &self.outliers {
            None => whole.into(),
            Some(outliers) => grids.parted(outliers.clone(), &whole).into(),
        }
    }

    /// GPTQ over some rows whose grids are chosen.
    fn compensate(&self, tile: &mut Tile<'_>, grids: Grids) {
        let (rows, columns) = tile.weight.dim();
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
                    let at = row * grids.count() + grids.of(column);
                    let zero_point = tile.zero_points.get(at).copied().unwrap_or(0);
                    let q = Qparams { scale: tile.scales[at], zero_point };
                    let code = grids.grid(column).encode(w[j], q);
                    tile.codes[row * columns + column] = code;
                    let upper = self.upper.row(j);
                    let upper = upper.to_slice().expect("rows are contiguous");
                    let error = (q.value(code) - w[j]) / upper[j];
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        quantize::Method,
        scheme::{Granularity, IntScheme, OUTLIER_GRID, SplitTensor},
        tensor::FloatType,
    };
    use ndarray::array;

    fn rounding(granularity: Granularity, sweeps: usize) -> Rounding {
        let scheme = IntScheme { bits: 4, symmetric: true, granularity };
        let grid = Rtn { grid: scheme.into(), scale_type: FloatType::F32, method: Method::Mse };
        Rounding { grid, sweeps }
    }

    fn whole(rounded: Rounded) -> QTensor {
        match rounded {
            Rounded::Whole(tensor) => tensor,
            Rounded::Split(_) => panic!("no outliers were asked for"),
        }
    }

    /// Tokens of correlated inputs, `[tokens, columns]`, and a weight `[rows, columns]`.
    fn case(tokens: usize, columns: usize, rows: usize) -> (Array2<f32>, Array2<f32>) {
        let wave = |i: usize, j: usize| ((i * 37 + j * 11 + i * j) as f32 * 0.71).sin();
        let x = Array2::from_shape_fn((tokens, columns), |(t, j)| {
            wave(t, j) + 0.8 * wave(t, j / 4) + if j == 3 { 2.0 } else { 0.0 }
        });
        (x, Array2::from_shape_fn((rows, columns), |(i, j)| wave(j + 5, i).powi(3)))
    }

    /// `tr((W − Q)·H·(W − Q)ᵀ)` over the tokens themselves.
    fn output_error(x: &Array2<f32>, w: &Array2<f32>, q: &Rounded) -> f64 {
        let q = Array2::from_shape_vec(w.dim(), q.dequantize()).unwrap();
        (w - &q).dot(&x.t()).iter().map(|e| f64::from(*e).powi(2)).sum()
    }

    #[test]
    fn the_error_of_a_column_moves_onto_the_next() {
        // Min-max scale 1: -8 lands on the lowest code. Column 1 has the larger diagonal and is
        // rounded first: 2.4 to 2, e = 0.4 too little. The best w_0 is then
        // 3.3 + 0.4·H_01 / H_00 = 3.3 + 0.4·1.5 / 2 = 3.6, which rounds to 4, not to 3.
        let h = array![[2.0_f32, 1.5, 0.0], [1.5, 3.0, 0.0], [0.0, 0.0, 1.0]];
        let w = array![[3.3_f32, 2.4, -8.0]];
        let mut rounding = rounding(Granularity::Channel, 0);
        rounding.grid.method = Method::Minmax;
        let hessian = Hessian::new(h.view(), 0.0, None).unwrap();
        let q = whole(hessian.round(&w, rounding, &Team::new(1)));
        assert_eq!((q.codes, q.scales), (vec![4, 2, -8], vec![1.0]));
        let apart = Array2::from_diag(&h.diag());
        let hessian = Hessian::new(apart.view(), 0.0, None).unwrap();
        let q = whole(hessian.round(&w, rounding, &Team::new(1)));
        assert_eq!(q.codes, [3, 2, -8], "without correlation each code is the nearest");
    }

    #[test]
    fn outputs_err_less_than_with_the_nearest_codes_and_descent_helps() {
        let (x, w) = case(300, 64, 40);
        let hessian = Hessian::new(x.t().dot(&x).view(), 0.01, None).unwrap();
        for granularity in [Granularity::Channel, Granularity::Group(32)] {
            let error = |sweeps| {
                let q = hessian.round(&w, rounding(granularity, sweeps), &Team::new(2));
                output_error(&x, &w, &q)
            };
            let values = w.as_slice().unwrap();
            let nearest = rounding(granularity, 0).grid.tensor(values, [40, 64]).into();
            let (nearest, once, polished) = (output_error(&x, &w, &nearest), error(0), error(5));
            assert!(once < nearest && polished < once, "{nearest} {once} {polished}");
        }
    }

    #[test]
    fn outliers_are_nearest_where_inputs_are_independent() {
        let (_, w) = case(10, 40, 5);
        let columns = OutlierColumns::new(40, vec![2, 5, 6, 7, 20, 21, 22, 39]).unwrap();
        let identity = Array2::<f32>::eye(40);
        let hessian = Hessian::new(identity.view(), 0.0, Some(columns.clone())).unwrap();
        let rounding = rounding(Granularity::Group(16), 0);
        let order = columns.order();
        let nearest = |places: &[usize], grid: Rtn| {
            let values: Vec<f32> = (0..5)
                .flat_map(|row| places.iter().map(move |at| (row, *at)))
                .map(|at| w[at])
                .collect();
            grid.tensor(&values, [5, places.len()])
        };
        let fine = Rtn { grid: OUTLIER_GRID.into(), ..rounding.grid };
        let want = SplitTensor::new(
            columns,
            nearest(&order[..32], rounding.grid),
            nearest(&order[32..], fine),
        );
        assert_eq!(hessian.round(&w, rounding, &Team::new(2)), want.into());
    }

    #[test]
    fn outliers_take_over_errors_of_the_other_columns() {
        let (x, w) = case(300, 64, 40);
        let h = x.t().dot(&x);
        let columns = OutlierColumns::new(64, (0..64).step_by(8).collect()).unwrap();
        let round = |columns: Option<OutlierColumns>, sweeps| {
            let hessian = Hessian::new(h.view(), 0.01, columns).unwrap();
            let rounding = rounding(Granularity::Channel, sweeps);
            output_error(&x, &w, &hessian.round(&w, rounding, &Team::new(2)))
        };
        for sweeps in [0, 3] {
            let (plain, split) = (round(None, sweeps), round(Some(columns.clone()), sweeps));
            // An eighth of the columns errs hardly at all; compensation takes more than that share.
            assert!(split < 0.875 * plain, "{plain} {split}");
        }
    }

    #[test]
    fn a_hessian_of_other_inputs_does_not_help() {
        let (x, w) = case(300, 64, 40);
        let other = Array2::from_shape_fn((300, 64), |(t, j)| x[[t, (j * 29 + 7) % 64]]);
        let error = |inputs: &Array2<f32>| {
            let hessian = Hessian::new(inputs.t().dot(inputs).view(), 0.01, None).unwrap();
            let q = hessian.round(&w, rounding(Granularity::Channel, 3), &Team::new(1));
            output_error(&x, &w, &q)
        };
        assert!(error(&other) > 1.5 * error(&x));
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_code() {
        let (x, w) = case(100, 96, 150);
        let hessian = Hessian::new(x.t().dot(&x).view(), 0.01, None).unwrap();
        let round =
            |threads| hessian.round(&w, rounding(Granularity::Group(32), 2), &Team::new(threads));
        assert_eq!(round(1), round(2));
        assert_eq!(round(1), round(5));
    }

    #[test]
    fn inputs_that_are_always_zero_are_rounded_to_something_finite() {
        let (mut x, w) = case(100, 32, 8);
        x.column_mut(5).fill(0.0);
        x.row_mut(0).fill(0.0);
        let hessian = Hessian::new(x.t().dot(&x).view(), 0.01, None).unwrap();
        let q = hessian.round(&w, rounding(Granularity::Channel, 2), &Team::new(1));
        assert!(q.dequantize().iter().all(|x| x.is_finite()));
        let nothing = Array2::<f32>::zeros((4, 4));
        assert!(matches!(
            Hessian::new(nothing.view(), 0.01, None),
            Err(LinalgError::NotPositive { .. })
        ));
    }

    #[test]
    fn twins_raise_the_damping_and_say_so() {
        let hessian = Hessian::new(Array2::<f32>::ones((2, 2)).view(), 0.0, None).unwrap();
        assert!(hessian.raised() > 0 && hessian.damping() > 0.0);
    }
}
