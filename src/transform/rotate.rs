//! A transform of one model: which rotations, and the model that they give.
use super::{
    Evidence, HeadForm, MatrixReport, Report, Rotate, Rotation, Settings, TiedHead, TransformError,
    basis::{Draw, principal},
    error::of,
    learn,
    report::Learned,
    rewrite::{Downs, Rotations},
    rotation::digest,
};
use crate::{
    linalg::Hadamard,
    model::{
        Model, ModelSpec, Part, Role, Space, TRANSFORM_KEY, TensorSpec, Tensors, Transformed,
        WeightStore, family,
    },
    tensor::{Bytes, FloatType, RawTensor},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Rotations of a model, ready to be put into its weights.
#[derive(Clone, Debug)]
pub struct Transform {
    rotations: Rotations,
    transformed: Option<Transformed>,
    untie: bool,
    report: Report,
}

/// Bytes of a number of the correction over those of a weight of a head of its own, roughly:
/// float16 against int8.
const CORRECTION_WEIGHT: usize = 2;

/// What becomes of the head of a model whose residual stream is `rotated`.
fn head_form(settings: &Settings, spec: &ModelSpec, rotated: bool) -> HeadForm {
    let untie = match settings.tied_head.unwrap_or_default() {
        TiedHead::Auto => CORRECTION_WEIGHT * spec.hidden >= spec.vocab,
        TiedHead::Correction => false,
        TiedHead::Untie => true,
    };
    match (rotated && spec.tied, untie) {
        (false, _) => HeadForm::Kept,
        (true, true) => HeadForm::Untied,
        (true, false) => HeadForm::Corrected,
    }
}

impl Transform {
    /// The rotations that `settings` ask for. `seed` is that of the recipe, `share` the part of
    /// principal directions that `resq` puts last, `evidence` what `pca`, `resq` and `learned`
    /// are made of.
    ///
    /// # Errors
    /// Before any work: a model that is quantized or rotated, widths that do not fit, missing
    /// evidence.
    pub fn new(
        model: &Model,
        settings: &Settings,
        (seed, share): (u64, f64),
        evidence: Option<&Evidence>,
    ) -> Result<Self, TransformError> {
        check(model, settings, share)?;
        let kind = settings.kind();
        let evidence = match (settings.needs_evidence(), evidence) {
            (true, None) => return Err(TransformError::NoEvidence { kind: kind.name() }),
            (true, Some(evidence)) => Some(evidence.fitting(&model.spec)?),
            (false, _) => None,
        };
        let maker = Maker { spec: &model.spec, settings, seed, share, evidence };
        let (residual, learned) = maker.residual()?;
        let values = if settings.values() { maker.values()? } else { vec![] };
        let rotated = residual.is_some();
        let rotations = Rotations { residual, values, down: maker.down()? };
        let keys = maker.keys()?;
        let head = head_form(settings, &model.spec, rotated);
        let mut report = report(&rotations, &keys, (kind, seed), (head, model));
        report.learned = learned;
        let transformed = (!settings.is_identity()).then(|| Transformed {
            rotation: kind.name().into(),
            seed,
            residual_sha256: report.residual.as_ref().map(|it| it.sha256.clone()),
            values_sha256: report.values.as_ref().map(|it| it.sha256.clone()),
            head_correction: head == HeadForm::Corrected,
            down_input: settings.rotate_down == Some(true),
            keys: settings.rotate_keys == Some(true),
        });
        Ok(Self { rotations, transformed, untie: head == HeadForm::Untied, report })
    }

    /// Whether a model of `spec` has a stream that can be turned as `settings` ask for, before there is
    /// text or a weight.
    ///
    /// # Errors
    /// A norm behind a half: its gain is multiplied by no matrix.
    pub fn accepts(settings: &Settings, spec: &ModelSpec) -> Result<(), TransformError> {
        let kind = settings.kind();
        match spec.post_norm().filter(|_| kind != Rotate::None) {
            None => Ok(()),
            Some(norm) => {
                Err(TransformError::PostNorm { tensor: norm.name.clone(), kind: kind.name() })
            }
        }
    }

    /// The architecture of a model of `spec` behind a rotation with these settings, before there is
    /// one: what it leaves to the forward pass, and whether the head is tied.
    pub fn planned(settings: &Settings, spec: &ModelSpec) -> ModelSpec {
        let head = head_form(settings, spec, settings.kind() != Rotate::None);
        let mut planned = spec.clone();
        planned.tied &= head != HeadForm::Untied;
        planned.transformed = (!settings.is_identity()).then(|| Transformed {
            rotation: settings.kind().name().into(),
            head_correction: head == HeadForm::Corrected,
            down_input: settings.rotate_down == Some(true),
            keys: settings.rotate_keys == Some(true),
            ..Transformed::default()
        });
        planned
    }

    /// What was done.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The rotation of the residual stream.
    pub fn residual(&self) -> Option<&Rotation> {
        self.rotations.residual.as_ref()
    }

    /// The `config.json` of the rotated model.
    pub fn config(&self, config: &Value) -> Value {
        let mut config = config.clone();
        if let Some(transformed) = &self.transformed {
            config[TRANSFORM_KEY] = json!(transformed);
        }
        if self.untie {
            config["tie_word_embeddings"] = json!(false);
        }
        if self.residual().is_some() {
            family::without_extra_layers(&mut config);
        }
        config
    }

    /// All tensors of block `block` of `model` in the new coordinates, float32.
    pub fn block(&self, model: &Model, block: usize) -> Result<Tensors, TransformError> {
        self.tensors(model, &model.spec, Some(block))
    }

    /// Embedding, last norm and head in the new coordinates, float32; with the correction of a
    /// tied head, which is stored in float16 (of SmolLM2 that costs 3·10⁻⁸ of KL divergence,
    /// bfloat16 10⁻⁵), or the head of its own that there was not before.
    pub fn ends(&self, model: &Model) -> Result<Tensors, TransformError> {
        let spec = ModelSpec::from_config(&self.config(&model.config))?;
        self.tensors(model, &spec, None)
    }

    /// The weights of `model` without those beside the architecture that stand in coordinates that
    /// are turned.
    pub fn carried(&self, model: &Model) -> Result<WeightStore, TransformError> {
        let spec = ModelSpec::from_config(&self.config(&model.config))?;
        let mut weights = model.weights.clone();
        for name in model.stranded(&spec) {
            weights.raw.remove(&name);
        }
        Ok(weights)
    }

    /// The whole rotated model in memory, float32. Tensors that the architecture does not know
    /// are carried along where they fit, see [`Model::stranded`].
    pub fn apply(&self, model: &Model) -> Result<Model, TransformError> {
        let mut weights = self.carried(model)?;
        for block in 0..model.spec.blocks.len() {
            weights.raw.extend(self.block(model, block)?);
        }
        weights.raw.extend(self.ends(model)?);
        Ok(Model::new(self.config(&model.config), weights)?)
    }

    fn tensors(
        &self,
        model: &Model,
        spec: &ModelSpec,
        block: Option<usize>,
    ) -> Result<Tensors, TransformError> {
        let wanted = spec.tensors.iter().filter(|it| it.block == block);
        wanted.map(|it| Ok((it.name.clone(), self.tensor(model, it)?))).collect()
    }

    fn tensor(&self, model: &Model, spec: &TensorSpec) -> Result<RawTensor, TransformError> {
        match spec.role {
            Role::HeadInput => {
                let matrix = self.rotations.correction(model)?;
                let values: Vec<f32> = matrix.iter().map(|x| *x as f32).collect();
                Ok(narrow(matrix.shape().to_vec(), &values))
            }
            Role::Head if self.untie => self.rotations.untied(model, spec),
            _ => self.rotations.tensor(model, spec),
        }
    }
}

/// A tensor in float16, or in float32 where numbers are too large.
fn narrow(shape: Vec<usize>, values: &[f32]) -> RawTensor {
    if values.iter().any(|x| x.abs() > f32::from(half::f16::MAX)) {
        return RawTensor::from_f32(shape, values);
    }
    let mut bytes = Vec::new();
    FloatType::F16.encode(values, &mut bytes);
    RawTensor { dtype: FloatType::F16.dtype(), shape, bytes: Bytes::owned(bytes) }
}

/// What can be known to be wrong before any work.
fn check(model: &Model, settings: &Settings, share: f64) -> Result<(), TransformError> {
    if settings.is_identity() {
        return Ok(());
    }
    if let Some(tensor) = model.weights.quantized.keys().next() {
        return Err(TransformError::Quantized { tensor: tensor.clone() });
    }
    if let Some(before) = &model.spec.transformed {
        return Err(TransformError::Twice { found: before.rotation.clone() });
    }
    if !(share > 0.0 && share < 1.0) {
        return Err(TransformError::Share { found: share });
    }
    Transform::accepts(settings, &model.spec)?;
    let (hidden, kind) = (model.spec.hidden, settings.kind());
    match (settings.rotate_block, kind) {
        (Some(_), Rotate::Random | Rotate::Pca | Rotate::Resq) => {
            Err(TransformError::Whole { kind: kind.name() })
        }
        (Some(block), _) if block == 0 || !hidden.is_multiple_of(block) => {
            Err(TransformError::Block { hidden, found: block })
        }
        _ => Ok(()),
    }
}

/// Makes the rotations of a model. Each has a stream of random numbers of its own.
struct Maker<'a> {
    spec: &'a ModelSpec,
    settings: &'a Settings,
    seed: u64,
    share: f64,
    evidence: Option<&'a Evidence>,
}

