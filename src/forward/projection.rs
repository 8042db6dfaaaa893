//! Weights as layers: products with their biases, norms.
use super::{
    linear::{Backend, Linear, Rows},
    points::Point,
    scratch::{Run, Slot, Value},
    tap::Site,
};
use crate::linalg::{Hadamard, Team, add_assign, rms_norm};
use crate::model::{Expert, Model, Part, Role, Transformed, Weight, WeightError};
use ndarray::{ArrayView2, ArrayViewMut2, Axis};

/// Tokens that one task of a row-wise loop takes.
pub(super) const RUN: usize = 16;

/// A linear layer with its bias.
pub(super) struct Projection {
    linear: Box<dyn Linear>,
    bias: Option<Vec<f32>>,
}

/// Takes the weights of one place in a model.
pub(super) struct Loader<'a> {
    pub(super) model: &'a Model,
    pub(super) backend: &'a dyn Backend,
    pub(super) block: Option<usize>,
    pub(super) expert: Option<Expert>,
}

impl Loader<'_> {
    fn get(&self, role: Role, part: Part) -> Result<Option<Weight>, WeightError> {
        let Some(spec) = self.model.spec.find(self.block, role, self.expert, part) else {
            return Ok(None);
        };
        self.model.weights.get(&spec.name).map(Some)
    }

    /// A matrix that must be there.
    pub(super) fn weight(&self, role: Role) -> Result<Weight, WeightError> {
        let missing = || WeightError::Missing { name: format!("{role:?}").to_lowercase() };
        self.get(role, Part::Weight)?.ok_or_else(missing)
    }

    /// A norm gain, which must be there.
    pub(super) fn gain(&self, role: Role) -> Result<Vec<f32>, WeightError> {
        let mut gain = self.weight(role)?.to_f32();
        let offset = self.model.spec.gain_offset;
        if offset != 0.0 {
            for gain in &mut gain {
                *gain += offset;
            }
        }
        Ok(gain)
    }

    /// The Hadamard matrix of a width, where the model wants it multiplied online.
    pub(super) fn hadamard(
        &self,
        width: usize,
        wanted: impl Fn(&Transformed) -> bool,
    ) -> Option<Hadamard> {
        let transformed = self.model.spec.transformed.as_ref().filter(|it| wanted(it));
        transformed.map(|_| Hadamard::new(width).expect("checked when config.json was read"))
    }

    /// Layers that see the same input, stacked along the outputs.
    pub(super) fn projection(&self, roles: &[Role]) -> Result<Projection, WeightError> {
        let (mut weights, mut bias, mut biased) = (Vec::new(), Vec::new(), false);
        for role in roles {
            let weight = self.weight(*role)?;
            match self.get(*role, Part::Bias)? {
                Some(part) => {
                    biased = true;
                    bias.extend(part.to_f32());
                }
                None => bias.resize(bias.len() + weight.shape()[0], 0.0),
            }
            weights.push(weight);
        }
        let linear = self.backend.linear(weights);
        Ok(Projection { linear, bias: biased.then_some(bias) })
    }
}

impl Projection {
    /// Without a bias.
    pub(super) fn new(linear: Box<dyn Linear>) -> Self {
        Self { linear, bias: None }
    }

    /// Rows of the weight.
    pub(super) fn out_features(&self) -> usize {
        self.linear.out_features()
    }

    /// `y ← x·Wᵀ + b`.
    pub(super) fn forward(
        &self,
        x: ArrayView2<'_, f32>,
        mut y: ArrayViewMut2<'_, f32>,
        (team, rows): (&Team, Rows),
    ) {
        match rows {
            Rows::Together => self.linear.forward(x, y.view_mut(), team),
            Rows::Apart => self.linear.forward_apart(x, y.view_mut(), team),
        }
        if let Some(bias) = &self.bias {
            each_row(y, team, |_, row| add_assign(row, bias, 1.0));
        }
    }
}

/// A linear layer that leads back to the width of the stream.
pub(super) struct Output {
    linear: Projection,
    role: Role,
    expert: Option<Expert>,
}

impl Output {
    pub(super) fn load(loader: &Loader<'_>, role: Role) -> Result<Self, WeightError> {
        Ok(Self { linear: loader.projection(&[role])?, role, expert: loader.expert })
    }

    /// `y ← x·Wᵀ + b`.
    pub(super) fn project(
        &self,
        x: ArrayView2<'_, f32>,
        mut y: ArrayViewMut2<'_, f32>,
        run: &mut Run<'_>,
    ) {
        run.tap.see(Site::Input(self.role, self.expert), x);
        self.linear.forward(x, y.view_mut(), run.by());
        if let Some(point) = Point::behind(self.role) {
            run.tap.alter((point, self.expert), y);
        }
    }

    /// As [`Self::project`], of the layer that ends a half.
    pub(super) fn forward(&self, x: ArrayView2<'_, f32>, run: &mut Run<'_>) -> Value {
        let mut value = run.scratch.value(Slot::Out, x.nrows(), self.linear.out_features());
        self.project(x, value.view_mut(), run);
        run.tap.see(Site::Output(self.role), value.view());
        value
    }
}

/// A norm of each token.
pub(super) struct Norm {
    gain: Vec<f32>,
    eps: f32,
    role: Role,
}

impl Norm {
    pub(super) fn load(loader: &Loader<'_>, role: Role) -> Result<Self, WeightError> {
        Ok(Self { gain: loader.gain(role)?, eps: loader.model.spec.norm_eps, role })
    }

    /// By the name of its gain, of one behind which nothing is rounded.
    pub(super) fn named(model: &Model, gain: &str) -> Result<Self, WeightError> {
        let offset = model.spec.gain_offset;
        let gain = model.weights.get(gain)?.to_f32().into_iter().map(|it| it + offset).collect();
        Ok(Self { gain, eps: model.spec.norm_eps, role: Role::FinalNorm })
    }

    /// `y ← x / √(mean(x²) + ε) · gain`, row by row; rows of `x` are contiguous.
    pub(super) fn rows(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, team: &Team) {
        each_row(y, team, |t, y| {
            let x = x.row(t).to_slice().expect("rows are contiguous");
            rms_norm(x, &self.gain, self.eps, y);
        });
    }

    /// Of `x`, `[tokens, hidden]`.
    pub(super) fn forward(&self, x: ArrayView2<'_, f32>, run: &mut Run<'_>) -> Value {
        let mut value = run.scratch.value(Slot::Norm, x.nrows(), x.ncols());
        self.rows(x, value.view_mut(), run.team);
        if let Some(point) = Point::behind(self.role) {
            run.tap.alter((point, None), value.view_mut());
        }
        value
    }
}

/// Calls `f(token, row)` for each row, in parallel over runs of tokens.
pub(crate) fn each_row(
    mut x: ArrayViewMut2<'_, f32>,
    team: &Team,
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    let parts = x.axis_chunks_iter_mut(Axis(0), RUN).collect();
    team.each(parts, |part, mut rows| {
        for (i, mut row) in rows.outer_iter_mut().enumerate() {
            f(part * RUN + i, row.as_slice_mut().expect("rows are contiguous"));
        }
    });
}
