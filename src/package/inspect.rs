//! What a model consists of: parameters by role, bytes, outliers.
use super::PackageError;
use crate::{
    linalg::Team,
    model::{Model, Role, Weight},
    progress::{Progress, Unit},
};
use std::collections::BTreeMap;

/// Version of the form of [`Inspection`].
pub const INSPECTION_SCHEMA: u64 = 1;

/// A model in figures.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Inspection {
    /// Version of this form.
    pub schema: u64,
    /// Registry name of the family.
    pub family: String,
    /// `architectures[0]` of `config.json`.
    pub architecture: String,
    /// Decoder layers.
    pub blocks: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// The head multiplies by the embedding.
    pub tied: bool,
    /// Parameters of the architecture.
    pub parameters: u64,
    /// Bytes of all stored tensors, carried ones among them.
    pub bytes: u64,
    /// Bits per parameter, carried tensors not counted.
    pub bits_per_weight: f64,
    /// Share of the weights that the outlier statistics were taken from; 1 is all.
    pub sampled: f64,
    /// Tensors by what they do.
    pub roles: Vec<RoleFigures>,
    /// Tensors that the architecture does not know.
    pub carried: Vec<String>,
    /// Every tensor of the architecture.
    pub tensors: BTreeMap<String, TensorFigures>,
}

/// A model that was looked at.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// What it is: a checkpoint, a package, or a form of its own.
    pub kind: &'static str,
    /// What it consists of.
    pub figures: Inspection,
}

/// All tensors of one role.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct RoleFigures {
    /// The role.
    pub role: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Parameters.
    pub parameters: u64,
    /// Stored bytes, scales and zero points counted.
    pub bytes: u64,
    /// Bits per weight.
    pub bits_per_weight: f64,
    /// How they are stored, e.g. `BF16` or `int4 sym g64`.
    pub stored: Vec<String>,
    /// Largest max/rms of a tensor.
    pub max_over_rms: f64,
    /// Largest kurtosis of a tensor.
    pub kurtosis: f64,
    /// Share of weights beyond 6 times their tensor's rms.
    pub beyond_6_rms: f64,
}

/// One tensor.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct TensorFigures {
    /// The role.
    pub role: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub stored: String,
    /// Stored bytes.
    pub bytes: u64,
    /// Largest magnitude.
    pub max: f64,
    /// Root of the mean square.
    pub rms: f64,
    /// Fourth moment over the squared second one (about zero): 3 for a normal distribution.
    pub kurtosis: f64,
    /// Share of weights beyond 6 times the rms; 2e-9 for a normal distribution.
    pub beyond_6_rms: f64,
}

/// Looks at a model. At most about `sample` weights are read for the statistics: then each n-th
/// row of every tensor.
pub fn inspect_model(
    model: &Model,
    sample: u64,
    team: &Team,
    progress: &dyn Progress,
) -> Result<Inspection, PackageError> {
    let parameters = model.spec.parameters();
    let step = parameters.div_ceil(sample.max(1)).max(1) as usize;
    let specs = &model.spec.tensors;
    let measured = measure_all(specs.len(), team, progress, |i| {
        figures(model, &specs[i].name, specs[i].role.name().to_owned(), step)
    })?;
    let read: u64 = measured.iter().map(|(_, read)| read).sum();
    let tensors: BTreeMap<String, TensorFigures> =
        specs.iter().zip(measured).map(|(it, (figures, _))| (it.name.clone(), figures)).collect();
    let known: u64 = tensors.values().map(|it| it.bytes).sum();
    let architecture = &model.config["architectures"][0];
    Ok(Inspection {
        schema: INSPECTION_SCHEMA,
        family: model.spec.family.to_owned(),
        architecture: architecture.as_str().unwrap_or(model.spec.family).to_owned(),
        blocks: model.spec.blocks.len(),
        hidden: model.spec.hidden,
        vocab: model.spec.vocab,
        tied: model.spec.tied,
        parameters,
        bytes: model.weights.raw.values().map(|raw| raw.bytes.len() as u64).sum(),
        bits_per_weight: known as f64 * 8.0 / parameters.max(1) as f64,
        sampled: read as f64 / parameters.max(1) as f64,
        roles: by_role(specs.iter().map(|it| (it.role, &tensors[&it.name]))),
        carried: model.extras().into_iter().map(str::to_owned).collect(),
        tensors,
    })
}

/// Calls `measure` for each of `count` tensors, on all threads.
pub(super) fn measure_all(
    count: usize,
    team: &Team,
    progress: &dyn Progress,
    measure: impl Fn(usize) -> Result<(TensorFigures, u64), PackageError> + Sync,
) -> Result<Vec<(TensorFigures, u64)>, PackageError> {
    let mut slots: Vec<Result<(TensorFigures, u64), PackageError>> = Vec::new();
    slots.resize_with(count, || Ok(Default::default()));
    progress.start("inspect", count as u64, Unit::Items);
    team.each(slots.iter_mut().collect(), |i, slot| {
        *slot = measure(i);
        progress.advance(1);
    });
    progress.finish();
    slots.into_iter().collect()
}

