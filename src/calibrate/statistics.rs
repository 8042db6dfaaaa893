//! What is known of the activations of a block.
use super::Moments;
use crate::{
    forward::{Site, Tap},
    linalg::{Team, accumulate_cross, accumulate_gram},
    model::{Block, Expert, Role},
};
use ndarray::{Array2, Array3, ArrayView2, s};
use std::collections::{BTreeMap, BTreeSet};

/// Which statistics are wanted; moments of every linear input always are.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Request {
    /// Layers whose inputs' second moments are summed: of query, output, gate and down
    /// projections.
    pub covariance: BTreeSet<Role>,
    /// Second moments of what each query head gives.
    pub heads: bool,
    /// Products with the same inputs in another model, wherever there is a covariance.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cross: bool,
}

/// The input of a linear layer.
#[derive(Clone, Debug, PartialEq)]
pub struct InputStatistics {
    /// Per channel.
    pub moments: Moments,
    /// Σ x xᵀ, `[in, in]`; the upper triangle.
    pub covariance: Option<Array2<f32>>,
    /// Σ x' xᵀ with x' the same input in the reference model, `[in, in]`. Not of routed experts:
    /// the two models may send a token to different ones.
    pub cross: Option<Array2<f32>>,
}

/// The activations of a block, summed over tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockStatistics {
    /// Inputs of linear layers, see [`Site::Input`].
    pub inputs: BTreeMap<(Role, Option<Expert>), InputStatistics>,
    /// Σ q_i² + q_{i+d/2}² after rotation, `[heads · head_dim / 2]`.
    pub queries: Vec<f64>,
    /// Σ k_i² + k_{i+d/2}² after rotation, `[kv_heads · head_dim / 2]`.
    pub keys: Vec<f64>,
    /// Σ a aᵀ of each query head's part of the input of the output projection,
    /// `[heads, head_dim, head_dim]`; the upper triangles.
    pub heads: Option<Array3<f32>>,
    /// Block influence, 1 − E cos(stream before, stream after) (ShortGPT, arXiv 2403.03853).
    pub influence: f64,
    /// Σ ‖stream after‖².
    pub energy: f64,
    /// Tokens.
    pub tokens: u64,
}

/// Inputs of layers, `[tokens, in]`.
pub(super) type Inputs = BTreeMap<(Role, Option<Expert>), Array2<f32>>;

/// Sums what passes a block.
pub(super) struct Collector<'a> {
    pub(super) sums: BlockStatistics,
    /// What the layers of the reference model saw of the same window.
    pub(super) reference: Inputs,
    request: &'a Request,
    sizes: &'a Block,
    team: &'a Team,
    cosines: f64,
}

impl<'a> Collector<'a> {
    pub(super) fn new(request: &'a Request, sizes: &'a Block, team: &'a Team) -> Self {
        let mut sums = BlockStatistics::default();
        let (width, heads) = (sizes.head_dim, sizes.heads);
        sums.heads = request.heads.then(|| Array3::zeros((heads, width, width)));
        sums.queries = vec![0.0; heads * width / 2];
        sums.keys = vec![0.0; sizes.kv_heads * width / 2];
        let reference = Inputs::new();
        Self { sums, reference, request, sizes, team, cosines: 0.0 }
    }

    /// Takes in the residual stream before and after the block, `[tokens, hidden]`.
    pub(super) fn streams(&mut self, before: ArrayView2<'_, f32>, after: ArrayView2<'_, f32>) {
        let dot = |a: ndarray::ArrayView1<'_, f32>, b: ndarray::ArrayView1<'_, f32>| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        for (x, y) in before.outer_iter().zip(after.outer_iter()) {
            let energy = dot(y, y);
            let norms = (dot(x, x) * energy).sqrt();
            self.cosines += if norms > 0.0 { dot(x, y) / norms } else { 1.0 };
            self.sums.energy += energy;
            self.sums.tokens += 1;
        }
    }

    pub(super) fn finish(mut self) -> BlockStatistics {
        self.sums.influence = 1.0 - self.cosines / self.sums.tokens.max(1) as f64;
        self.sums
    }

    fn input(&mut self, role: Role, expert: Option<Expert>, x: ArrayView2<'_, f32>) {
        let width = x.ncols();
        let covariance = self.request.covariance.contains(&role);
        let input = self.sums.inputs.entry((role, expert)).or_insert_with(|| InputStatistics {
            moments: Moments::new(width),
            covariance: covariance.then(|| Array2::zeros((width, width))),
            cross: None,
        });
        input.moments.add(x);
        if let Some(sums) = &mut input.covariance {
            accumulate_gram(x, sums, self.team);
        }
        if let Some(other) = self.reference.get(&(role, expert)) {
            let zeros = || Array2::zeros((other.ncols(), width));
            accumulate_cross(other.view(), x, input.cross.get_or_insert_with(zeros), self.team);
        }
        if let (Role::O, Some(heads)) = (role, &mut self.sums.heads) {
            let width = self.sizes.head_dim;
            let heads = heads.outer_iter_mut().enumerate().collect();
            self.team.each(heads, |_, (head, mut sums)| {
                let x = x.slice(s![.., head * width..(head + 1) * width]);
                sums += &x.t().dot(&x);
            });
        }
    }
}

impl Tap for Collector<'_> {
    fn see(&mut self, site: Site, x: ArrayView2<'_, f32>) {
        match site {
            Site::Input(role, expert) => self.input(role, expert, x),
            Site::Queries => pair_energies(x, self.sizes.head_dim, &mut self.sums.queries),
            Site::Keys => pair_energies(x, self.sizes.head_dim, &mut self.sums.keys),
            Site::Output(_) => {}
        }
    }
}

/// Adds x_i² + x_{i+d/2}² of each head of width `width` to `sums`, `[heads · width / 2]`.
fn pair_energies(x: ArrayView2<'_, f32>, width: usize, sums: &mut [f64]) {
    for row in x.outer_iter() {
        for (i, value) in row.iter().enumerate() {
            let (head, channel) = (i / width, i % width);
            sums[head * width / 2 + channel % (width / 2)] += f64::from(*value).powi(2);
        }
    }
}