impl Maker<'_> {
    fn residual(&self) -> Result<(Option<Rotation>, Option<Learned>), TransformError> {
        let (n, what) = (self.spec.hidden, "the residual stream");
        let block = self.settings.rotate_block.unwrap_or(n);
        let mut draw = Draw::new(self.seed, 0);
        let rotation = match (self.settings.kind(), self.evidence) {
            (Rotate::None, _) => return Ok((None, None)),
            (Rotate::Random, _) => draw.orthogonal(n, what)?,
            (Rotate::Pca, Some(it)) => Rotation::Dense(principal(&it.residual, what)?),
            (Rotate::Resq, Some(it)) => draw.resq(&it.residual, self.share, what)?,
            (Rotate::Learned, Some(Evidence { samples: Some(samples), .. })) => {
                let start = draw.hadamard(n, block, what)?;
                let (rotation, learned) = learn::procrustes(&start, samples).map_err(of(what))?;
                return Ok((Some(rotation), Some(learned)));
            }
            _ => draw.hadamard(n, block, what)?,
        };
        Ok((Some(rotation), None))
    }

    fn values(&self) -> Result<Vec<Vec<Rotation>>, TransformError> {
        let block = |b: usize| {
            let sizes = &self.spec.blocks[b];
            (0..sizes.kv_heads).map(|head| self.head((b, head), sizes.head_dim)).collect()
        };
        (0..self.spec.blocks.len()).map(block).collect()
    }

    fn head(&self, (b, head): (usize, usize), width: usize) -> Result<Rotation, TransformError> {
        let what = format!("the values of block {b}, head {head}");
        let stream = 1 + ((b as u64) << 32 | head as u64);
        let mut draw = Draw::new(self.seed, stream);
        let moments = self.evidence.map(|it| &it.values[b][head]);
        match (self.settings.kind(), moments) {
            (Rotate::Random, _) => draw.orthogonal(width, &what),
            (Rotate::Pca, Some(moments)) => Ok(Rotation::Dense(principal(moments, &what)?)),
            (Rotate::Resq, Some(moments)) => draw.resq(moments, self.share, &what),
            _ => draw.hadamard(width, width, &what),
        }
    }

    fn down(&self) -> Result<Downs, TransformError> {
        let down = |it: &&TensorSpec| it.role == Role::Down && it.part == Part::Weight;
        let downs = self.spec.tensors.iter().filter(down);
        let wanted = downs.filter(|_| self.settings.rotate_down == Some(true));
        let mut made: Vec<Arc<Hadamard>> = vec![];
        wanted
            .filter_map(|it| it.block.map(|block| (block, it.expert)))
            .map(|(block, expert)| {
                let width = self.spec.dim(Space::Mlp(block, expert));
                Ok(((block, expert), shared(&mut made, width, "the inputs of down projections")?))
            })
            .collect()
    }

    fn keys(&self) -> Result<Vec<Arc<Hadamard>>, TransformError> {
        let mut made = vec![];
        for block in self.spec.blocks.iter().filter(|_| self.settings.rotate_keys == Some(true)) {
            shared(&mut made, block.head_dim, "queries and keys")?;
        }
        Ok(made)
    }
}

