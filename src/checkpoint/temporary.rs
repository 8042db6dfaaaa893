//! Hidden names under which outputs grow, and what is done about those that dead programs left.
//!
//! An output `NAME` grows as `.NAME.tmp-XXXXXX`, locked as long as its program lives. Where a system
//! cannot exchange two names, the old output is `.NAME.tmp-XXXXXX.old` for a moment.
use super::{
    CheckpointError,
    mark::discard,
    place::{OLD, RANDOM, is_random, partial, prefix, split},
};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// How often a name is taken again that another program's tidying had in hand.
const TRIES: usize = 16;

/// What a lock on a file or folder came to.
pub(super) enum Lock {
    /// It is ours until this is dropped; the system gives it up when the program ends.
    Held(fs::File),
    /// A living program has it.
    Busy,
    /// The system has no locks here, or the file is gone.
    Absent,
}

impl Lock {
    /// Locks what stands at `path`.
    #[expect(clippy::disallowed_methods, reason = "files and folders are opened to be locked")]
    pub(super) fn take(path: &Path) -> Self {
        if !cfg!(unix) {
            return Self::Absent;
        }
        match fs::File::open(path) {
            Ok(file) => Self::of(file),
            Err(_) => Self::Absent,
        }
    }

    pub(super) fn of(file: fs::File) -> Self {
        match file.try_lock() {
            Ok(()) => Self::Held(file),
            Err(fs::TryLockError::WouldBlock) => Self::Busy,
            Err(fs::TryLockError::Error(_)) => Self::Absent,
        }
    }
}

/// What makes a file or folder under a temporary name.
type Create<T> = fn(&tempfile::Builder<'_, '_>, &Path) -> std::io::Result<(T, Lock)>;

/// Makes something under a temporary name, with the rights `mode` as far as the umask leaves them,
/// and locks it. A name that another program's tidying took before it was locked is left to that.
pub(super) fn make<T>(
    (parent, name): (&Path, &OsStr),
    mode: u32,
    create: Create<T>,
) -> std::io::Result<(T, Option<fs::File>)> {
    let prefix = prefix(name);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).rand_bytes(RANDOM);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    for _ in 0..TRIES {
        match create(&builder, parent)? {
            (made, Lock::Held(lock)) => return Ok((made, Some(lock))),
            (made, Lock::Absent) => return Ok((made, None)),
            (_, Lock::Busy) => {}
        }
    }
    Err(std::io::ErrorKind::ResourceBusy.into())
}

/// A folder under a temporary name that stays.
pub(super) fn folder(
    builder: &tempfile::Builder<'_, '_>,
    parent: &Path,
) -> std::io::Result<(PathBuf, Lock)> {
    let path = builder.tempdir_in(parent)?.keep();
    let lock = Lock::take(&path);
    Ok((path, lock))
}

/// A file under a temporary name that goes when it is dropped.
pub(super) fn file(
    builder: &tempfile::Builder<'_, '_>,
    parent: &Path,
) -> std::io::Result<(tempfile::NamedTempFile, Lock)> {
    let file = builder.tempfile_in(parent)?;
    let lock = Lock::of(file.as_file().try_clone()?);
    Ok((file, lock))
}

/// Removes what programs left that were killed while they wrote `target`, and brings back an output
/// that lost its name to one of them. What a living program has is left alone.
pub(super) fn tidy(target: &Path) {
    let Ok((parent, name)) = split(target) else { return };
    let work = partial(Path::new(name)).into_os_string();
    let prefixes = [prefix(name), prefix(&work)];
    let mut found: Vec<(PathBuf, bool)> = Vec::new();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let rest = prefixes.iter().find_map(|it| name.strip_prefix(it.as_str()));
        let old = rest.is_some_and(|it| it.ends_with(OLD));
        let ours = rest.is_some_and(|it| is_random(it.strip_suffix(OLD).unwrap_or(it)));
        let plain = entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_file());
        if ours && plain {
            found.push((entry.path(), old));
        }
    }
    // Old outputs first: whether their program lives is told by the lock on the new one.
    found.sort_by_key(|(_, old)| !old);
    for (path, old) in found {
        let text = path.to_string_lossy();
        let holder = PathBuf::from(text.strip_suffix(OLD).filter(|_| old).unwrap_or(&text));
        let lock = Lock::take(&holder);
        let done = match lock {
            Lock::Busy => continue,
            _ if old && target.symlink_metadata().is_err() => fs::rename(&path, target),
            Lock::Held(_) | Lock::Absent if path.is_dir() => discard(&path),
            Lock::Held(_) => fs::remove_file(&path),
            Lock::Absent => continue,
        };
        tracing::debug!("`{}`, left over of a killed run: {done:?}", path.display());
    }
}

/// Takes a folder's name away and then removes it by `remove`: whoever looks finds it whole or not.
pub(super) fn remove_at_once(
    folder: &Path,
    remove: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<(), CheckpointError> {
    let (parent, name) = split(folder)?;
    let prefix = prefix(name);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).rand_bytes(RANDOM);
    let failed = |source| CheckpointError::Write { path: folder.to_owned(), source };
    let aside = builder.make_in(parent, |path| fs::rename(folder, path)).map_err(failed)?;
    let aside = aside.into_temp_path().keep().map_err(|error| failed(error.error))?;
    remove(&aside).map_err(failed)
}
