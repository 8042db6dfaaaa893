//! A single file that appears whole or not at all, written as it comes.
use super::{CheckpointError, OutputDir};
use std::{
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// A file in a hidden folder beside its target, moved there when complete; an error, a panic or an
/// interrupt removes it.
#[derive(Debug)]
pub struct OutputFile {
    file: BufWriter<fs::File>,
    dir: OutputDir,
    target: PathBuf,
    force: bool,
}

const PART: &str = "unfinished";

impl OutputFile {
    /// Starts a file. One that exists is refused without `force`.
    pub fn create(target: &Path, force: bool) -> Result<Self, CheckpointError> {
        check(target, force)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let dir = OutputDir::create(&target.with_file_name(format!(".{name}.unfinished")), false)?;
        let file = BufWriter::with_capacity(1 << 20, dir.file(PART)?);
        Ok(Self { file, dir, target: target.to_owned(), force })
    }

    /// Gives the file its name.
    pub fn commit(self) -> Result<(), CheckpointError> {
        let Self { file, dir, target, force } = self;
        let failed = |source| CheckpointError::Write { path: target.clone(), source };
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        check(&target, force)?;
        fs::rename(dir.path().join(PART), &target).map_err(failed)
    }
}

fn check(target: &Path, force: bool) -> Result<(), CheckpointError> {
    let path = || target.to_owned();
    if target.file_name().is_none() {
        return Err(CheckpointError::OutputName { path: path() });
    }
    if target.is_dir() {
        return Err(CheckpointError::NotReplaceable { path: path() });
    }
    if target.symlink_metadata().is_ok() && !force {
        return Err(CheckpointError::Exists { path: path() });
    }
    Ok(())
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests read files")]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("a.bin");
        let count = || fs::read_dir(top.path()).unwrap().count();
        let mut file = OutputFile::create(&path, false).unwrap();
        file.write_all(b"one").unwrap();
        drop(file);
        assert_eq!(count(), 0);
        let mut file = OutputFile::create(&path, false).unwrap();
        file.write_all(b"one").unwrap();
        file.commit().unwrap();
        assert_eq!((fs::read(&path).unwrap(), count()), (b"one".to_vec(), 1));
        assert!(matches!(OutputFile::create(&path, false), Err(CheckpointError::Exists { .. })));
        let mut file = OutputFile::create(&path, true).unwrap();
        file.write_all(b"two").unwrap();
        file.commit().unwrap();
        assert_eq!((fs::read(&path).unwrap(), count()), (b"two".to_vec(), 1));
    }
}
