//! Refits a consumer of a cut space by least squares.
use super::{Kept, PruneError, Tensors, Values};
use crate::{
    calibrate::BlockStatistics,
    linalg::{
        Team, accumulate_cross, accumulate_gram,
        least_squares::{self, Fit, Means},
        mirror,
    },
    model::{Expert, Model, ModelSpec, Part, Role, TensorSpec, WeightStore},
    tensor::{Bytes, RawTensor},
};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};

/// What a consumer is refitted towards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepairTarget {
    /// The float model's output of the same layer
    Output,
    /// The float model's residual stream: errors of the layers before are made up for, too
    #[default]
    Stream,
}

impl RepairTarget {
    /// Targets `[tokens, hidden]` from the float layer's output, the float stream after it and
    /// the pruned stream before it.
    pub(super) fn of(
        self,
        output: &Array2<f32>,
        float: &Array2<f32>,
        pruned: &Array2<f32>,
    ) -> Array2<f32> {
        match self {
            Self::Output => output.clone(),
            Self::Stream => float - pruned,
        }
    }
}

/// How consumers are refitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RefitSettings {
    /// What they are refitted towards.
    pub target: RepairTarget,
    /// Ridge towards the weights as they were cut, relative to the mean of H's diagonal.
    pub damping: f64,
}

/// How one consumer was refitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refit {
    /// Block.
    pub block: usize,
    /// Tensor.
    pub tensor: String,
    /// E‖t − W·x̂‖² / E‖t‖² over the calibration tokens with the weights as they were cut.
    pub error_before: f64,
    /// The same after the refit.
    pub error_after: f64,
    /// Damping that was used, relative to the mean of H's diagonal.
    pub damping: f64,
    /// Times that the damping had to be raised until the factorization held.
    pub raised: u32,
    /// Tokens that the input was seen for.
    pub tokens: u64,
}

/// Sums over tokens that a least-squares fit needs.
#[derive(Clone, Debug)]
pub struct Sums {
    /// Σ x̂ x̂ᵀ, `[in, in]`; the upper triangle.
    pub inputs: Array2<f32>,
    /// Σ t x̂ᵀ, `[out, in]`.
    pub cross: Array2<f32>,
    /// Σ x̂, `[in]`.
    pub input_sum: Array1<f64>,
    /// Σ t, `[out]`.
    pub target_sum: Array1<f64>,
    /// Σ ‖t‖².
    pub energy: f64,
    /// Tokens.
    pub tokens: u64,
}

impl Sums {
    pub(super) fn new(out: usize, inputs: usize) -> Self {
        Self {
            inputs: Array2::zeros((inputs, inputs)),
            cross: Array2::zeros((out, inputs)),
            input_sum: Array1::zeros(inputs),
            target_sum: Array1::zeros(out),
            energy: 0.0,
            tokens: 0,
        }
    }

    /// Takes in targets `[tokens, out]` and inputs `[tokens, in]`.
    pub(super) fn add(&mut self, t: ArrayView2<'_, f32>, x: ArrayView2<'_, f32>, team: &Team) {
        self.add_inputs(x, team);
        accumulate_cross(t, x, &mut self.cross, team);
        self.target_sum += &t.mapv(f64::from).sum_axis(Axis(0));
        self.energy += t.iter().map(|t| f64::from(*t).powi(2)).sum::<f64>();
    }

    /// Takes in inputs alone.
    pub(super) fn add_inputs(&mut self, x: ArrayView2<'_, f32>, team: &Team) {
        accumulate_gram(x, &mut self.inputs, team);
        self.input_sum += &x.mapv(f64::from).sum_axis(Axis(0));
        self.tokens += x.nrows() as u64;
    }

