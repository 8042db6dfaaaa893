//! Where tokens enter and logits leave.
use super::{
    grids::end_grid,
    linear::{Backend, Reference, Rows},
    points::Point,
    projection::{Loader, Norm, Projection, each_row},
};
use crate::linalg::Team;
use crate::model::{Model, Role, Weight, WeightError};
use crate::scheme::ActivationGrid;
use ndarray::{Array2, ArrayView2};

/// A forward pass cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// A weight cannot be had.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A token outside of the vocabulary.
    #[error(
        "token {id} is outside of the vocabulary of {vocab}\nhint: is the tokenizer that of another model?"
    )]
    Token {
        /// The token.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// An embedding that is no matrix.
    #[error(
        "the embedding: expected a shape `[vocab, hidden]`, found {found:?}\nhint: the checkpoint does not fit its config.json"
    )]
    Embedding {
        /// Its shape.
        found: Vec<usize>,
    },
    /// Nothing to run over.
    #[error("no tokens to run over")]
    NoTokens,
}

/// The embedding, `[vocab, hidden]`.
pub struct Embedding {
    rows: Weight,
    scale: f32,
    grid: Option<ActivationGrid>,
}

impl Embedding {
    /// Takes the embedding of a model.
    pub fn load(model: &Model) -> Result<Self, WeightError> {
        let loader = Loader { model, backend: &Reference, block: None, expert: None };
        let (scale, grid) = (model.spec.embed_scale, end_grid(model, Point::Embedding));
        Ok(Self { rows: loader.weight(Role::Embed)?, scale, grid })
    }

    /// The rows of the tokens, `[tokens, hidden]`.
    pub fn rows(&self, ids: &[u32]) -> Result<Array2<f32>, ForwardError> {
        let &[vocab, hidden] = self.rows.shape() else {
            return Err(ForwardError::Embedding { found: self.rows.shape().to_vec() });
        };
        let mut rows = Array2::zeros((ids.len(), hidden));
        for (id, mut row) in ids.iter().zip(rows.outer_iter_mut()) {
            if *id as usize >= vocab {
                return Err(ForwardError::Token { id: *id, vocab });
            }
            let row = row.as_slice_mut().expect("rows are contiguous");
            self.rows.row(*id as usize, row);
            for x in row.iter_mut() {
                *x *= self.scale;
            }
            if let Some(grid) = &self.grid {
                grid.round(row);
            }
        }
        Ok(rows)
    }
}

/// The last norm and the head.
pub struct Head {
    norm: Norm,
    /// What a rotated model with a tied head has in the place of the gain.
    correction: Option<Projection>,
    linear: Projection,
    /// Static grids of the normed stream and of the logits.
    grids: [Option<ActivationGrid>; 2],
}

impl Head {
    /// Takes the last norm and the head of a model; a tied head is the embedding.
    pub fn load(model: &Model, backend: &dyn Backend) -> Result<Self, WeightError> {
        let loader = Loader { model, backend, block: None, expert: None };
        let role = model.spec.head().map_or(Role::Head, |tensor| tensor.role);
        let corrected = model.spec.has_head_correction();
        let correction = corrected.then(|| loader.projection(&[Role::HeadInput])).transpose()?;
        Ok(Self {
            correction,
            norm: Norm::load(&loader, Role::FinalNorm)?,
            linear: loader.projection(&[role])?,
            grids: [Point::FinalNorm, Point::Head].map(|point| end_grid(model, point)),
        })
    }

    /// Logits `[tokens, vocab]` of the residual stream `x`, `[tokens, hidden]`.
    pub fn logits(&self, x: ArrayView2<'_, f32>, team: &Team) -> Array2<f32> {
        let by = (team, Rows::Together);
        self.read(self.normed_by(x, by).view(), by)
    }

    /// Logits `[tokens, vocab]` of what [`Self::normed_by`] gives.
    pub fn read(&self, normed: ArrayView2<'_, f32>, by: (&Team, Rows)) -> Array2<f32> {
        let mut logits = Array2::zeros((normed.nrows(), self.linear.out_features()));
        self.linear.forward(normed, logits.view_mut(), by);
        round(self.grids[1], &mut logits, by.0);
        logits
    }

    /// What the head multiplies: the normed stream, `[tokens, hidden]`.
    pub fn normed(&self, x: ArrayView2<'_, f32>, team: &Team) -> Array2<f32> {
        self.normed_by(x, (team, Rows::Together))
    }

    /// As [`Self::normed`], of rows that are together or apart.
    pub fn normed_by(&self, x: ArrayView2<'_, f32>, (team, rows): (&Team, Rows)) -> Array2<f32> {
        let mut normed = Array2::zeros(x.dim());
        self.norm.rows(x, normed.view_mut(), team);
        if let Some(correction) = &self.correction {
            let plain = normed.clone();
            correction.forward(plain.view(), normed.view_mut(), (team, rows));
        }
        round(self.grids[0], &mut normed, team);
        normed
    }
}

fn round(grid: Option<ActivationGrid>, x: &mut Array2<f32>, team: &Team) {
    if let Some(grid) = grid {
        each_row(x.view_mut(), team, |_, row| grid.round(row));
    }
}
