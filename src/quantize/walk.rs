//! Block by block through the float model and the quantized one: each layer is rounded for the
//! inputs that it will really see, towards what it should give.
use super::{
    Hessian, LayerReport, Plan, QuantizeError, Rounding, RoundingSettings, RoundingTarget,
    input_scale::{self, Magnitudes},
    layer::{Layer, Sums},
    outliers,
    rtn::Rtn,
};
use crate::{
    calibrate::{HiddenStates, NonFinite, Passage},
    forward::{Backend, BlockWeights, Half, NoTap, Reference, Site},
    linalg::{Team, mirror},
    model::{Expert, Mlp, Model, ModelSpec, Part, Role, Tensors, WeightStore},
    progress::Progress,
    scheme::{Activations, KvPrecision, TensorScheme},
};
use ndarray::{Array2, ArrayView2};
use std::collections::{BTreeMap, BTreeSet};

/// The residual streams between two blocks.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Of the float model.
    pub float: HiddenStates,
    /// Of the quantized model, the same windows.
    pub quantized: HiddenStates,
}

/// A walk through the blocks of a model that is quantized on the way.
pub struct RoundingWalk<'a> {
    /// Architecture of both models.
    pub spec: &'a ModelSpec,
    /// What becomes of each weight.
    pub plan: &'a Plan,
    /// How scales of weights are chosen.
    pub grid: super::Method,
    /// Windows that are calibrated on: the first ones. The others are only carried along.
    pub calibration: usize,
    /// How layers are rounded.
    pub settings: RoundingSettings,
    /// Runs the quantized model.
    pub backend: &'a dyn Backend,
    /// Threads.
    pub team: &'a Team,
    /// Told of the tokens that passed a block.
    pub progress: &'a dyn Progress,
}

/// A layer that saw fewer tokens is rounded to nearest.
const FEWEST_TOKENS: u64 = 32;

/// Layers that see the same input.
#[derive(Clone, Copy)]
pub(crate) struct Stage {
    half: Half,
    pub(crate) roles: &'static [Role],
}

/// In the order of the forward pass.
pub(crate) const STAGES: [Stage; 4] = [
    Stage { half: Half::Attention, roles: &[Role::Q, Role::K, Role::V] },
    Stage { half: Half::Attention, roles: &[Role::O] },
    Stage { half: Half::Mlp, roles: &[Role::Gate, Role::Up] },
    Stage { half: Half::Mlp, roles: &[Role::Down] },
];

impl Stage {
    /// Its layers add to the residual stream.
    pub(crate) fn writes(self) -> bool {
        matches!(self.roles, [Role::O | Role::Down])
    }
}

type Seen = BTreeMap<Option<Expert>, Sums>;

/// How many tokens layers saw, by role and expert.
type Counts = BTreeMap<(Role, Option<Expert>), u64>;

/// A block of the quantized model in the making.
pub struct RoundedBlock {
    /// Its tensors.
    pub weights: WeightStore,
    /// Its layers.
    pub layers: Vec<LayerReport>,
}

