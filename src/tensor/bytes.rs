//! Read-only bytes: a range of a memory-mapped file, a buffer, or data carried by the binary.
#![expect(unsafe_code, reason = "memory mapping; audited here, see docs/ARCHITECTURE.md")]
use memmap2::{Mmap, UncheckedAdvice};
use std::{
    fs::{File, Metadata},
    io::{self, ErrorKind, Read},
    ops::{Deref, Range},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Shared read-only bytes. Cloning copies a pointer.
#[derive(Clone)]
pub struct Bytes {
    source: Source,
    range: Range<usize>,
}

#[derive(Clone)]
enum Source {
    Mapped(Arc<Mmap>),
    Owned(Arc<Vec<u8>>),
    Static(&'static [u8]),
}

/// A file could not be read or mapped.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`: {source}", path.display())]
pub struct MapError {
    /// The file.
    pub path: PathBuf,
    /// The system's reason, or why this program does not read it.
    pub source: io::Error,
}

/// Opens a file to read it, and tells its size: every file that the program reads is opened here.
/// Only regular files and links to them are, for a pipe or a device may never come to an end.
pub fn open_file(path: &Path) -> Result<(File, u64), MapError> {
    let open = || {
        // A device may act on being opened, so it is looked at before. What takes the file's place
        // after that is looked at again below, and opening it does not wait for a writer.
        regular(&std::fs::metadata(path)?)?;
        let mut options = File::options();
        options.read(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
        );
        let file = options.open(path)?;
        let meta = file.metadata()?;
        regular(&meta)?;
        Ok((file, meta.len()))
    };
    open().map_err(|source| MapError { path: path.to_owned(), source })
}

/// The bytes of a file that has at most `limit`.
pub fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, MapError> {
    let (file, size) = open_file(path)?;
    let read = || {
        let mut bytes = Vec::new();
        // A file may have grown since; those of /proc tell no size.
        if size <= limit {
            file.take(limit + 1).read_to_end(&mut bytes)?;
        }
        let size = size.max(bytes.len() as u64);
        if size > limit { Err(too_large(size, limit)) } else { Ok(bytes) }
    };
    read().map_err(|source| MapError { path: path.to_owned(), source })
}

fn too_large(size: u64, limit: u64) -> io::Error {
    let told = format!(
        "it has {size} bytes, and at most {limit} are read\nhint: no file of this kind is so large; check where it comes from"
    );
    io::Error::new(ErrorKind::FileTooLarge, told)
}

fn regular(meta: &Metadata) -> io::Result<()> {
    if meta.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if meta.is_file() {
        return Ok(());
    }
    let told = format!(
        "it is {}, not a file\nhint: write what it gives to a file, and name that",
        kind(meta)
    );
    Err(io::Error::new(ErrorKind::InvalidInput, told))
}

#[cfg(unix)]
fn kind(meta: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = meta.file_type();
    match () {
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

#[cfg(not(unix))]
fn kind(_: &Metadata) -> &'static str {
    "a pipe or a device"
}

impl Bytes {
    /// Maps a whole file. Nothing is read until the bytes are touched.
    pub fn map(path: &Path) -> Result<Self, MapError> {
        let wrap = |source| MapError { path: path.to_owned(), source };
        let (file, size) = open_file(path)?;
        if size == 0 {
            return Ok(Self::owned(Vec::new()));
        }
        // SAFETY: the mapping is read-only and private to this process. Files that this program
        // writes are written under a temporary name and renamed, so it never truncates a mapped
        // one; a foreign process that truncates the file ends this one with SIGBUS, as with any
        // mapping reader.
        let map = unsafe { Mmap::map(&file) }.map_err(wrap)?;
        let range = 0..map.len();
        Ok(Self { source: Source::Mapped(Arc::new(map)), range })
    }

    /// These bytes, unless they are more than `limit`; `path` is told in the error.
    pub fn within(self, limit: u64, path: &Path) -> Result<Self, MapError> {
        let size = self.len() as u64;
        if size <= limit {
            return Ok(self);
        }
        Err(MapError { path: path.to_owned(), source: too_large(size, limit) })
    }

    /// Bytes in memory.
    pub fn owned(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { source: Source::Owned(Arc::new(bytes)), range }
    }

    /// Bytes carried by the binary.
    pub fn fixed(bytes: &'static [u8]) -> Self {
        Self { source: Source::Static(bytes), range: 0..bytes.len() }
    }

    /// A part of these bytes, or `None` if `range` does not lie within them.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        let (start, end) =
            (self.range.start.checked_add(range.start)?, self.range.start.checked_add(range.end)?);
        (range.start <= range.end && end <= self.range.end)
            .then(|| Self { source: self.source.clone(), range: start..end })
    }

    /// Tells the system that mapped pages of these bytes are not needed for now: they leave
    /// resident memory and are read again when touched. Does nothing for bytes in memory.
    pub fn release(&self) {
        const PAGE: usize = 4096;
        if let Source::Mapped(map) = &self.source {
            let (start, end) = (self.range.start.next_multiple_of(PAGE), self.range.end);
            let end = if end == map.len() { end } else { end / PAGE * PAGE };
            if start < end {
                // SAFETY: DONTNEED on a read-only file mapping drops clean pages; a later read
                // faults them in again with the same content.
                let dropped = unsafe {
                    map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start)
                };
                if let Err(error) = dropped {
                    tracing::debug!("madvise: {error}");
                }
            }
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.source {
            Source::Mapped(map) => map,
            Source::Owned(bytes) => bytes,
            Source::Static(bytes) => bytes,
        };
        &all[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_stays_inside_its_parent() {
        let all = Bytes::owned((0..10).collect());
        let part = all.slice(2..6).unwrap();
        assert_eq!(&*part, &[2, 3, 4, 5]);
        assert_eq!(&*part.slice(1..2).unwrap(), &[3]);
        assert!(part.slice(3..5).is_none(), "the parent's bytes beyond the slice stay hidden");
        #[expect(clippy::reversed_empty_ranges, reason = "what a hostile header may say")]
        let reversed = part.slice(2..1);
        assert!(reversed.is_none());
        assert!(part.slice(usize::MAX..usize::MAX).is_none());
    }
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test makes files")]
    fn files_over_the_limit_are_refused_with_both_sizes_before_they_are_read() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("config.json");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_file(&path, 5).unwrap(), b"12345");
        assert!(Bytes::map(&path).unwrap().within(5, &path).is_ok());
        let mapped = Bytes::map(&path).unwrap().within(4, &path).unwrap_err();
        for error in [read_file(&path, 4).unwrap_err(), mapped] {
            let error = error.to_string();
            assert!(error.contains("config.json") && error.contains("5 bytes, and at most 4"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_refused_and_not_waited_for() {
        let top = tempfile::tempdir().unwrap();
        let pipe = top.path().join("config.json");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let link = top.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for (path, kind) in
            [(&*pipe, "a pipe"), (&*link, "a pipe"), (Path::new("/dev/zero"), "a device")]
        {
            for error in [Bytes::map(path).unwrap_err(), read_file(path, 9).unwrap_err()] {
                let error = error.to_string();
                assert!(
                    error.contains(&path.display().to_string()) && error.contains(kind),
                    "{error}"
                );
                assert!(error.contains("\nhint: "), "{error}");
            }
        }
        let folder = Bytes::map(top.path()).unwrap_err();
        assert_eq!(folder.source.kind(), ErrorKind::IsADirectory);
    }
}
