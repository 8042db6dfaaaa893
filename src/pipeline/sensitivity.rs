//! What each unit of weights loses on a grid, measured, and the schemes that lose least within a
//! budget.
//!
//! The loss of a unit is the mean KL divergence of the model's logits, over a few windows, when
//! this unit alone is rounded to nearest on one int4 grid. Its loss on other grids is scaled by
//! the error of its layers' outputs, `tr(E·H·Eᵀ)` with H = Σ x·xᵀ of the inputs (by the squared
//! error of the weights where the inputs are not seen: embedding and head). Losses are taken to
//! add up. A changed block costs a walk over the blocks behind it.
use super::{Allocation, ChoiceLoss, PipelineError, UnitLoss};
use crate::{
    eval::row_divergences,
    forward::{
        BlockWeights, Embedding, ForwardError, Half, Head, NoTap, Reference, Runner, Site, Tap,
    },
    linalg::{Team, accumulate_gram, matmul, mirror},
    model::{Expert, Model, Role, TensorSpec, Tensors, Weight},
    progress::{Progress, Unit as Counted},
    quantize::{Candidates, Choice, Method, QuantizeError, Unit, rtn::Rtn},
    scheme::TensorScheme,
    tensor::RawTensor,
};
use ndarray::{Array2, ArrayView2, s};
use std::collections::BTreeMap;

/// Windows of the calibration set that losses are measured on, if there are so many.
pub(super) const WINDOWS: usize = 4;
/// The grid that losses are measured on where a unit may have it, else the unit's first.
const MEASURED: &str = "-g64";
/// What adaptive rounding leaves of the loss of rounding to nearest: KL 0.088 of 0.43 on
/// SmolLM2-135M at int4 in groups of 64 (docs/quantization.md).
const ADAPTIVE: f64 = 0.2;
/// Rows of logits that are in memory at a time, of each model.
pub(super) const ROWS: usize = 256;
/// Bytes that the streams of changed models may take.
pub(super) const STREAM_BYTES: usize = 1 << 30;
/// Weights whose error one task computes.
pub(super) const PIECE: usize = 1 << 20;

/// A float model, in any basis, whose schemes are to be chosen.
#[derive(Clone, Copy)]
pub struct Allocate<'a> {
    /// Its architecture, and its tensors outside of blocks.
    pub outline: &'a Model,
    /// Gives the tensors of a block.
    pub block: &'a dyn Fn(usize) -> Result<Tensors, PipelineError>,
    /// What there is to choose.
    pub candidates: &'a Candidates,
    /// How scales are chosen.
    pub method: Method,
    /// Codes of blocks are chosen adaptively, so that less is lost than by rounding to nearest;
    /// embedding and head are rounded to nearest in any case.
    pub adaptive: bool,
    /// Text to measure on; the first windows are taken.
    pub windows: &'a [Vec<u32>],
    /// Threads.
    pub team: &'a Team,
    /// Told of the tokens that passed a block.
    pub progress: &'a dyn Progress,
}

/// Σ x·xᵀ of the inputs of a block's layers.
type Inputs = BTreeMap<(Role, Option<Expert>), Array2<f32>>;
/// Residual streams of the windows.
type Streams = Vec<Array2<f32>>;

/// What is known of a unit.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// The loss with the choice that is measured, nats.
    loss: f64,
    /// The error of its outputs with each choice.
    errors: Vec<f64>,
}

