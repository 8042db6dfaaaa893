//! What a file consists of, by its metadata and tensors: it may be of an architecture that is not read.
use super::{file::Gguf, names::place, parse::TensorInfo, value::Value};
use crate::{
    linalg::Team,
    model::Role,
    package::{
        INSPECTION_SCHEMA, Inspection, PackageError, TensorFigures,
        inspect::{by_role, measure, measure_all},
    },
    progress::Progress,
};
use std::collections::BTreeMap;

/// Looks at a file. At most about `sample` weights are read for the statistics.
pub(super) fn inspect(
    file: &Gguf,
    sample: u64,
    team: &Team,
    progress: &dyn Progress,
) -> Result<Inspection, PackageError> {
    let known = |it: &&TensorInfo| place(&it.name).is_some();
    let (ours, others): (Vec<_>, Vec<_>) = file.tensors.iter().partition(known);
    let elements = |it: &TensorInfo| it.shape.iter().map(|n| *n as u64).product::<u64>();
    let parameters: u64 = ours.iter().map(|it| elements(it)).sum();
    let step = parameters.div_ceil(sample.max(1)).max(1) as usize;
    let roles: Vec<Role> = ours.iter().filter_map(|it| Some(place(&it.name)?.1)).collect();
    let measured = measure_all(ours.len(), team, progress, |i| {
        Ok(figures(ours[i], roles[i].name().to_owned(), step))
    })?;
    let read: u64 = measured.iter().map(|(_, read)| read).sum();
    let tensors: BTreeMap<String, TensorFigures> =
        ours.iter().zip(measured).map(|(it, (found, _))| (it.name.clone(), found)).collect();
    let bytes: u64 = tensors.values().map(|it| it.bytes).sum();
    let architecture = file.metadata.get("general.architecture").map(Value::shown);
    let architecture = architecture.unwrap_or_default().trim_matches(['"', '`']).to_owned();
    let number = |key: &str| {
        let value = file.metadata.get(&format!("{architecture}.{key}"));
        value.and_then(Value::as_u64).unwrap_or(0) as usize
    };
    Ok(Inspection {
        schema: INSPECTION_SCHEMA,
        family: architecture.clone(),
        blocks: number("block_count"),
        hidden: number("embedding_length"),
        vocab: file
            .tensor("token_embd.weight")
            .and_then(|it| it.shape.first().copied())
            .unwrap_or(0),
        tied: file.tensor("output.weight").is_none(),
        parameters,
        bytes: file.tensors.iter().map(|it| it.bytes.len() as u64).sum(),
        bits_per_weight: bytes as f64 * 8.0 / parameters.max(1) as f64,
        sampled: read as f64 / parameters.max(1) as f64,
        roles: by_role(roles.into_iter().zip(ours.iter().map(|it| &tensors[&it.name]))),
        carried: others.iter().map(|it| it.name.clone()).collect(),
        tensors,
        architecture,
    })
}

fn figures(tensor: &TensorInfo, role: String, step: usize) -> (TensorFigures, u64) {
    let blank = TensorFigures {
        role,
        shape: tensor.shape.clone(),
        stored: tensor.format.name().to_owned(),
        bytes: tensor.bytes.len() as u64,
        ..TensorFigures::default()
    };
    let result = measure(blank, step, |at, row| {
        let size = tensor.format.bytes(row.len()).unwrap_or(0);
        let start = at.saturating_mul(size);
        tensor
            .format
            .decode(tensor.bytes.get(start..start.saturating_add(size)).unwrap_or_default(), row);
    });
    tensor.bytes.release();
    result
}
