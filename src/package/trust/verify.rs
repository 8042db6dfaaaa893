//! Compares a folder with its manifest: finds any flipped bit, missing or extra file.
use super::{MANIFEST_FILE, Manifest, SIGNATURE_FILE};
use crate::{
    checkpoint::{Folder, hex},
    linalg::Team,
    package::PackageError,
    progress::{Progress, Unit},
    tensor::Bytes,
};
use sha2::{Digest, Sha256};
use std::fmt;

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

/// Tells what has changed in a file that is not the one of the manifest: tensors, or the header.
pub(in crate::package) type ChangedIn =
    dyn Fn(&Folder, &Manifest, &str, &Bytes) -> Vec<String> + Sync;

/// A folder beside its manifest.
pub(in crate::package) struct Compared {
    pub(in crate::package) folder: Folder,
    /// `None` where it cannot be read.
    pub(in crate::package) manifest: Option<Manifest>,
    pub(in crate::package) result: Verification,
}

/// Compares every file of a folder with its manifest; `changed` tells what has changed in a file that is another.
pub(in crate::package) fn by_manifest(
    name: &str,
    changed: &ChangedIn,
    team: &Team,
    progress: &dyn Progress,
) -> Result<Compared, PackageError> {
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
            return Ok(Compared { folder, manifest: None, result });
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
    team.each(tasks, |_, (file, slot)| {
        *slot = check_file((&folder, &manifest, file), changed, progress);
    });
    progress.finish();
    result.files = manifest.files.len();
    let exported = manifest.export.as_ref();
    result.tensors = exported.map_or(manifest.tensors.len(), |it| it.tensors);
    for (problem, bytes) in found {
        result.bytes += bytes;
        result.problems.extend(problem);
    }
    Ok(Compared { folder, manifest: Some(manifest), result })
}

/// Whether an entry is one that downloads and repositories put beside a model.
fn is_of_hub(folder: &Folder, entry: &str) -> bool {
    match entry {
        ".gitattributes" | ".gitignore" | ".git/" | ".huggingface/" => true,
        ".cache/" => folder.list_in(".cache").is_ok_and(|names| names == ["huggingface/"]),
        _ => false,
    }
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
    (folder, manifest, file): (&Folder, &Manifest, &str),
    changed: &ChangedIn,
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
    let what = changed(folder, manifest, file, &bytes);
    (Some(Problem::Changed { file: file.to_owned(), what }), size)
}

/// Hash of a file, read in steps that leave memory again.
pub(in crate::package) fn hash(bytes: &Bytes, progress: &dyn Progress) -> String {
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