    /// What a layer `y = W·x + b` gave for these inputs becomes the target, and `reads` of them,
    /// as a linear map `[kept, in]`, become the inputs: a refit to what was there before the cut.
    pub(super) fn before_the_cut(
        &self,
        weight: &Array2<f32>,
        bias: Option<&Array1<f32>>,
        reads: &Reads,
    ) -> Self {
        let mut inputs = self.inputs.clone();
        mirror(&mut inputs);
        let kept = reads.of_columns(&inputs);
        let mut cross = weight.dot(&kept);
        let outputs = weight.mapv(f64::from).dot(&self.input_sum);
        let (n, input_sum) = (self.tokens as f64, reads.of_vector(&self.input_sum));
        let mut target_sum = outputs.clone();
        let energy = weight.dot(&inputs).iter().zip(weight).map(|(a, b)| f64::from(*a * *b)).sum();
        let mut sums = Self {
            inputs: reads.of_columns(&kept.t().to_owned()),
            cross: Array2::zeros((0, 0)),
            input_sum,
            target_sum: Array1::zeros(0),
            energy,
            tokens: self.tokens,
        };
        if let Some(bias) = bias {
            let bias = bias.mapv(f64::from);
            for (mut row, b) in cross.outer_iter_mut().zip(&bias) {
                row.zip_mut_with(&sums.input_sum, |c, x| *c += (b * x) as f32);
            }
            sums.energy +=
                bias.iter().zip(&outputs).map(|(b, y)| b * (2.0 * y + b * n)).sum::<f64>();
            target_sum.scaled_add(n, &bias);
        }
        (sums.cross, sums.target_sum) = (cross, target_sum);
        sums
    }
}

/// The sums of a consumer at `place` when what it gave before the cut is the target; `sums` are
/// of the inputs that it had then.
pub(super) fn before_the_cut(
    source: &Model,
    place: Place,
    kept: &Kept,
    sums: &Sums,
) -> Result<Sums, PruneError> {
    let (weight, bias) = layer(source, place)?;
    Ok(sums.before_the_cut(&weight, bias.as_ref(), &Reads::of(kept, place, &source.spec)))
}

/// Refits the consumers of a block on statistics of the model that it was cut from: the pruned
/// layers before are taken to give what they gave whole (GRAIL, arXiv 2602.23795).
pub fn refit_from_statistics(
    source: &Model,
    pruned: &ModelSpec,
    (block, kept): (usize, &Kept),
    cut: &Tensors,
    seen: &BlockStatistics,
    settings: RefitSettings,
) -> Result<(Tensors, Vec<Refit>), PruneError> {
    let weights = WeightStore { raw: cut.clone(), ..WeightStore::default() };
    let mut model = Model { config: serde_json::Value::Null, spec: pruned.clone(), weights };
    let mut refits = Vec::new();
    for ((role, expert), input) in &seen.inputs {
        let Some(covariance) =
            input.covariance.as_ref().filter(|_| matches!(role, Role::O | Role::Down))
        else {
            continue;
        };
        let place = (block, *role, *expert);
        let sums = Sums {
            inputs: covariance.clone(),
            input_sum: input.moments.sum.clone().into(),
            tokens: input.moments.tokens,
            ..Sums::new(0, 0)
        };
        let sums = before_the_cut(source, place, kept, &sums)?;
        refits.push(refit(&mut model, place, &sums, settings)?);
    }
    Ok((model.weights.raw, refits))
}

/// Which combinations of its old inputs a consumer still reads.
#[derive(Clone, Debug)]
pub(super) enum Reads {
    /// Some of them.
    Channels(Vec<usize>),
    /// A linear map `[kept, in]` of them.
    Map(Array2<f32>),
}

impl Reads {
    fn of(kept: &Kept, (block, role, expert): Place, spec: &ModelSpec) -> Self {
        if role == Role::Down {
            return Self::Channels(kept.mlp.get(&expert).cloned().unwrap_or_default());
        }
        let sizes = &spec.blocks[block];
        let (width, repeat) = (sizes.head_dim, sizes.kv_repeat());
        let firsts = kept.kv_heads.iter().flat_map(|head| {
            head.queries.iter().map(move |query| ((head.kv_head * repeat + query) * width, head))
        });
        let mut channels = Vec::new();
        let mut maps: Vec<(usize, &Array2<f64>)> = Vec::new();
        for (first, head) in firsts {
            match &head.values {
                Values::Channels(kept) => channels.extend(kept.iter().map(|it| first + it)),
                Values::Map { down, .. } => maps.push((first, down)),
            }
        }
        if maps.is_empty() {
            return Self::Channels(channels);
        }
        let rows = maps.iter().map(|(_, down)| down.nrows()).sum();
        let mut map = Array2::zeros((rows, sizes.heads * width));
        let mut row = 0;
        for (first, down) in maps {
            let mut part = map.slice_mut(s![row..row + down.nrows(), first..first + width]);
            part.assign(&down.mapv(|x| x as f32));
            row += down.nrows();
        }
        Self::Map(map)
    }