impl RoundingWalk<'_> {
    /// Rounds block `block`, whose float tensors are `tensors`, and carries both streams through.
    pub fn block(
        &self,
        block: usize,
        tensors: Tensors,
        streams: &mut Streams,
    ) -> Result<RoundedBlock, QuantizeError> {
        let mut model = Model::part(self.spec, tensors);
        model.spec.kv_cache = KvPrecision::Float;
        let float = BlockWeights::load(&model, block, &Reference)?;
        model.spec.kv_cache = self.spec.kv_cache;
        let mut passage = Passage::new(self.spec, block, self.team);
        let mut layers = Vec::new();
        let mut counts = Counts::new();
        for stage in STAGES {
            let quantized = BlockWeights::load(&model, block, self.backend)?;
            let (seen, inner) = self.see(stage, &mut passage, (&float, &quantized), streams)?;
            for (expert, sums) in &seen {
                counts.extend(stage.roles.iter().map(|role| ((*role, *expert), sums.tokens)));
            }
            let enough = |sums: &Sums| sums.tokens >= FEWEST_TOKENS;
            for (expert, sums) in seen.into_iter().filter(|(_, sums)| enough(sums)) {
                layers.extend(self.round(&mut model, (block, stage, expert), sums)?);
            }
            if stage.writes() {
                let quantized = BlockWeights::load(&model, block, self.backend)?;
                let ended = (stage.half, &quantized);
                advance(&mut passage, ended, (&mut streams.quantized, &inner))?;
            }
        }
        layers.extend(self.unseen(&mut model, block, &counts)?);
        outliers::put_last(&mut model, block)?;
        Ok(RoundedBlock { weights: model.weights, layers })
    }

    /// Rounds to nearest what no stage has rounded: experts that saw hardly a token.
    fn unseen(
        &self,
        model: &mut Model,
        block: usize,
        counts: &Counts,
    ) -> Result<Vec<LayerReport>, QuantizeError> {
        let specs = model.spec.tensors.iter().filter(|it| it.block == Some(block));
        let seen = |role, expert| counts.get(&(role, expert)).copied().unwrap_or(0);
        let all: Vec<(String, u64)> =
            specs.map(|it| (it.name.clone(), seen(it.role, it.expert))).collect();
        let mut layers = Vec::new();
        for (tensor, tokens) in all {
            if model.weights.quantized.contains_key(&tensor) {
                continue;
            }
            let Some((scheme, shape)) = self.plan.scheme(&tensor) else { continue };
            let values = model.weights.get(&tensor)?.to_f32();
            let rounded =
                outliers::nearest(self.grid(scheme), &values, (shape, scheme.outliers), self.team);
            model.weights.quantize(&tensor, scheme, &rounded);
            if scheme.activations == Activations::Int8Static {
                let scale = input_scale::of_another_expert(model, block, &tensor)?;
                model.weights.set_input_scale(&tensor, scale);
            }
            let (outliers, nearest) = (scheme.outliers, true);
            let told = LayerReport { block, tensor, tokens, outliers, ..LayerReport::default() };
            layers.push(LayerReport { nearest, ..told });
        }
        Ok(layers)
    }

    /// Whether some layer has static activations.
    fn has_scales(&self) -> bool {
        let mut schemes = self.plan.tensors.values().filter_map(|it| it.scheme);
        schemes.any(|it| it.activations == Activations::Int8Static)
    }

    fn grid(&self, scheme: TensorScheme) -> Rtn {
        Rtn { grid: scheme.weights, scale_type: scheme.scale_type, method: self.grid }
    }

    /// Sums what the layers of a stage see, and keeps their inputs where they add to the stream;
    /// carries the float stream through a half in its last stage.
    fn see(
        &self,
        stage: Stage,
        passage: &mut Passage<'_>,
        (float, quantized): (&BlockWeights, &BlockWeights),
        streams: &mut Streams,
    ) -> Result<(Seen, HiddenStates), QuantizeError> {
        let block = passage.runner.block();
        let experts = matches!(self.spec.blocks[block].mlp, Mlp::Experts { .. });
        let routed = stage.half == Half::Mlp && experts;
        let mut seen = Seen::new();
        let mut inners = HiddenStates::default();
        let halves = [stage.half];
        let here = (halves.as_slice(), quantized);
        for window in 0..streams.float.len() {
            let (x, mut y) = (streams.float.load(window), streams.quantized.load(window));
            passage.check(&y, here, (window, &streams.quantized))?;
            let target = self.target(stage, passage, (float, x, &y), (window, streams))?;
            let target = target.filter(|_| !routed);
            let counts = window < self.calibration;
            if routed {
                let mut sum = |site, x: ArrayView2<'_, f32>| match site {
                    Site::Input(role, expert) if role == stage.roles[0] && counts => {
                        self.add(&mut seen, expert, x, None);
                    }
                    _ => {}
                };
                passage.runner.run(stage.half, quantized, y.view_mut(), &mut sum);
                passage.check(&y, here, (window, &streams.quantized))?;
            } else if let Some(inner) = stage
                .writes()
                .then(|| passage.runner.inner(stage.half, quantized, y.view()))
                .flatten()
            {
                passage.check(&inner, here, (window, &streams.quantized))?;
                if counts {
                    self.add(&mut seen, None, inner.view(), target.as_ref());
                }
                if inners.is_empty() {
                    inners = HiddenStates::of_width(inner.ncols());
                }
                inners.push(inner.view());
            } else if counts {
                let inputs = quantized.input(stage.half, y.view(), self.team);
                passage.check(&inputs, here, (window, &streams.quantized))?;
                self.add(&mut seen, None, inputs.view(), target.as_ref());
            }
        }
        Ok((seen, inners))
    }

    /// What the layers of a stage are fitted to in one window: the float model's input of layers
    /// that begin a half; what the layer that ends it should add to the quantized stream `y`,
    /// with the float stream `x` carried on.
    fn target(
        &self,
        stage: Stage,
        passage: &mut Passage<'_>,
        (float, x, y): (&BlockWeights, Array2<f32>, &Array2<f32>),
        (window, streams): (usize, &mut Streams),
    ) -> Result<Option<Array2<f32>>, QuantizeError> {
        let wanted = self.settings.target;
        if !stage.writes() {
            let normed = || float.input(stage.half, x.view(), self.team);
            return Ok((wanted != RoundingTarget::Weights).then(normed));
        }
        let before = (wanted == RoundingTarget::Output).then(|| x.clone());
        let half = (&[stage.half][..], float);
        let x = passage.carry(half, x, (window, &streams.float), &mut NoTap)?;
        streams.float.store(window, x.view());
        self.progress.advance(x.nrows() as u64);
        Ok(match wanted {
            RoundingTarget::Weights => None,
            RoundingTarget::Output => before.map(|before| x - before),
            RoundingTarget::Stream => Some(x - y),
        })
    }

    fn add(
        &self,
        seen: &mut Seen,
        expert: Option<Expert>,
        x: ArrayView2<'_, f32>,
        target: Option<&Array2<f32>>,
    ) {
        let sums = seen
            .entry(expert)
            .or_insert_with(|| Sums::new(x.ncols(), target.map(Array2::ncols), self.has_scales()));
        sums.add(x, target, self.team);
    }

    /// Rounds the layers of a stage that see one input.
    fn round(
        &self,
        model: &mut Model,
        (block, stage, expert): (usize, Stage, Option<Expert>),
        sums: Sums,
    ) -> Result<Vec<LayerReport>, QuantizeError> {
        let specs = stage
            .roles
            .iter()
            .filter_map(|role| model.spec.find(Some(block), *role, expert, Part::Weight));
        let mut layers: Vec<Layer> = Vec::new();
        for spec in specs {
            let Some((scheme, shape)) = self.plan.scheme(&spec.name) else { continue };
            let values = model.weights.get(&spec.name)?.to_f32();
            let weight = Array2::from_shape_vec((shape[0], shape[1]), values);
            let weight = weight.expect("its shape");
            let bias = model.spec.find(Some(block), spec.role, expert, Part::Bias);
            let bias = match bias {
                Some(spec) => {
                    Some((spec.name.clone(), model.weights.get(&spec.name)?.to_f32().into()))
                }
                None => None,
            };
            layers.push(Layer { name: spec.name.clone(), weight, bias, scheme });
        }
        if layers.is_empty() {
            return Ok(Vec::new());
        }
        let targets = sums.targets(&layers, stage.writes(), self.settings.target_damping)?;
        let hessians = self.hessians(&layers, &targets, &sums)?;
        let scale = sums.magnitudes.as_ref().map(Magnitudes::scale);
        let mut inputs = sums.inputs.clone();
        mirror(&mut inputs);
        let mut reports = Vec::new();
        for (layer, target) in layers.iter().zip(targets) {
            let Layer { name, scheme, .. } = layer;
            let hessian = &hessians[&scheme.outliers];
            let rounding = Rounding { grid: self.grid(*scheme), sweeps: self.settings.sweeps };
            let rounded = hessian.round(&target, rounding, self.team);
            let [out, columns] = rounded.shape();
            let values = Array2::from_shape_vec((out, columns), rounded.dequantize());
            let values = values.expect("its shape");
            let energy = |w: &Array2<f32>| (w.dot(&inputs) * w).sum();
            reports.push(LayerReport {
                block,
                tensor: name.clone(),
                error: f64::from(energy(&(&values - &target)) / energy(&target)),
                damping: hessian.damping(),
                raised: hessian.raised(),
                tokens: sums.tokens,
                outliers: scheme.outliers,
                nearest: false,
            });
            model.weights.quantize(name, *scheme, &rounded);
            if let Some(scale) = scale.filter(|_| scheme.activations == Activations::Int8Static) {
                model.weights.set_input_scale(name, scale);
            }
            if let (Some((name, _)), true) = (&layer.bias, sums.cross.is_some()) {
                let bias = layer.corrected_bias(stage.writes(), &values, &sums);
                model.weights.replace(name, bias.iter().copied());
            }
        }
        Ok(reports)
    }

    /// The inputs of layers by the number of columns that they keep apart.
    fn hessians(
        &self,
        layers: &[Layer],
        targets: &[Array2<f32>],
        sums: &Sums,
    ) -> Result<BTreeMap<usize, Hessian>, QuantizeError> {
        let mut hessians = BTreeMap::new();
        let counts: BTreeSet<usize> = layers.iter().map(|it| it.scheme.outliers).collect();
        for count in counts {
            let alike = layers.iter().zip(targets).filter(|(it, _)| it.scheme.outliers == count);
            let alike = alike.map(|(it, target)| (self.grid(it.scheme), target)).collect();
            let energy = Some(sums.inputs.diag());
            let columns = (count > 0).then(|| outliers::columns(alike, energy, count));
            let hessian = Hessian::new(sums.inputs.view(), self.settings.damping, columns);
            let tensor = || layers[0].name.clone();
            let hessian =
                hessian.map_err(|source| QuantizeError::Hessian { tensor: tensor(), source })?;
            hessians.insert(count, hessian);
        }
        Ok(hessians)
    }
}

/// Carries windows through a half; `inners` are the inputs of the layer that ends it, if they are
/// known.
fn advance(
    passage: &mut Passage<'_>,
    (half, weights): (Half, &BlockWeights),
    (states, inners): (&mut HiddenStates, &HiddenStates),
) -> Result<(), NonFinite> {
    for window in 0..states.len() {
        if inners.is_empty() {
            passage.through((&[half], weights), states, window, &mut NoTap)?;
        } else {
            let inner = inners.load(window);
            passage.finish((half, weights), inner.view(), states, window)?;
        }
    }
    Ok(())
}
