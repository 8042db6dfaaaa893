//! Single files that appear whole or not at all.
use super::{
    CheckpointError,
    place::{split, write_error},
    temporary::{self, tidy},
    unfinished::unfinished,
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
    /// Tells other runs that the file is being written.
    _lock: Option<fs::File>,
}

/// What stands at the name of an output.
enum Found {
    Nothing,
    /// A file, or a link to one or to nothing, which would be replaced.
    File,
    /// A character device or a pipe, which takes bytes and stays.
    Stream,
}

fn found(target: &Path) -> Result<Found, CheckpointError> {
    let path = target.to_owned();
    let Ok(own) = target.symlink_metadata() else { return Ok(Found::Nothing) };
    // What a link leads to counts, as for `/dev/stdout`.
    let kind = fs::metadata(target).unwrap_or(own).file_type();
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_char_device() || kind.is_fifo() {
            return Ok(Found::Stream);
        }
        if kind.is_socket() || kind.is_block_device() {
            let kind = if kind.is_socket() { "a socket" } else { "a block device" };
            return Err(CheckpointError::Special { path, kind });
        }
    }
    if kind.is_dir() {
        return Err(CheckpointError::Special { path, kind: "a folder" });
    }
    Ok(Found::File)
}

impl OutputFile {
    /// Starts a file. One that exists is refused without `force`, a device or pipe always: bytes
    /// are not written in their order.
    pub fn create(target: &Path, force: bool) -> Result<Self, CheckpointError> {
        let (parent, name) = split(target)?;
        tidy(target);
        Self::check(target, force)?;
        let made = temporary::make((parent, name), 0o666, temporary::file);
        let (file, lock) = made.map_err(write_error(target))?;
        let temp = file.path().to_owned();
        unfinished().push(temp.clone());
        let file = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(Self { target: target.to_owned(), temp, force, file, _lock: lock })
    }

    /// Refuses a target as [`Self::create`] would; for the start of long work.
    pub fn check(target: &Path, force: bool) -> Result<(), CheckpointError> {
        match found(target)? {
            Found::File if !force => Err(CheckpointError::Exists { path: target.to_owned() }),
            Found::Stream => {
                let (path, kind) = (target.to_owned(), "a device or pipe");
                Err(CheckpointError::Special { path, kind })
            }
            Found::File | Found::Nothing => Ok(()),
        }
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
        Self::check(&self.target, self.force)?;
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

/// Refuses what [`write_file`] would; for the start of long work.
pub fn check_file(path: &Path, force: bool) -> Result<(), CheckpointError> {
    match found(path)? {
        Found::Stream => Ok(()),
        Found::File | Found::Nothing => OutputFile::check(path, force),
    }
}

/// Writes one file under a temporary name and renames it. A file that exists is refused without
/// `force`; a character device or pipe is written to and stays.
pub fn write_file(path: &Path, bytes: &[u8], force: bool) -> Result<(), CheckpointError> {
    if let Found::Stream = found(path)? {
        let stream = fs::OpenOptions::new().write(true).open(path);
        return stream.and_then(|mut it| it.write_all(bytes)).map_err(write_error(path));
    }
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

    /// As root, a device that was replaced would be gone for every program.
    #[test]
    #[cfg(unix)]
    fn pipes_are_written_to_and_sockets_and_folders_left_alone() {
        use std::{io::Read, os::unix::fs::FileTypeExt};
        let top = tempfile::tempdir().unwrap();
        let pipe = top.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = String::new();
                fs::File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        write_file(&pipe, b"said", false).unwrap();
        assert_eq!(reader.join().unwrap(), "said");
        assert!(matches!(OutputFile::create(&pipe, true), Err(CheckpointError::Special { .. })));
        assert!(pipe.symlink_metadata().unwrap().file_type().is_fifo(), "still a pipe");

        let socket = top.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let folder = top.path().join("folder");
        fs::create_dir(&folder).unwrap();
        for path in [socket, folder] {
            let error = write_file(&path, b"x", true).unwrap_err();
            assert!(matches!(error, CheckpointError::Special { .. }), "{error}");
        }
        // A link counts as what it leads to, and a link to a file is replaced as a file is.
        std::os::unix::fs::symlink(&pipe, top.path().join("link")).unwrap();
        assert!(OutputFile::create(&top.path().join("link"), true).is_err());
    }

    #[test]
    #[cfg(unix)]
    fn what_a_killed_run_left_goes_but_not_what_a_living_one_writes() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("a.gguf");
        let living = OutputFile::create(&path, false).unwrap();
        for name in [".a.gguf.tmp-abc123", ".b.gguf.tmp-abc123", ".a.gguf.tmp-x"] {
            fs::write(top.path().join(name), "half").unwrap();
        }
        drop(OutputFile::create(&path, false).unwrap());
        let mut left: Vec<_> =
            fs::read_dir(top.path()).unwrap().map(|it| it.unwrap().path()).collect();
        left.sort();
        let mut want =
            [".a.gguf.tmp-x", ".b.gguf.tmp-abc123"].map(|it| top.path().join(it)).to_vec();
        want.push(living.temp.clone());
        want.sort();
        assert_eq!(left, want);
    }
}