    /// `M·Rᵀ` for `m` `[any, in]`: `[any, kept]`.
    fn of_columns(&self, m: &Array2<f32>) -> Array2<f32> {
        match self {
            Self::Channels(channels) => m.select(Axis(1), channels),
            Self::Map(map) => m.dot(&map.t()),
        }
    }

    fn of_vector(&self, v: &Array1<f64>) -> Array1<f64> {
        match self {
            Self::Channels(channels) => v.select(Axis(0), channels),
            Self::Map(map) => map.mapv(f64::from).dot(v),
        }
    }
}

/// The layer that is refitted: block, role, expert.
pub(super) type Place = (usize, Role, Option<Expert>);

/// The matrix of a layer and its bias.
pub(super) fn layer(
    model: &Model,
    (block, role, expert): Place,
) -> Result<(Array2<f32>, Option<Array1<f32>>), PruneError> {
    let weight = spec(model, (block, role, expert), Part::Weight);
    let weight = weight.ok_or(PruneError::Absent { block, role })?;
    let shape = model.spec.shape(weight);
    let values = model.weights.get(&weight.name)?.to_f32();
    let matrix = Array2::from_shape_vec((shape[0], shape[1]), values);
    let matrix = matrix.map_err(|_| PruneError::Absent { block, role })?;
    let bias = spec(model, (block, role, expert), Part::Bias);
    let bias = bias.map(|bias| model.weights.get(&bias.name)).transpose()?;
    Ok((matrix, bias.map(|bias| bias.to_f32().into())))
}

fn spec(model: &Model, (block, role, expert): Place, part: Part) -> Option<&TensorSpec> {
    model.spec.find(Some(block), role, expert, part)
}

/// Refits a layer of a pruned model and stores it in the type that it had.
pub(super) fn refit(
    model: &mut Model,
    place: Place,
    sums: &Sums,
    settings: RefitSettings,
) -> Result<Refit, PruneError> {
    let (block, role, _) = place;
    let name = spec(model, place, Part::Weight).map(|it| it.name.clone());
    let name = name.ok_or(PruneError::Absent { block, role })?;
    let (before, bias) = layer(model, place)?;
    let means = Means {
        tokens: sums.tokens,
        inputs: sums.input_sum.as_slice().unwrap_or_default(),
        targets: sums.target_sum.as_slice().unwrap_or_default(),
    };
    let error = |weight: &Array2<f32>, bias: Option<&Array1<f32>>| match bias {
        Some(bias) => least_squares::error_affine(
            (weight, bias),
            &sums.inputs,
            &sums.cross,
            means,
            sums.energy,
        ),
        None => least_squares::error(weight, &sums.inputs, &sums.cross, sums.energy),
    };
    let (h, c, damping) = (&sums.inputs, &sums.cross, settings.damping);
    let fit: Fit = match bias {
        Some(_) => least_squares::ridge_affine(h, c, &before, means, damping, &name)?,
        None => least_squares::ridge(h, c, &before, damping, &name)?,
    };
    store(model, &name, fit.weight.iter().copied())?;
    if let (Some(spec), Some(bias)) = (spec(model, place, Part::Bias), &fit.bias) {
        let name = spec.name.clone();
        store(model, &name, bias.iter().copied())?;
    }
    let error_before = error(&before, bias.as_ref());
    // What is stored is rounded to the tensor's type.
    let (after, bias) = layer(model, place)?;
    Ok(Refit {
        block,
        tensor: name,
        error_before,
        error_after: error(&after, bias.as_ref()),
        damping: fit.damping,
        raised: fit.steps,
        tokens: sums.tokens,
    })
}

/// Replaces the values of a tensor, rounded to its type.
fn store(
    model: &mut Model,
    name: &str,
    values: impl Iterator<Item = f32>,
) -> Result<(), PruneError> {
    let missing = || PruneError::Type { tensor: name.to_owned() };
    let raw = model.weights.raw.get_mut(name).ok_or_else(missing)?;
    let float = raw.float_type().ok_or_else(missing)?;
    let mut bytes = Vec::with_capacity(raw.bytes.len());
    float.encode(&values.collect::<Vec<f32>>(), &mut bytes);
    *raw = RawTensor { dtype: raw.dtype, shape: raw.shape.clone(), bytes: Bytes::owned(bytes) };
    Ok(())
}
