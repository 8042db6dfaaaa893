//! Read-only bytes: a range of a memory-mapped file, a buffer, or data carried by the binary.
#![expect(unsafe_code, reason = "memory mapping; audited here, see docs/ARCHITECTURE.md")]
use memmap2::{Mmap, UncheckedAdvice};
use std::{
    fs::File,
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

/// A file could not be mapped.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`: {source}", path.display())]
pub struct MapError {
    /// The file.
    pub path: PathBuf,
    /// The system's reason.
    pub source: std::io::Error,
}

impl Bytes {
    /// Maps a whole file. Nothing is read until the bytes are touched.
    pub fn map(path: &Path) -> Result<Self, MapError> {
        let wrap = |source| MapError { path: path.to_owned(), source };
        #[expect(clippy::disallowed_methods, reason = "the one place where files are mapped")]
        let file = File::open(path).map_err(wrap)?;
        let meta = file.metadata().map_err(wrap)?;
        if meta.is_dir() {
            return Err(wrap(std::io::ErrorKind::IsADirectory.into()));
        }
        if meta.len() == 0 {
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
}
