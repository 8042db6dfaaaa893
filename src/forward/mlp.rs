//! The feed-forward part: one gated MLP, or a mixture of experts.
use super::{
    points::Point,
    projection::{Loader, Projection, each_row},
    scratch::{Buffer, Run},
    tap::Site,
};
use crate::linalg::{Hadamard, add_assign, silu_mul, softmax};
use crate::model::{Expert, Mlp, Role, WeightError};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

/// The feed-forward part of a block.
pub(super) enum FeedForward {
    Dense(Gated),
    Experts(Experts),
}

/// `down(SiLU(gate(x)) · up(x))`.
pub(super) struct Gated {
    gate_up: Projection,
    down: Projection,
    /// What the input of `down` is multiplied by.
    rotation: Option<Hadamard>,
    expert: Option<Expert>,
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

impl FeedForward {
    pub(super) fn load(loader: Loader<'_>, mlp: &Mlp) -> Result<Self, WeightError> {
        let Mlp::Experts { count, per_token, shared, normalize, .. } = mlp else {
            return Ok(Self::Dense(Gated::load(&loader)?));
        };
        let of = |expert| Gated::load(&Loader { expert: Some(expert), ..loader });
        let shared = match shared {
            Some(_) => Some((of(Expert::Shared)?, loader.projection(&[Role::SharedGate])?)),
            None => None,
        };
        Ok(Self::Experts(Experts {
            router: loader.projection(&[Role::Router])?,
            routed: (0..*count).map(|e| of(Expert::Routed(e))).collect::<Result<_, _>>()?,
            shared,
            per_token: *per_token,
            normalize: *normalize,
        }))
    }

    /// `y ← MLP(x)`: `x` is the normed `[tokens, hidden]`, `y` alike.
    pub(super) fn forward(
        &self,
        x: ArrayView2<'_, f32>,
        mut y: ArrayViewMut2<'_, f32>,
        run: &mut Run<'_>,
    ) {
        match self {
            Self::Dense(gated) => gated.forward(x, y.view_mut(), run),
            Self::Experts(experts) => experts.forward(x, y.view_mut(), run),
        }
        run.tap.see(Site::Output(Role::Down), y.view());
    }
}

impl Gated {
    fn load(loader: &Loader<'_>) -> Result<Self, WeightError> {
        let gate_up = loader.projection(&[Role::Gate, Role::Up])?;
        let width = gate_up.out_features() / 2;
        Ok(Self {
            rotation: loader.hadamard(width, |transformed| transformed.down_input),
            gate_up,
            down: loader.projection(&[Role::Down])?,
            expert: loader.expert,
        })
    }

    fn forward(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, run: &mut Run<'_>) {
        let mut buffer = std::mem::take(&mut run.scratch.gate_up);
        let hidden = self.hide(x, &mut buffer, run);
        self.project(hidden.view(), y, run);
        run.scratch.gate_up = buffer;
    }

    /// `y ← down(hidden)`.
    pub(super) fn project(
        &self,
        hidden: ArrayView2<'_, f32>,
        mut y: ArrayViewMut2<'_, f32>,
        run: &mut Run<'_>,
    ) {
        run.tap.see(Site::Input(Role::Down, self.expert), hidden);
        self.down.forward(hidden, y.view_mut(), run.by());
        run.tap.alter((Point::Down, self.expert), y);
    }

    /// `SiLU(gate(x)) · up(x)`, `[tokens, width]`, in some memory.
    pub(super) fn hide<'a>(
        &self,
        x: ArrayView2<'_, f32>,
        buffer: &'a mut Buffer,
        run: &mut Run<'_>,
    ) -> ArrayViewMut2<'a, f32> {
        let by = run.by();
        let Run { team, tap, .. } = run;
        tap.see(Site::Input(Role::Gate, self.expert), x);
        let both = self.gate_up.out_features();
        let mut gate_up = buffer.take(x.nrows(), both);
        self.gate_up.forward(x, gate_up.view_mut(), by);
        if tap.alters() {
            let columns = [(Point::Gate, s![.., ..both / 2]), (Point::Up, s![.., both / 2..both])];
            for (point, columns) in columns {
                tap.alter((point, self.expert), gate_up.slice_mut(columns));
            }
            let ones = vec![1.0; both / 2];
            each_row(gate_up.view_mut(), team, |_, row| silu_mul(&mut row[..both / 2], &ones));
            tap.alter((Point::Silu, self.expert), gate_up.slice_mut(s![.., ..both / 2]));
        }
        let apart = tap.alters();
        each_row(gate_up.view_mut(), team, |_, row| {
            let (gate, up) = row.split_at_mut(both / 2);
            if apart {
                gate.iter_mut().zip(up).for_each(|(gate, up)| *gate *= *up);
            } else {
                silu_mul(gate, up);
            }
            if let Some(rotation) = &self.rotation {
                rotation.apply(gate);
            }
        });
        tap.alter((Point::Hidden, self.expert), gate_up.slice_mut(s![.., ..both / 2]));
        gate_up.slice_move(s![.., ..both / 2])
    }
}

impl Experts {
    fn forward(&self, x: ArrayView2<'_, f32>, mut y: ArrayViewMut2<'_, f32>, run: &mut Run<'_>) {
        y.fill(0.0);
        let by = run.by();
        run.tap.see(Site::Input(Role::Router, None), x);
        let mut scores = Array2::zeros((x.nrows(), self.routed.len()));
        self.router.forward(x, scores.view_mut(), by);
        for (expert, tokens) in self.route(scores).iter().enumerate() {
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
    }

    /// Tokens of each expert with their weights: softmax over all experts, the `per_token`
    /// largest (the lower index first on ties), scaled to sum to 1 where the family says so.
    fn route(&self, mut scores: Array2<f32>) -> Vec<Vec<(usize, f32)>> {
        let mut tokens = vec![Vec::new(); self.routed.len()];
        for (t, mut row) in scores.outer_iter_mut().enumerate() {
            let row = row.as_slice_mut().expect("rows are contiguous");
            softmax(row);
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
            order.truncate(self.per_token);
            let sum: f32 = order.iter().map(|e| row[*e]).sum();
            let scale = if self.normalize { 1.0 / sum } else { 1.0 };
            for expert in order {
                tokens[expert].push((t, row[expert] * scale));
            }
        }
        tokens
    }
}

fn add_row(y: &mut ArrayViewMut2<'_, f32>, row: usize, values: &[f32], weight: f32) {
    let mut row = y.row_mut(row);
    add_assign(row.as_slice_mut().expect("rows are contiguous"), values, weight);
}
