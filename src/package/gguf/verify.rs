//! Compares a file with the hashes of its metadata, and its blocks with the values that they stood for.
use super::{file::Gguf, parse::TensorInfo, seal::header_sha256, split::open, write::ALIGNMENT};
use crate::{
    linalg::Team,
    package::{
        PackageError, Problem, Verification,
        trust::{RowHash, hash, other_values, row_hash, values_hash},
    },
    progress::{Progress, Unit},
    tensor::Bytes,
};
use std::path::Path;

/// Values of a tensor that are decoded at a time.
const CHUNK: usize = 1 << 18;

/// Compares every tensor of a file that this program wrote, its metadata and what lies between.
pub(super) fn verify(name: &str, progress: &dyn Progress) -> Result<Verification, PackageError> {
    let gguf = open(Path::new(name))?;
    let file = gguf.file.clone();
    let bytes = gguf.tensors.iter().map(|it| it.bytes.len() as u64).sum();
    let no_hashes = || PackageError::NoHashes { file: file.clone() };
    let sealed = gguf.sealed().ok_or_else(no_hashes)?;
    progress.start("verify", bytes, Unit::Bytes);
    let differs = |recorded: &str, tensor: &TensorInfo| recorded != hash(&tensor.bytes, progress);
    let all =
        sealed.tensors.iter().zip(&gguf.tensors).filter(|(hash, tensor)| differs(hash, tensor));
    let mut what: Vec<String> =
        all.map(|(_, tensor)| format!("tensor `{}`", tensor.name)).collect();
    if let Some(recorded) = sealed.header {
        let found = header_sha256(&gguf.header);
        what.extend((found.as_deref() != Some(recorded)).then(|| "metadata".into()));
    }
    if !is_padding(&gguf) {
        what.push("padding between tensors".into());
    }
    progress.finish();
    let uncovered = sealed.header.is_none();
    let problems = if what.is_empty() { vec![] } else { vec![Problem::Changed { file, what }] };
    let tensors = gguf.tensors.len();
    Ok(Verification { files: 1, tensors, bytes, uncovered, problems, ..Verification::default() })
}

/// Whether zeros up to the alignment, as `export` writes them, are all that lies behind tensors.
fn is_padding(gguf: &Gguf) -> bool {
    let blank = |it: &Bytes| it.len() < ALIGNMENT && it.iter().all(|byte| *byte == 0);
    let length = |it: &Bytes| it.len();
    let all = gguf.tensors.iter().map(|it| &it.bytes).chain(&gguf.padding).map(length);
    gguf.padding.iter().all(blank) && all.sum::<usize>().is_multiple_of(ALIGNMENT)
}

/// Decodes every block of a GGUF file.
pub(super) fn decode(
    name: &str,
    team: &Team,
    progress: &dyn Progress,
    result: &mut Verification,
) -> Result<(), PackageError> {
    let gguf = open(Path::new(name))?;
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
fn wrong_blocks(tensor: &TensorInfo, recorded: Option<&str>, team: &Team) -> Option<String> {
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
