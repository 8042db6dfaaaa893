//! Products with weights whose columns lie on two grids.
use super::integer::IntLinear;
use crate::{
    forward::Linear,
    linalg::{Team, add_assign},
    scheme::OutlierColumns,
};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};

/// The sum of two integer products, each with the columns of `x` that belong to it. With int8
/// activations each part has scales of its own: those of weak columns are not stretched by strong
/// ones.
pub(super) struct SplitLinear {
    columns: OutlierColumns,
    /// Where the columns of base and outliers lie, unless each is one piece.
    order: Option<Vec<usize>>,
    base: IntLinear,
    outliers: IntLinear,
}

impl SplitLinear {
    pub(super) fn new(columns: OutlierColumns, base: IntLinear, outliers: IntLinear) -> Self {
        let order = (!columns.are_last()).then(|| columns.order());
        Self { columns, order, base, outliers }
    }
}

impl Linear for SplitLinear {
    fn in_features(&self) -> usize {
        self.columns.total()
    }

    fn out_features(&self) -> usize {
        self.base.out_features()
    }

    fn forward(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, team: &Team) {
        self.sum(x, y, |part, x, y| part.forward(x, y, team));
    }

    fn forward_apart(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, team: &Team) {
        self.sum(x, y, |part, x, y| part.forward_apart(x, y, team));
    }
}

impl SplitLinear {
    /// The sum of what `f` makes of both parts.
    fn sum(
        &self,
        x: ArrayView2<'_, f32>,
        mut y: ArrayViewMut2<'_, f32>,
        f: impl Fn(&IntLinear, ArrayView2<'_, f32>, ArrayViewMut2<'_, f32>),
    ) {
        let moved = self.order.as_ref().map(|order| {
            Array2::from_shape_fn(x.dim(), |(token, column)| x[[token, order[column]]])
        });
        let x = moved.as_ref().map_or(x, |moved| moved.view());
        let (base, outliers) = x.split_at(Axis(1), self.columns.base());
        f(&self.base, base, y.view_mut());
        let mut sum = Array2::zeros(y.dim());
        f(&self.outliers, outliers, sum.view_mut());
        for (mut y, sum) in y.outer_iter_mut().zip(sum.outer_iter()) {
            let sum = sum.to_slice().expect("just made");
            add_assign(y.as_slice_mut().expect("rows are contiguous"), sum, 1.0);
        }
    }
}
