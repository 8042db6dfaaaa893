//! Compares a package with its manifest: finds any flipped bit, missing or extra file.
use super::{MANIFEST_FILE, Manifest, PackageError, SIGNATURE_FILE, gguf, onnx};
use crate::{
    checkpoint::{Folder, hex, parse_safetensors, sha256},
    linalg::Team,
    progress::{Progress, Unit},
    tensor::{Bytes, RawTensor},
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt, path::Path};

/// One thing that is wrong with a package.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    /// The manifest is not the one that was sealed.
    Manifest {
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the manifest is not there.
    Missing {
        /// Its name.
        file: String,
    },
    /// A file that is not in the manifest.
    Extra {
        /// Its name.
        file: String,
    },
    /// A file cannot be read.
    Unreadable {
        /// Its name.
        file: String,
        /// The reason.
        reason: String,
    },
    /// A file with other bytes.
    Changed {
        /// Its name.
        file: String,
        /// What has changed in it: tensors, or the header.
        what: Vec<String>,
    },
    /// The tensors of the files are not those of the manifest.
    Tensors {
        /// In the manifest only.
        missing: Vec<String>,
        /// In the files only.
        extra: Vec<String>,
    },
    /// A weight that does not stand for what it stood for, or cannot be computed with.
    Weight {
        /// Its name.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest { reason } => write!(f, "`{MANIFEST_FILE}`: {reason}"),
            Self::Missing { file } => write!(f, "`{file}` is missing"),
            Self::Extra { file } => write!(f, "`{file}` does not belong to the package"),
            Self::Unreadable { file, reason } => write!(f, "`{file}`: {reason}"),
            Self::Changed { file, what } if what.is_empty() => write!(f, "`{file}` has changed"),
            Self::Changed { file, what } => {
                write!(f, "`{file}` has changed: {}", what.join(", "))
            }
            Self::Tensors { missing, extra } => {
                write!(f, "tensors: missing {missing:?}, not in the manifest {extra:?}")
            }
            Self::Weight { tensor, reason } => write!(f, "tensor `{tensor}`: {reason}"),
        }
    }
}

/// What was compared and what is wrong.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Verification {
    /// Files that were compared.
    pub files: usize,
    /// Tensors that the manifest lists.
    pub tensors: usize,
    /// Bytes of the files.
    pub bytes: u64,
    /// Tensors that were decoded, with `--deep`.
    pub decoded: usize,
    /// Quantized weights among them whose values have no recorded hash.
    pub unrecorded: usize,
    /// Whether the metadata of a GGUF file has no recorded hash: an earlier version wrote it.
    pub uncovered: bool,
    /// Files and folders of the hub and of version control, which no engine reads; not compared.
    pub unpackaged: Vec<String>,
    /// Everything that is wrong; empty for an intact package.
    pub problems: Vec<Problem>,
}