impl Allocate<'_> {
    /// Measures losses and chooses schemes. Goes through the model a block at a time, with the
    /// streams of the float model and of as many changed ones as fit into 1 GiB; the others take
    /// further passes. Needs one block twice and 256 rows of logits of two models besides.
    pub fn run(&self) -> Result<Allocation, PipelineError> {
        let windows = &self.windows[..self.windows.len().min(WINDOWS)];
        let units = &self.candidates.units;
        let (blocks, hidden) = (self.outline.spec.blocks.len(), self.outline.spec.hidden);
        let tokens: usize = windows.iter().map(Vec::len).sum();
        let group = (STREAM_BYTES / (tokens * hidden * size_of::<f32>()).max(1)).max(1);
        let behind = |unit: &Unit| blocks - unit.block.unwrap_or(0);
        let walks = units.iter().map(behind).sum::<usize>() + blocks * units.len().div_ceil(group);
        self.progress.start("sensitivity", (walks * tokens) as u64, Counted::Tokens);
        let mut losses = Vec::new();
        for first in (0..units.len()).step_by(group) {
            let group = &units[first..(first + group).min(units.len())];
            for (unit, Seen { loss, errors }) in group.iter().zip(self.group(group, windows)?) {
                if !loss.is_finite() {
                    return Err(PipelineError::Loss { unit: unit.name.clone() });
                }
                let measured = errors[measured(unit)];
                let left = if self.adaptive && unit.block.is_some() { ADAPTIVE } else { 1.0 };
                let ratio = |error: &f64| if measured > 0.0 { error / measured } else { 0.0 };
                losses.push(errors.iter().map(|error| left * loss * ratio(error)).collect());
            }
        }
        self.progress.finish();
        Ok(self.allocation(&losses, tokens))
    }

    fn allocation(&self, losses: &[Vec<f64>], tokens: usize) -> Allocation {
        let candidates = self.candidates;
        let chosen = candidates.choose(losses);
        let all = candidates.units.iter().zip(losses).zip(&chosen);
        let units = all.clone().map(|((unit, losses), at)| UnitLoss {
            unit: unit.name.clone(),
            weights: unit.weights,
            scheme: unit.choices[*at].scheme.clone(),
            measured: unit.choices[measured(unit)].scheme.clone(),
            choices: (unit.choices.iter().zip(losses))
                .map(|(Choice { scheme, bytes, .. }, loss)| ChoiceLoss {
                    scheme: scheme.clone(),
                    bytes: *bytes,
                    loss: *loss,
                })
                .collect(),
        });
        let bytes = candidates.bytes(&chosen);
        Allocation {
            budget: candidates.budget,
            bytes,
            bits_per_weight: bytes as f64 * 8.0 / candidates.weights.max(1) as f64,
            tokens,
            loss: all.map(|((_, losses), at)| losses[*at]).sum(),
            units: units.collect(),
        }
    }

    /// Walks the float model and one changed model for each unit.
    fn group(&self, units: &[Unit], windows: &[Vec<u32>]) -> Result<Vec<Seen>, PipelineError> {
        let spec = &self.outline.spec;
        let mut float = embed(self.outline, windows)?;
        let mut seen = vec![Seen::default(); units.len()];
        let mut changed: Vec<(usize, Streams)> = Vec::new();
        for (at, unit) in units.iter().enumerate().filter(|(_, unit)| unit.block.is_none()) {
            seen[at].errors = self.errors(unit, self.outline, &Inputs::new())?;
            changed.push((at, embed(&self.changed(unit, self.outline)?, windows)?));
        }
        for block in 0..spec.blocks.len() {
            let model = Model::part(spec, (self.block)(block)?);
            let load = |model: &Model| {
                BlockWeights::load(model, block, &Reference).map_err(QuantizeError::from)
            };
            let weights = load(&model)?;
            for (_, streams) in &mut changed {
                self.advance(block, &weights, streams, &mut NoTap);
            }
            let here: Vec<usize> =
                (0..units.len()).filter(|at| units[*at].block == Some(block)).collect();
            for at in &here {
                let weights = load(&self.changed(&units[*at], &model)?)?;
                let mut streams = float.clone();
                self.advance(block, &weights, &mut streams, &mut NoTap);
                changed.push((*at, streams));
            }
            let inputs = self.observe(block, &weights, &mut float, !here.is_empty());
            for at in here {
                seen[at].errors = self.errors(&units[at], &model, &inputs)?;
            }
            self.outline.release(block);
        }
        for (at, loss) in self.losses(units, &float, &changed)? {
            seen[at].loss = loss;
        }
        Ok(seen)
    }

    /// Carries the float streams through a block; sums over what its layers see, if wanted.
    fn observe(
        &self,
        block: usize,
        weights: &BlockWeights,
        float: &mut Streams,
        wanted: bool,
    ) -> Inputs {
        let mut inputs = Inputs::new();
        let mut see = |site, x: ArrayView2<'_, f32>| {
            if let (Site::Input(role, expert), true) = (site, wanted)
                && role != Role::Router
            {
                let zeros = || Array2::zeros((x.ncols(), x.ncols()));
                let sums = inputs.entry((role, expert)).or_insert_with(zeros);
                accumulate_gram(x, sums, self.team);
            }
        };
        self.advance(block, weights, float, &mut see);
        for sums in inputs.values_mut() {
            mirror(sums);
        }
        inputs
    }

    fn advance(
        &self,
        block: usize,
        weights: &BlockWeights,
        streams: &mut Streams,
        tap: &mut dyn Tap,
    ) {
        let mut runner = Runner::new(&self.outline.spec, block, self.team);
        for x in streams {
            for half in [Half::Attention, Half::Mlp] {
                runner.run(half, weights, x.view_mut(), tap);
            }
            self.progress.advance(x.nrows() as u64);
        }
    }

    /// The error of a unit's outputs with each choice.
    fn errors(
        &self,
        unit: &Unit,
        model: &Model,
        inputs: &Inputs,
    ) -> Result<Vec<f64>, PipelineError> {
        let mut layers = Vec::new();
        for name in &unit.tensors {
            let spec = model.spec.tensors.iter().find(|it| it.name == *name);
            let weight = model.weights.get(name).map_err(QuantizeError::from)?;
            layers.push((weight, spec.and_then(|spec| input_of(spec, inputs))));
        }
        // An expert that no token was sent to shows no error, unless none of them was.
        let seen = layers.iter().any(|(_, h)| h.is_some());
        let mut tasks = Vec::new();
        for (at, choice) in unit.choices.iter().enumerate() {
            let schemes = layers.iter().zip(&choice.schemes);
            for ((weight, h), scheme) in schemes.filter(|((_, h), _)| h.is_some() == seen) {
                let rows = weight.shape()[0];
                let step = (PIECE / weight.shape()[1].max(1)).max(1);
                for first in (0..rows).step_by(step) {
                    tasks.push((
                        at,
                        weight,
                        *h,
                        self.grid(*scheme),
                        first..(first + step).min(rows),
                    ));
                }
            }
        }
        let mut parts = vec![0.0; tasks.len()];
        let slots: Vec<_> = parts.iter_mut().zip(&tasks).collect();
        self.team.each(slots, |_, (part, (_, weight, h, grid, rows))| {
            *part = error(weight, rows.clone(), *h, *grid);
        });
        let mut sums = vec![0.0; unit.choices.len()];
        for ((at, ..), part) in tasks.iter().zip(parts) {
            sums[*at] += part;
        }
        Ok(sums)
    }

    fn grid(&self, scheme: TensorScheme) -> Rtn {
        Rtn { grid: scheme.weights, scale_type: scheme.scale_type, method: self.method }
    }

    /// The model with one unit rounded to nearest.
    fn changed(&self, unit: &Unit, model: &Model) -> Result<Model, PipelineError> {
        let mut model = model.clone();
        let choice = &unit.choices[measured(unit)];
        for (name, scheme) in unit.tensors.iter().zip(&choice.schemes) {
            let weight = model.weights.get(name).map_err(QuantizeError::from)?;
            let shape = [weight.shape()[0], weight.shape()[1]];
            let rounded = self.grid(*scheme).tensor_on(&weight.to_f32(), shape, self.team);
            let raw = RawTensor::from_f32(shape.to_vec(), &rounded.dequantize());
            model.weights.raw.insert(name.clone(), raw);
        }
        Ok(model)
    }

    /// Mean KL divergence of each changed model, by its unit, from the float model; streams are
    /// those behind the last block.
    fn losses(
        &self,
        units: &[Unit],
        float: &Streams,
        changed: &[(usize, Streams)],
    ) -> Result<Vec<(usize, f64)>, PipelineError> {
        let load = |model: &Model| Head::load(model, &Reference).map_err(ForwardError::from);
        let head = load(self.outline)?;
        let mut sums: Vec<(usize, f64)> = changed.iter().map(|(at, _)| (*at, 0.0)).collect();
        // Embedding and head may be one: such a unit changes the head, too.
        let ends = changed.iter().map(|(at, _)| match units[*at].block {
            Some(_) => Ok(None),
            None => Ok(Some(load(&self.changed(&units[*at], self.outline)?)?)),
        });
        let ends = ends.collect::<Result<Vec<_>, PipelineError>>()?;
        for (window, float) in float.iter().enumerate() {
            for first in (0..float.nrows()).step_by(ROWS) {
                let rows = s![first..(first + ROWS).min(float.nrows()), ..];
                let reference = head.logits(float.slice(rows), self.team);
                for (((_, streams), own), (_, sum)) in changed.iter().zip(&ends).zip(&mut sums) {
                    let own = own.as_ref().unwrap_or(&head);
                    let logits = own.logits(streams[window].slice(rows), self.team);
                    *sum += row_divergences(&reference, &logits, self.team).iter().sum::<f64>();
                }
            }
        }
        let tokens: usize = float.iter().map(Array2::nrows).sum();
        Ok(sums.into_iter().map(|(at, sum)| (at, sum / tokens.max(1) as f64)).collect())
    }
}

