//! A file of an output folder, hashed while it is written.
use super::CheckpointError;
use crate::tensor::hex;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileRecord {
    /// Size.
    pub bytes: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// A file and the hash of what went into it.
#[derive(Debug)]
pub struct HashedFile {
    file: File,
    shown: PathBuf,
    hash: Sha256,
    bytes: u64,
}

impl HashedFile {
    /// Creates a file at `path`, which errors call `shown`.
    #[expect(clippy::disallowed_methods, reason = "outputs are made here")]
    pub(super) fn create(path: &Path, shown: PathBuf) -> Result<Self, CheckpointError> {
        match File::create(path) {
            Ok(file) => Ok(Self { file, shown, hash: Sha256::new(), bytes: 0 }),
            Err(source) => Err(CheckpointError::Write { path: shown, source }),
        }
    }

    /// Appends bytes; the error names the file.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let written = self.write_all(bytes);
        written.map_err(|source| CheckpointError::Write { path: self.shown.clone(), source })
    }

    /// Brings everything to the disk and tells what it is.
    pub fn finish(self) -> Result<FileRecord, CheckpointError> {
        let Self { file, shown, hash, bytes } = self;
        file.sync_all().map_err(|source| CheckpointError::Write { path: shown, source })?;
        Ok(FileRecord { bytes, sha256: hex(&hash.finalize()) })
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
