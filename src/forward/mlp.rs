//! The feed-forward part: a gate, or a mixture of experts.
use super::{
    points::Point,
    projection::{Loader, Output, Projection, each_row},
    scratch::{Run, Slot, Value},
    tap::Site,
};
use crate::linalg::{Hadamard, add_assign, gelu_mul, silu_mul, softmax};
use crate::model::{Activation, Expert, Mlp, Role, WeightError};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

/// `act(gate(x)) · up(x)`.
pub(super) struct Gate {
    /// Gate and up.
    projection: Projection,
    activation: Activation,
    /// What the product is multiplied by.
    rotation: Option<Hadamard>,
    expert: Option<Expert>,
}

impl Gate {
    pub(super) fn load(loader: &Loader<'_>, activation: Activation) -> Result<Self, WeightError> {
        let projection = loader.projection(&[Role::Gate, Role::Up])?;
        let width = projection.out_features() / 2;
        let rotation = loader.hadamard(width, |transformed| transformed.down_input);
        Ok(Self { projection, activation, rotation, expert: loader.expert })
    }

    /// Of `x`, `[tokens, hidden]`.
    pub(super) fn forward(&self, x: ArrayView2<'_, f32>, run: &mut Run<'_>) -> Value {
        let by = run.by();
        let both = self.projection.out_features();
        let mut value = run.scratch.value(Slot::Hidden, x.nrows(), both);
        let mut gate_up = value.view_mut();
        let Run { team, tap, .. } = run;
        tap.see(Site::Input(Role::Gate, self.expert), x);
        self.projection.forward(x, gate_up.view_mut(), by);
        let apart = tap.alters();
        if apart {
            let columns = [(Point::Gate, s![.., ..both / 2]), (Point::Up, s![.., both / 2..both])];
            for (point, columns) in columns {
                tap.alter((point, self.expert), gate_up.slice_mut(columns));
            }
            let ones = vec![1.0; both / 2];
            each_row(gate_up.view_mut(), team, |_, row| self.open(&mut row[..both / 2], &ones));
            tap.alter((Point::Silu, self.expert), gate_up.slice_mut(s![.., ..both / 2]));
        }
        each_row(gate_up.view_mut(), team, |_, row| {
            let (gate, up) = row.split_at_mut(both / 2);
            if apart {
                gate.iter_mut().zip(up).for_each(|(gate, up)| *gate *= *up);
            } else {
                self.open(gate, up);
            }
            if let Some(rotation) = &self.rotation {
                rotation.apply(gate);
            }
        });
        tap.alter((Point::Hidden, self.expert), gate_up.slice_mut(s![.., ..both / 2]));
        value.narrowed(both / 2)
    }

    /// `gate ← act(gate) · up`.
    fn open(&self, gate: &mut [f32], up: &[f32]) {
        match self.activation {
            Activation::Silu => silu_mul(gate, up),
            Activation::GeluTanh => gelu_mul(gate, up),
        }
    }
}

/// Experts that a router chooses per token.
pub(super) struct Experts {
    router: Projection,
    routed: Vec<Gated>,
    /// The shared expert and its gate.
    shared: Option<(Gated, Projection)>,
    per_token: usize,
    normalize: bool,
}

/// One expert.
struct Gated {
    gate: Gate,
    down: Output,
}

impl Gated {
    /// `y ← down(act(gate(x)) · up(x))`.
    fn forward(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, run: &mut Run<'_>) {
        let hidden = self.gate.forward(x, run);
        self.down.project(hidden.view(), y, run);
        run.scratch.keep(hidden);
    }
}

impl Experts {
    /// `None` where the block has no experts.
    pub(super) fn load(
        loader: &Loader<'_>,
        mlp: &Mlp,
        activation: Activation,
    ) -> Result<Option<Self>, WeightError> {
        let Mlp::Experts { count, per_token, shared, normalize, .. } = mlp else { return Ok(None) };
        let of = |expert| {
            let loader = Loader { expert: Some(expert), ..*loader };
            let gate = Gate::load(&loader, activation)?;
            Ok(Gated { gate, down: Output::load(&loader, Role::Down)? })
        };
        let shared = match shared {
            Some(_) => Some((of(Expert::Shared)?, loader.projection(&[Role::SharedGate])?)),
            None => None,
        };
        Ok(Some(Self {
            router: loader.projection(&[Role::Router])?,
            routed: (0..*count).map(|e| of(Expert::Routed(e))).collect::<Result<_, _>>()?,
            shared,
            per_token: *per_token,
            normalize: *normalize,
        }))
    }

    /// The weighted sum of what the experts make of `x`, `[tokens, hidden]`.
    pub(super) fn forward(&self, x: ArrayView2<'_, f32>, run: &mut Run<'_>) -> Value {
        let mut value = run.scratch.value(Slot::Out, x.nrows(), x.ncols());
        let mut y = value.view_mut();
        y.fill(0.0);
        let by = run.by();
        run.tap.see(Site::Input(Role::Router, None), x);
        let mut scores = Array2::zeros((x.nrows(), self.routed.len()));
        self.router.forward(x, scores.view_mut(), by);
        let routes = route(scores.view_mut(), self.per_token, self.normalize);
        for (expert, tokens) in routes.iter().enumerate() {
            if tokens.is_empty() {
                continue;
            }
            let rows: Vec<usize> = tokens.iter().map(|(t, _)| *t).collect();
            let input = x.select(ndarray::Axis(0), &rows);
            let mut output = Array2::zeros(input.dim());
            self.routed[expert].forward(input.view(), output.view_mut(), run);
            for ((t, weight), output) in tokens.iter().zip(output.outer_iter()) {
                add_row(&mut y, *t, output.to_slice().unwrap_or_default(), *weight);
            }
        }
        if let Some((expert, gate)) = &self.shared {
            let mut output = Array2::zeros(x.dim());
            expert.forward(x, output.view_mut(), run);
            let mut open = Array2::zeros((x.nrows(), 1));
            gate.forward(x, open.view_mut(), by);
            for (t, (output, open)) in output.outer_iter().zip(&open).enumerate() {
                let weight = 1.0 / (1.0 + (-open).exp());
                add_row(&mut y, t, output.to_slice().unwrap_or_default(), weight);
            }
        }
        run.tap.see(Site::Output(Role::Down), y.view());
        value
    }
}

/// Tokens of each expert with their weights, by scores `[tokens, experts]`, which become probabilities: softmax
/// over all experts, the `per_token` largest (the lower index first on ties), scaled to sum to 1 where
/// the family says so.
pub(crate) fn route(
    mut scores: ArrayViewMut2<'_, f32>,
    per_token: usize,
    normalize: bool,
) -> Vec<Vec<(usize, f32)>> {
    let mut tokens = vec![Vec::new(); scores.ncols()];
    for (t, mut row) in scores.outer_iter_mut().enumerate() {
        let row = row.as_slice_mut().expect("rows are contiguous");
        softmax(row);
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
        order.truncate(per_token);
        let sum: f32 = order.iter().map(|e| row[*e]).sum();
        let scale = if normalize { 1.0 / sum } else { 1.0 };
        for expert in order {
            tokens[expert].push((t, row[expert] * scale));
        }
    }
    tokens
}

fn add_row(y: &mut ArrayViewMut2<'_, f32>, row: usize, values: &[f32], weight: f32) {
    let mut row = y.row_mut(row);
    add_assign(row.as_slice_mut().expect("rows are contiguous"), values, weight);
}
