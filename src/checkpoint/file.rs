//! Single files that appear whole or not at all.
use super::{
    CheckpointError,
    output::{split, unfinished, write_error},
};
use std::{
    fs,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// A file under a hidden temporary name beside its target, renamed to it when complete. Dropped
/// before that, it is removed; so it is on Ctrl-C.
#[derive(Debug)]
pub struct OutputFile {
    target: PathBuf,
    temp: PathBuf,
    force: bool,
    file: Option<BufWriter<NamedTempFile>>,
}

impl OutputFile {
    /// Starts a file. One that exists is refused without `force`.
    pub fn create(target: &Path, force: bool) -> Result<Self, CheckpointError> {
        let (parent, name) = split(target)?;
        check(target, force)?;
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".{}.tmp-", name.to_string_lossy());
        builder.prefix(&prefix);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // Narrowed by the umask, as for any new file.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(parent).map_err(write_error(target))?;
        let temp = file.path().to_owned();
        unfinished().push(temp.clone());
        let file = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(Self { target: target.to_owned(), temp, force, file })
    }

    /// Appends bytes; the error names the file.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let target = self.target.clone();
        self.write_all(bytes).map_err(write_error(&target))
    }

    /// Writes over bytes that are there already; what is appended goes on behind the last one.
    pub fn patch(&mut self, at: u64, bytes: &[u8]) -> Result<(), CheckpointError> {
        let target = self.target.clone();
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut write = || {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)?;
            file.seek(SeekFrom::End(0)).map(drop)
        };
        write().map_err(write_error(&target))
    }

    /// Gives the file its name.
    pub fn commit(mut self) -> Result<(), CheckpointError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let failed = || write_error(&self.target);
        let file = file.into_inner().map_err(|error| failed()(error.into_error()))?;
        file.as_file().sync_all().map_err(failed())?;
        check(&self.target, self.force)?;
        file.persist(&self.target).map_err(|error| failed()(error.error))?;
        Ok(())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.as_mut().map_or(Ok(bytes.len()), |file| file.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        unfinished().retain(|path| *path != self.temp);
    }
}

fn check(target: &Path, force: bool) -> Result<(), CheckpointError> {
    if !force && target.symlink_metadata().is_ok() {
        return Err(CheckpointError::Exists { path: target.to_owned() });
    }
    if target.is_dir() {
        return Err(CheckpointError::NotReplaceable { path: target.to_owned() });
    }
    Ok(())
}

/// Writes one file under a temporary name and renames it. A file that exists is refused without
/// `force`.
pub fn write_file(path: &Path, bytes: &[u8], force: bool) -> Result<(), CheckpointError> {
    let mut file = OutputFile::create(path, force)?;
    file.append(bytes)?;
    file.commit()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make folders")]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_refused_or_replaced() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("a.json");
        write_file(&path, b"1", false).unwrap();
        assert!(matches!(write_file(&path, b"2", false), Err(CheckpointError::Exists { .. })));
        write_file(&path, b"2", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        let nowhere = write_file(&top.path().join("no/a.json"), b"1", false).unwrap_err();
        assert!(nowhere.to_string().contains("is the folder above it there"), "{nowhere}");
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("a.gguf");
        let mut file = OutputFile::create(&path, false).unwrap();
        file.append(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
        let mut file = OutputFile::create(&path, false).unwrap();
        file.append(b"who").unwrap();
        file.append(b"le").unwrap();
        assert!(!path.exists());
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
    }
}
