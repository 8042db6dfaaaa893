//! The grids of a row: those of its groups, and one of its outlier columns.
use super::rtn::Rtn;
use crate::{
    scheme::{OUTLIER_GRID, OutlierColumns, QTensor, SplitTensor, WeightGrid},
    tensor::FloatType,
};
use ndarray::{Array2, s};
use std::ops::Range;

/// Which columns of a row share a grid: groups of the base, and one of outliers behind them.
#[derive(Clone, Copy)]
pub(super) struct Grids {
    base: Rtn,
    /// Columns of the base.
    columns: usize,
    /// Columns of a group of the base.
    size: usize,
    /// Groups of the base.
    groups: usize,
    outliers: usize,
}

impl Grids {
    pub(super) fn new(base: Rtn, columns: usize, outliers: usize) -> Self {
        let groups = base.grid.groups(columns).expect("the group size divides the columns");
        Self { base, columns, size: base.grid.group_size(columns), groups, outliers }
    }

    /// Grids of a row.
    pub(super) fn count(self) -> usize {
        self.groups + usize::from(self.outliers > 0)
    }

    /// The grid of a column.
    pub(super) fn of(self, column: usize) -> usize {
        if column < self.columns { column / self.size } else { self.groups }
    }

    /// The columns of a grid.
    pub(super) fn span(self, grid: usize) -> Range<usize> {
        if grid < self.groups {
            return grid * self.size..(grid + 1) * self.size;
        }
        self.columns..self.columns + self.outliers
    }

    pub(super) fn grid(self, column: usize) -> WeightGrid {
        if column < self.columns { self.base.grid } else { OUTLIER_GRID.into() }
    }

    pub(super) fn scale_type(self) -> FloatType {
        self.base.scale_type
    }

    /// Chooses the grids of rows, `values` `[rows, in]`, with each column's squared errors
    /// weighted.
    pub(super) fn search(
        self,
        values: &[f32],
        weights: &[f32],
        scales: &mut [f32],
        zero_points: &mut [i8],
    ) {
        let fine = Rtn { grid: OUTLIER_GRID.into(), ..self.base };
        let (coarse_weights, fine_weights) = weights.split_at(self.columns);
        let mut zero_points = zero_points.chunks_mut(self.count());
        for (values, scales) in values.chunks(weights.len()).zip(scales.chunks_mut(self.count())) {
            let (base, outliers) = values.split_at(self.columns);
            let (coarse, last) = scales.split_at_mut(self.groups);
            let zeros = zero_points.next().unwrap_or_default();
            let zeros = zeros.get_mut(..self.groups).unwrap_or_default();
            self.base.search(base, coarse_weights, (coarse, zeros));
            fine.search(outliers, fine_weights, (last, &mut []));
        }
    }

    /// Takes codes and grids of rows apart where the outliers begin.
    pub(super) fn parted(self, outliers: OutlierColumns, whole: &QTensor) -> SplitTensor {
        let [rows, columns] = whole.shape;
        let scales = Array2::from_shape_fn((rows, self.count()), |(row, grid)| {
            whole.scales[row * self.count() + grid]
        });
        let codes = |of: Range<usize>| {
            let rows = whole.codes.chunks(columns.max(1));
            rows.flat_map(|row| row[of.clone()].iter().copied()).collect()
        };
        let zeros = whole.zero_points.chunks(self.count());
        let base = QTensor {
            scheme: whole.scheme,
            shape: [rows, self.columns],
            codes: codes(0..self.columns),
            scales: scales.slice(s![.., ..self.groups]).iter().copied().collect(),
            zero_points: zeros.flat_map(|row| row[..self.groups].iter().copied()).collect(),
        };
        let fine = QTensor {
            scheme: OUTLIER_GRID,
            shape: [rows, self.outliers],
            codes: codes(self.columns..columns),
            scales: scales.slice(s![.., self.groups..]).iter().copied().collect(),
            zero_points: Vec::new(),
        };
        SplitTensor::new(outliers, base, fine)
    }
}
