//! `verify --deep`: weights stand for the values that they stood for when they were written.
//!
//! Hashes of files tell that bytes are the same. This tells that a reader makes the same numbers of
//! them, and that they are numbers to compute with.
use super::{Problem, Verification, values::weight_hash};
use crate::{
    checkpoint::find_nonfinite,
    linalg::Team,
    model::{Model, Weight, part_name},
    package::Opened,
    progress::{Progress, Unit},
    scheme::{QTensor, Rounded},
};

/// Decodes every weight of a model: scales are finite and not 0, parts are what their values encode to,
/// values have the hash of the manifest.
pub(in crate::package) fn decode(
    opened: &Opened,
    team: &Team,
    progress: &dyn Progress,
    result: &mut Verification,
) {
    let model = &opened.model;
    let recorded = |name: &str| {
        let tensor = opened.manifest.as_ref()?.quantized.get(name)?;
        tensor.values_sha256.as_deref()
    };
    let bytes = model.weights.raw.values().map(|it| it.bytes.len() as u64).sum();
    progress.start("decode", bytes, Unit::Bytes);
    for name in model.weights.quantized.keys() {
        let found = check_weight(model, name, recorded(name), team);
        model.weights.release(name);
        result.unrecorded += usize::from(recorded(name).is_none());
        result.decoded += 1;
        result
            .problems
            .extend(found.map(|reason| Problem::Weight { tensor: name.clone(), reason }));
        progress.advance(stored_bytes(model, name));
    }
    let dense =
        model.spec.tensors.iter().filter_map(|it| model.weights.raw.get_key_value(&it.name));
    for (name, raw) in dense.filter(|(name, _)| !model.weights.quantized.contains_key(*name)) {
        let found = find_nonfinite(name, raw, &raw.bytes, 0);
        raw.bytes.release();
        result.decoded += 1;
        let reason = found
            .map(|it| format!("{} at {:?} is no number to compute with", it.value, it.position));
        result
            .problems
            .extend(reason.map(|reason| Problem::Weight { tensor: name.clone(), reason }));
        progress.advance(raw.bytes.len() as u64);
    }
    progress.finish();
}

fn stored_bytes(model: &Model, name: &str) -> u64 {
    let parts = model.weights.part_names(name);
    parts
        .iter()
        .filter_map(|part| model.weights.raw.get(part))
        .map(|it| it.bytes.len() as u64)
        .sum()
}

/// What is wrong with a quantized weight, if anything is.
fn check_weight(model: &Model, name: &str, recorded: Option<&str>, team: &Team) -> Option<String> {
    let weight = match model.weights.get(name) {
        Ok(weight) => weight,
        Err(error) => return Some(error.to_string()),
    };
    let hash = recorded.map(|recorded| (recorded, weight_hash(&weight, team)));
    let rounded = match weight {
        Weight::Quantized { tensor, .. } => Rounded::Whole(tensor),
        Weight::Split { tensor, .. } => Rounded::Split(tensor),
        Weight::Dense(_) => return None,
    };
    let scale = match &rounded {
        Rounded::Whole(tensor) => wrong_scale(tensor),
        Rounded::Split(tensor) => {
            wrong_scale(&tensor.base).or_else(|| wrong_scale(&tensor.outliers))
        }
    };
    scale.or_else(|| other_parts(model, name, &rounded)).or_else(|| {
        let (recorded, found) = hash?;
        other_values(recorded, &found)
    })
}

/// A scale that nothing can be computed with.
fn wrong_scale(tensor: &QTensor) -> Option<String> {
    let at = tensor.scales.iter().position(|scale| !scale.is_finite() || *scale == 0.0)?;
    let groups = (tensor.scales.len() / tensor.shape[0].max(1)).max(1);
    let (row, group, scale) = (at / groups, at % groups, tensor.scales[at]);
    Some(format!("the scale of row {row}, group {group} is {scale}"))
}

/// A part with other bytes than those that the decoded weight has: bits where no code is, another
/// shape than its scheme's.
fn other_parts(model: &Model, name: &str, rounded: &Rounded) -> Option<String> {
    let (scheme, _) = model.weights.quantized.get(name)?;
    let parts = scheme.encode(rounded).into_iter();
    let mut other = parts.filter(|(part, bytes)| {
        let stored = model.weights.raw.get(&part_name(name, part.suffix));
        stored.is_none_or(|stored| *stored.bytes != **bytes)
    });
    let (part, _) = other.next()?;
    Some(format!("`{}` holds bits that its values do not account for", part.suffix))
}

/// Another hash than the recorded one.
pub(in crate::package) fn other_values(recorded: &str, found: &str) -> Option<String> {
    let other = recorded != found;
    other.then(|| format!("its values have the hash `{found}`, recorded is `{recorded}`"))
}