/// The figures of a tensor and how many of its weights were read.
fn figures(
    model: &Model,
    name: &str,
    role: String,
    step: usize,
) -> Result<(TensorFigures, u64), PackageError> {
    let store = &model.weights;
    let weight = store.get(name)?;
    let parts = store.part_names(name);
    let bytes =
        parts.iter().filter_map(|part| store.raw.get(part)).map(|raw| raw.bytes.len() as u64).sum();
    let stored = match &weight {
        Weight::Dense(raw) => raw.dtype.to_string(),
        Weight::Quantized { .. } | Weight::Split { .. } => store.quantized[name].0.to_string(),
    };
    let shape = weight.shape().to_vec();
    let figures = TensorFigures { role, shape, stored, bytes, ..TensorFigures::default() };
    let result = measure(figures, step, |at, row| weight.row(at, row));
    store.release(name);
    Ok(result)
}

/// Fills in the statistics of each `step`-th row; how many weights were read.
pub(super) fn measure(
    figures: TensorFigures,
    step: usize,
    fill: impl Fn(usize, &mut [f32]),
) -> (TensorFigures, u64) {
    let columns = figures.shape.last().copied().unwrap_or(1);
    let rows = figures.shape.iter().product::<usize>() / columns.max(1);
    let mut row = vec![0.0; columns];
    let (mut count, mut max, mut squares, mut fourths) = (0_u64, 0.0_f64, 0.0_f64, 0.0_f64);
    for at in (0..rows).step_by(step) {
        fill(at, &mut row);
        count += columns as u64;
        for x in row.iter().map(|x| f64::from(*x)) {
            let square = x * x;
            max = max.max(x.abs());
            squares += square;
            fourths += square * square;
        }
    }
    let mean = squares / count.max(1) as f64;
    let mut beyond = 0_u64;
    let limit = (6.0 * mean.sqrt()) as f32;
    if max > f64::from(limit) {
        for at in (0..rows).step_by(step) {
            fill(at, &mut row);
            beyond += row.iter().filter(|x| x.abs() > limit).count() as u64;
        }
    }
    let kurtosis = fourths / count.max(1) as f64 / (mean * mean).max(f64::MIN_POSITIVE);
    let (rms, beyond_6_rms) = (mean.sqrt(), beyond as f64 / count.max(1) as f64);
    (TensorFigures { max, rms, kurtosis, beyond_6_rms, ..figures }, count)
}

pub(super) fn by_role<'a>(
    tensors: impl Iterator<Item = (Role, &'a TensorFigures)>,
) -> Vec<RoleFigures> {
    let mut roles: BTreeMap<Role, RoleFigures> = BTreeMap::new();
    for (role, tensor) in tensors {
        let all = roles.entry(role).or_default();
        let parameters = tensor.shape.iter().map(|n| *n as u64).product::<u64>();
        all.role.clone_from(&tensor.role);
        all.tensors += 1;
        all.parameters += parameters;
        all.bytes += tensor.bytes;
        if !all.stored.contains(&tensor.stored) {
            all.stored.push(tensor.stored.clone());
        }
        all.max_over_rms = all.max_over_rms.max(tensor.max / tensor.rms.max(f64::MIN_POSITIVE));
        all.kurtosis = all.kurtosis.max(tensor.kurtosis);
        all.beyond_6_rms += tensor.beyond_6_rms * parameters as f64;
    }
    for all in roles.values_mut() {
        let parameters = all.parameters.max(1) as f64;
        all.bits_per_weight = all.bytes as f64 * 8.0 / parameters;
        all.beyond_6_rms /= parameters;
    }
    roles.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    #[cfg(feature = "builtin-model")]
    fn a_sample_is_told_and_outliers_are_counted() {
        let mut model = super::super::open("builtin:milm-mini").unwrap().model;
        let all = inspect_model(&model, u64::MAX, &Team::new(2), &Silent).unwrap();
        assert_eq!((all.parameters, all.blocks), (3_935_424, 8));
        assert!((all.sampled - 1.0).abs() < 1e-12 && (all.bits_per_weight - 16.0).abs() < 1e-12);
        assert_eq!(all.roles.iter().map(|role| role.parameters).sum::<u64>(), all.parameters);
        let some = inspect_model(&model, 1_000_000, &Team::new(2), &Silent).unwrap();
        assert!((0.2..0.3).contains(&some.sampled), "{}", some.sampled);

        let name = "model.layers.0.self_attn.k_proj.weight";
        let mut values = vec![0.0; 64 * 192];
        values[7] = -3.0;
        model
            .weights
            .raw
            .insert(name.into(), crate::tensor::RawTensor::from_f32(vec![64, 192], &values));
        let figures =
            &inspect_model(&model, u64::MAX, &Team::new(1), &Silent).unwrap().tensors[name];
        // One of n = 12288 weights is 3: mean square 9/n, kurtosis (81/n) / (9/n)² = n.
        assert!((figures.kurtosis - 12288.0).abs() < 1e-6 && (figures.max - 3.0).abs() < 1e-9);
        assert!((figures.beyond_6_rms - 1.0 / 12288.0).abs() < 1e-12);
    }
}
