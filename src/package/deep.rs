//! `verify --deep`: weights stand for the values that they stood for when they were written.
//!
//! Hashes of files tell that bytes are the same. This tells that a reader makes the same numbers of
//! them, and that they are numbers to compute with.
use super::{
    Opened, PackageError, Problem, Verification, gguf, open,
    values::{RowHash, row_hash, values_hash, weight_hash},
    verify,
};
use crate::{
    checkpoint::find_nonfinite,
    linalg::Team,
    model::{Model, Weight, part_name},
    progress::{Progress, Unit},
    scheme::{QTensor, Rounded},
};
use std::path::Path;

/// Values of a GGUF tensor that are decoded at a time.
const CHUNK: usize = 1 << 18;

/// What [`verify`] does and, where nothing is wrong with it, decodes every weight: scales are finite
/// and not 0, parts are what their values encode to, values have the hash of the manifest. The blocks of
/// a GGUF file are decoded, too: they are finite and have the hashes of its metadata.
pub fn verify_deep(
    name: &str,
    team: &Team,
    progress: &dyn Progress,
) -> Result<Verification, PackageError> {
    let mut result = verify(name, team, progress)?;
    if !result.passed() {
        return Ok(result);
    }
    let path = Path::new(name);
    if path.extension().is_some_and(|it| it == "gguf") && path.is_file() {
        decode_gguf(path, team, progress, &mut result)?;
    } else {
        decode(&open(name)?, team, progress, &mut result);
    }
    Ok(result)
}

fn decode(opened: &Opened, team: &Team, progress: &dyn Progress, result: &mut Verification) {
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

/// Decodes every block of a GGUF file.
fn decode_gguf(
    path: &Path,
    team: &Team,
    progress: &dyn Progress,
    result: &mut Verification,
) -> Result<(), PackageError> {
    let gguf = gguf::open(path)?;
    let recorded = gguf.value_hashes().filter(|it| it.len() == gguf.tensors.len());
    progress.start("decode", result.bytes, Unit::Bytes);
    for (at, tensor) in gguf.tensors.iter().enumerate() {
        let recorded = recorded.map(|all| all[at].as_str()).filter(|it| !it.is_empty());
        let reason = wrong_blocks(tensor, recorded, team);
        tensor.bytes.release();
        result.decoded += 1;
        // The bytes of plain floats are their values.
        result.unrecorded += usize::from(recorded.is_none() && tensor.format.block_len() > 1);
        result
            .problems
            .extend(reason.map(|reason| Problem::Weight { tensor: tensor.name.clone(), reason }));
        progress.advance(tensor.bytes.len() as u64);
    }
    progress.finish();
    Ok(())
}

/// What is wrong with a tensor of a GGUF file, if anything is.
fn wrong_blocks(tensor: &gguf::TensorInfo, recorded: Option<&str>, team: &Team) -> Option<String> {
    let (format, columns) = (tensor.format, tensor.shape.last().copied().unwrap_or(1).max(1));
    let stride = format.bytes(columns).unwrap_or(0).max(1);
    let per_task = (CHUNK / columns).max(1);
    let chunks: Vec<&[u8]> = tensor.bytes.chunks(per_task * stride).collect();
    let mut found: Vec<(Vec<RowHash>, Option<f32>)> = vec![Default::default(); chunks.len()];
    team.each(chunks.into_iter().zip(&mut found).collect(), |_, (bytes, (rows, wrong))| {
        let mut values = vec![0.0; columns];
        for row in bytes.chunks(stride) {
            format.decode(row, &mut values);
            *wrong = wrong.or_else(|| values.iter().copied().find(|value| !value.is_finite()));
            rows.extend(recorded.map(|_| row_hash(&values)));
        }
    });
    if let Some(value) = found.iter().find_map(|(_, wrong)| *wrong) {
        return Some(format!("a value is {value}"));
    }
    let rows: Vec<RowHash> = found.into_iter().flat_map(|(rows, _)| rows).collect();
    other_values(recorded?, &values_hash(&rows))
}

/// Another hash than the recorded one.
fn other_values(recorded: &str, found: &str) -> Option<String> {
    let other = recorded != found;
    other.then(|| format!("its values have the hash `{found}`, recorded is `{recorded}`"))
}