/// The Hadamard matrix of a width, made once.
fn shared(
    made: &mut Vec<Arc<Hadamard>>,
    width: usize,
    what: &str,
) -> Result<Arc<Hadamard>, TransformError> {
    if let Some(matrix) = made.iter().find(|it| it.order() == width) {
        return Ok(matrix.clone());
    }
    let matrix = Arc::new(Hadamard::new(width).map_err(of(what))?);
    made.push(matrix.clone());
    Ok(matrix)
}

fn report(
    rotations: &Rotations,
    keys: &[Arc<Hadamard>],
    (kind, seed): (Rotate, u64),
    (head, model): (HeadForm, &Model),
) -> Report {
    let matrices = |all: Vec<&Rotation>| {
        let first = all.first()?;
        let (width, form) = (first.width(), first.name());
        let sha256 = digest(all.iter().copied());
        Some(MatrixReport { width, count: all.len(), form, sha256 })
    };
    let residual: Vec<&Rotation> = rotations.residual.iter().collect();
    let values: Vec<&Rotation> = rotations.values.iter().flatten().collect();
    let online = || rotations.down.values().chain(keys);
    let mut fallbacks: Vec<String> =
        residual.iter().chain(&values).filter_map(|it| it.fallback()).collect();
    fallbacks.extend(online().filter(|it| !it.is_flat()).map(|it| it.name()));
    let distinct = |mut names: Vec<String>| {
        names.sort();
        names.dedup();
        names
    };
    let (hidden, vocab) = (model.spec.hidden as u64, model.spec.vocab as u64);
    Report {
        rotation: kind.name().into(),
        seed,
        residual: matrices(residual),
        values: matrices(values),
        down_input: distinct(rotations.down.values().map(|it| it.name()).collect()),
        keys: distinct(keys.iter().map(|it| it.name()).collect()),
        fallbacks: distinct(fallbacks),
        head,
        head_values: match head {
            HeadForm::Kept => 0,
            HeadForm::Corrected => hidden * hidden,
            HeadForm::Untied => vocab * hidden,
        },
        learned: None,
    }
}