impl Verification {
    /// Whether nothing is wrong.
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Compares every file of a package or an exported folder with its manifest, or every tensor of a GGUF file that this
/// program wrote with its hash.
pub fn verify(
    name: &str,
    team: &Team,
    progress: &dyn Progress,
) -> Result<Verification, PackageError> {
    let path = Path::new(name);
    if path.extension().is_some_and(|it| it == "gguf") && path.is_file() {
        return verify_gguf(path, progress);
    }
    let folder = Folder::open(name)?;
    let mut result = Verification::default();
    let Some(bytes) = folder.read(MANIFEST_FILE)? else {
        return Err(PackageError::NoManifest { folder: name.to_owned() });
    };
    let manifest = match read_manifest(&folder, &bytes) {
        Ok((manifest, intact)) => {
            if !intact {
                result.problems.push(damaged("its own hash does not fit: it has changed"));
            }
            manifest
        }
        Err(reason) => {
            result.problems.push(damaged(&reason));
            return Ok(result);
        }
    };
    let mut present = folder.list()?;
    present.retain(|file| file != MANIFEST_FILE && file != SIGNATURE_FILE);
    present.retain(|file| !manifest.files.contains_key(file));
    (result.unpackaged, present) = present.into_iter().partition(|it| is_of_hub(&folder, it));
    let extra = present.iter();
    result.problems.extend(extra.map(|file| Problem::Extra { file: file.clone() }));

    progress.start("verify", manifest.files.values().map(|it| it.bytes).sum(), Unit::Bytes);
    let mut found: Vec<(Option<Problem>, u64)> = vec![(None, 0); manifest.files.len()];
    let tasks: Vec<_> = manifest.files.keys().zip(&mut found).collect();
    team.each(tasks, |_, (file, slot)| *slot = check_file(&folder, &manifest, file, progress));
    progress.finish();
    result.files = manifest.files.len();
    let exported = manifest.export.as_ref();
    result.tensors = exported.map_or(manifest.tensors.len(), |it| it.tensors);
    for (problem, bytes) in found {
        result.bytes += bytes;
        result.problems.extend(problem);
    }
    if result.passed() && exported.is_none() {
        result.problems.extend(check_tensors(&folder, &manifest)?);
    }
    Ok(result)
}

/// Whether an entry is one that downloads and repositories put beside a model.
fn is_of_hub(folder: &Folder, entry: &str) -> bool {
    match entry {
        ".gitattributes" | ".gitignore" | ".git/" | ".huggingface/" => true,
        ".cache/" => folder.list_in(".cache").is_ok_and(|names| names == ["huggingface/"]),
        _ => false,
    }
}

fn verify_gguf(path: &Path, progress: &dyn Progress) -> Result<Verification, PackageError> {
    let gguf = gguf::open(path)?;
    let file = gguf.file.clone();
    let bytes = gguf.tensors.iter().map(|it| it.bytes.len() as u64).sum();
    let no_hashes = || PackageError::NoHashes { file: file.clone() };
    let sealed = gguf.sealed().ok_or_else(no_hashes)?;
    progress.start("verify", bytes, Unit::Bytes);
    let differs =
        |hash: &str, tensor: &gguf::TensorInfo| hash != self::hash(&tensor.bytes, progress);
    let all =
        sealed.tensors.iter().zip(&gguf.tensors).filter(|(hash, tensor)| differs(hash, tensor));
    let mut what: Vec<String> =
        all.map(|(_, tensor)| format!("tensor `{}`", tensor.name)).collect();
    if let Some(recorded) = sealed.header {
        let found = gguf::header_sha256(&gguf.header);
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
fn is_padding(gguf: &gguf::Gguf) -> bool {
    let blank = |it: &Bytes| it.len() < gguf::ALIGNMENT && it.iter().all(|byte| *byte == 0);
    let length = |it: &Bytes| it.len();
    let all = gguf.tensors.iter().map(|it| &it.bytes).chain(&gguf.padding).map(length);
    gguf.padding.iter().all(blank) && all.sum::<usize>().is_multiple_of(gguf::ALIGNMENT)
}

fn damaged(reason: &str) -> Problem {
    Problem::Manifest { reason: reason.to_owned() }
}

/// The manifest and whether its own hash fits.
fn read_manifest(folder: &Folder, bytes: &Bytes) -> Result<(Manifest, bool), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
    let told = |error: PackageError| error.to_string().lines().next().unwrap_or("").to_owned();
    let manifest = Manifest::read(folder).map_err(told)?.ok_or("missing")?;
    let intact = manifest.is_intact(text);
    Ok((manifest, intact))
}

/// Compares one file; the problem and the bytes that were read.
fn check_file(
    folder: &Folder,
    manifest: &Manifest,
    file: &str,
    progress: &dyn Progress,
) -> (Option<Problem>, u64) {
    let bytes = match folder.read(file) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return (Some(Problem::Missing { file: file.to_owned() }), 0),
        Err(error) => {
            let reason = error.to_string();
            return (Some(Problem::Unreadable { file: file.to_owned(), reason }), 0);
        }
    };
    let size = bytes.len() as u64;
    if manifest.files.get(file).is_some_and(|it| it.sha256 == hash(&bytes, progress)) {
        return (None, size);
    }
    let what = if file.ends_with(".safetensors") {
        changed_tensors(&bytes, manifest, file)
    } else if file == onnx::DATA_FILE {
        let names = onnx::changed_tensors(folder).into_iter();
        names.map(|name| format!("tensor `{name}`")).collect()
    } else {
        Vec::new()
    };
    (Some(Problem::Changed { file: file.to_owned(), what }), size)
}

/// Hash of a file, read in steps that leave memory again.
fn hash(bytes: &Bytes, progress: &dyn Progress) -> String {
    const STEP: usize = 8 << 20;
    let mut hash = Sha256::new();
    for start in (0..bytes.len()).step_by(STEP) {
        if let Some(part) = bytes.slice(start..(start + STEP).min(bytes.len())) {
            hash.update(&*part);
            part.release();
            progress.advance(part.len() as u64);
        }
    }
    hex(&hash.finalize())
}

/// Names of the tensors of a file that differ from the manifest.
fn changed_tensors(bytes: &Bytes, manifest: &Manifest, file: &str) -> Vec<String> {
    let tensors = match parse_safetensors(bytes) {
        Ok(tensors) => tensors,
        Err(error) => return vec![format!("header ({error})")],
    };
    let differs = |name: &str, raw: &RawTensor| {
        let same = manifest.tensors.get(name).is_some_and(|it| {
            (it.dtype, &it.shape) == (raw.dtype, &raw.shape) && it.sha256 == sha256(&raw.bytes)
        });
        raw.bytes.release();
        !same
    };
    let mut changed: Vec<String> = tensors
        .iter()
        .filter(|(name, raw)| differs(name, raw))
        .map(|(name, _)| format!("tensor `{name}`"))
        .collect();
    let expected = manifest.tensors.iter().filter(|(_, it)| it.file == file);
    let gone = expected.filter(|(name, _)| !tensors.contains_key(*name));
    changed.extend(gone.map(|(name, _)| format!("tensor `{name}` is gone")));
    if changed.is_empty() { vec!["header".into()] } else { changed }
}

/// The files hold the tensors that the manifest lists, where it says.
fn check_tensors(folder: &Folder, manifest: &Manifest) -> Result<Option<Problem>, PackageError> {
    let stored = folder.tensors()?;
    let listed: BTreeMap<&String, &String> =
        manifest.tensors.iter().map(|(name, it)| (name, &it.file)).collect();
    let missing: Vec<String> = listed
        .iter()
        .filter(|(name, file)| stored.files.get(**name) != Some(**file))
        .map(|(name, _)| (*name).clone())
        .collect();
    let extra: Vec<String> =
        stored.files.keys().filter(|name| !listed.contains_key(name)).cloned().collect();
    let wrong = !missing.is_empty() || !extra.is_empty();
    Ok(wrong.then_some(Problem::Tensors { missing, extra }))
}