/// The streams before the first block.
fn embed(model: &Model, windows: &[Vec<u32>]) -> Result<Streams, ForwardError> {
    let embedding = Embedding::load(model)?;
    windows.iter().map(|ids| embedding.rows(ids)).collect()
}

/// The choice that a unit's loss is measured with.
fn measured(unit: &Unit) -> usize {
    unit.choices.iter().position(|it| it.scheme.ends_with(MEASURED)).unwrap_or(0)
}

/// The sums of what a layer sees.
fn input_of<'a>(spec: &TensorSpec, inputs: &'a Inputs) -> Option<&'a Array2<f32>> {
    let role = match spec.role {
        Role::K | Role::V => Role::Q,
        Role::Up => Role::Gate,
        role => role,
    };
    inputs.get(&(role, spec.expert))
}

/// `tr(E·H·Eᵀ)` over some rows of a weight, E their rounding error; without H, `tr(E·Eᵀ)`.
fn error(weight: &Weight, rows: std::ops::Range<usize>, h: Option<&Array2<f32>>, grid: Rtn) -> f64 {
    let columns = weight.shape()[1];
    let mut values = vec![0.0; rows.len() * columns];
    for (row, values) in rows.clone().zip(values.chunks_mut(columns.max(1))) {
        weight.row(row, values);
    }
    let shape = [rows.len(), columns];
    let rounded = grid.tensor(&values, shape).dequantize();
    let e: Vec<f32> = values.iter().zip(rounded).map(|(w, q)| w - q).collect();
    let e = Array2::from_shape_vec((rows.len(), columns), e).expect("its shape");
    let sum = |a: &Array2<f32>, b: &Array2<f32>| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let Some(h) = h else { return sum(&e, &e) };
    let mut product = Array2::zeros(e.dim());
    matmul(e.view(), h.view(), product.view_mut());
    sum(&product, &e).max(0.0)
}
