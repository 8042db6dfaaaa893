//! A linear layer as the forward pass sees it.
use crate::linalg::{Team, matmul_transposed};
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
}

/// Layers with the same input that are held in different ways, side by side.
pub struct SideBySide(pub Vec<Box<dyn Linear>>);

impl Linear for SideBySide {
    fn in_features(&self) -> usize {
        self.0.first().map_or(0, |part| part.in_features())
    }

    fn out_features(&self) -> usize {
        self.0.iter().map(|part| part.out_features()).sum()
    }

    fn forward(&self, x: ArrayView2<'_, f32>, mut y: ArrayViewMut2<'_, f32>, team: &Team) {
        for part in &self.0 {
            let (left, right) = y.split_at(Axis(1), part.out_features());
            part.forward(x, left, team);
            y = right;
        }
    }
}
