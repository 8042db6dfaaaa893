//! A linear layer as the forward pass sees it.
use crate::linalg::{Team, matmul_transposed, matmul_transposed_apart};
use crate::model::Weight;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};

/// `Y = X·Wᵀ` with any representation of `W`.
pub trait Linear: Send + Sync {
    /// Columns of `W`.
    fn in_features(&self) -> usize;

    /// Rows of `W`.
    fn out_features(&self) -> usize;

    /// `y ← x·Wᵀ`: `x` is `[tokens, in]`, `y` is `[tokens, out]`; rows of `y` may be strided,
    /// elements of a row are contiguous. Same bits at any number of threads.
    fn forward(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, team: &Team);

    /// Each row as [`Self::forward`] of it alone, bit for bit. Where that is not written out for a
    /// layer, it reads its weights once per row.
    fn forward_apart(&self, x: ArrayView2<'_, f32>, mut y: ArrayViewMut2<'_, f32>, team: &Team) {
        let rows = x.axis_chunks_iter(Axis(0), 1).zip(y.axis_chunks_iter_mut(Axis(0), 1));
        rows.for_each(|(x, y)| self.forward(x, y, team));
    }
}

/// Whether the last digits of a row may depend on the rows beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// They may: the fastest product for their number.
    Together,
    /// They do not: each is computed as if it were alone.
    Apart,
}

/// Chooses how the weights of a model are held and multiplied.
pub trait Backend: Sync {
    /// One layer from weights that see the same input (query, key and value, say), stacked in
    /// order along the outputs. All have the same number of columns.
    fn linear(&self, parts: Vec<Weight>) -> Box<dyn Linear>;
}

/// The reference: every weight in float32.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Backend for Reference {
    fn linear(&self, parts: Vec<Weight>) -> Box<dyn Linear> {
        Box::new(Dense::new(&parts))
    }
}

/// A float32 matrix `[out, in]`.
#[derive(Clone, Debug)]
pub struct Dense(Array2<f32>);

impl Dense {
    /// Stacks weights with the same number of columns.
    pub fn new(parts: &[Weight]) -> Self {
        let columns = parts.first().map_or(0, |part| part.shape()[1]);
        let values: Vec<f32> = parts.iter().flat_map(Weight::to_f32).collect();
        let rows = values.len() / columns.max(1);
        Self(Array2::from_shape_vec((rows, columns), values).expect("rows × columns values"))
    }
}

impl Linear for Dense {
    fn in_features(&self) -> usize {
        self.0.ncols()
    }

    fn out_features(&self) -> usize {
        self.0.nrows()
    }

    fn forward(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, team: &Team) {
        matmul_transposed(x, self.0.view(), y, team);
    }

    fn forward_apart(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, team: &Team) {
        matmul_transposed_apart(x, self.0.view(), y, team);
    }
}

/// Layers with the same input that are held in different ways, side by side.
pub struct SideBySide(pub Vec<Box<dyn Linear>>);

impl SideBySide {
    /// Calls `f` for each layer with its columns of `y`.
    fn each(&self, mut y: ArrayViewMut2<'_, f32>, f: impl Fn(&dyn Linear, ArrayViewMut2<'_, f32>)) {
        for part in &self.0 {
            let (left, right) = y.split_at(Axis(1), part.out_features());
            f(&**part, left);
            y = right;
        }
    }
}

impl Linear for SideBySide {
    fn in_features(&self) -> usize {
        self.0.first().map_or(0, |part| part.in_features())
    }

    fn out_features(&self) -> usize {
        self.0.iter().map(|part| part.out_features()).sum()
    }

    fn forward(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, team: &Team) {
        self.each(y, |part, y| part.forward(x, y, team));
    }

    fn forward_apart(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, team: &Team) {
        self.each(y, |part, y| part.forward_apart(x, y, team));
    }
}
