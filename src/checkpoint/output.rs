//! Outputs that appear whole or not at all.
use super::{CheckpointError, HashedFile, writer::sha256};
use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileRecord {
    /// Size.
    pub bytes: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// A folder under a hidden temporary name beside its target, renamed to it when complete.
/// Dropped before that, it is removed with everything in it.
#[derive(Debug)]
pub struct OutputDir {
    target: PathBuf,
    temp: PathBuf,
    force: bool,
    /// Parents that had to be made, outermost first; removed again with an unfinished output.
    made: Vec<PathBuf>,
    committed: bool,
    /// Tells other runs that the folder is in use; the system gives it up when the program ends.
    _lock: Option<fs::File>,
}

/// Random letters behind the name of a temporary folder.
const RANDOM: usize = 6;

/// Temporary folders and files of outputs that are being written.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

pub(super) fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every output that is not complete: for the handler of Ctrl-C, which ends the program
/// afterwards. Waits for a rename that is under way.
pub fn remove_unfinished() {
    let mut list = unfinished();
    for path in list.drain(..) {
        // A thread that still writes may add a file between listing and removal.
        for _ in 0..20 {
            if fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).is_ok()
                || !path.exists()
            {
                break;
            }
        }
    }
}

pub(super) fn write_error(path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError + '_ {
    |source| CheckpointError::Write { path: path.to_owned(), source }
}

/// Target's parent and name; parents are taken as they are, the name must be one.
pub(super) fn split(target: &Path) -> Result<(&Path, &OsStr), CheckpointError> {
    let name = target.file_name();
    let name = name.ok_or_else(|| CheckpointError::OutputName { path: target.to_owned() })?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")), name))
}

/// Whether a folder may be replaced on request: it is empty or holds a model.
fn replaceable(path: &Path) -> bool {
    let known = |name: &OsStr| {
        let ending = Path::new(name).extension().and_then(OsStr::to_str);
        name == "config.json" || matches!(ending, Some("safetensors" | "gguf"))
    };
    let Ok(entries) = fs::read_dir(path) else { return false };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.is_empty() || names.iter().any(|name| known(name))
}

fn make_parents(parent: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let mut missing: Vec<&Path> =
        parent.ancestors().take_while(|it| !it.as_os_str().is_empty() && !it.exists()).collect();
    missing.reverse();
    let mut made = Vec::new();
    for path in missing {
        if let Err(source) = fs::create_dir(path) {
            remove_made(&made);
            return Err(CheckpointError::Write { path: path.to_owned(), source });
        }
        made.push(path.to_owned());
    }
    Ok(made)
}

/// Removes parents again, as far as they are empty.
fn remove_made(made: &[PathBuf]) {
    made.iter().rev().take_while(|path| fs::remove_dir(path).is_ok()).count();
}

/// A lock on a folder, unless another holds it or the system has none.
#[expect(clippy::disallowed_methods, reason = "a folder is opened to be locked")]
fn lock(path: &Path) -> Option<fs::File> {
    let folder = if cfg!(unix) { fs::File::open(path).ok()? } else { return None };
    folder.try_lock().ok().map(|()| folder)
}

/// Removes temporary folders of runs for the same output that were killed: nobody holds their
/// locks. Folders that were set aside (`.old`) stay, since they may be all that is left.
fn remove_left_over(parent: &Path, name: &OsStr) {
    let prefix = format!(".{}.tmp-", name.to_string_lossy());
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        let ours = random.is_some_and(|it| {
            it.len() == RANDOM && it.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        let folder = ours && entry.file_type().is_ok_and(|it| it.is_dir());
        if folder && lock(&entry.path()).is_some() {
            let removed = fs::remove_dir_all(entry.path());
            tracing::debug!("left over of a killed run: {removed:?}");
        }
    }
}

fn check_target(target: &Path, force: bool) -> Result<(), CheckpointError> {
    if target.symlink_metadata().is_err() {
        return Ok(());
    }
    let path = target.to_owned();
    match (force, replaceable(target)) {
        (false, _) => Err(CheckpointError::Exists { path }),
        (true, false) => Err(CheckpointError::NotReplaceable { path }),
        (true, true) => Ok(()),
    }
}

impl OutputDir {
    /// Starts an output. A target that exists is refused without `force`, and with it unless it
    /// is empty or holds a model; nothing is ever merged. Missing parents are made.
    pub fn create(target: &Path, force: bool) -> Result<Self, CheckpointError> {
        let (parent, name) = split(target)?;
        check_target(target, force)?;
        let made = make_parents(parent)?;
        remove_left_over(parent, name);
        let temp = tempfile::Builder::new()
            .prefix(&format!(".{}.tmp-", name.to_string_lossy()))
            .rand_bytes(RANDOM)
            .tempdir_in(parent)
            .map_err(|source| {
                remove_made(&made);
                CheckpointError::Write { path: parent.to_owned(), source }
            })?
            .keep();
        unfinished().push(temp.clone());
        let lock = lock(&temp);
        let target = target.to_owned();
        let output = Self { target, temp, force, made, committed: false, _lock: lock };
        output.open_to_others()?;
        Ok(output)
    }

    /// A temporary folder is its owner's alone; the output gets a folder's usual rights.
    #[cfg(unix)]
    fn open_to_others(&self) -> Result<(), CheckpointError> {
        use std::os::unix::fs::PermissionsExt;
        let probe = self.temp.join("probe");
        let failed = || write_error(&self.temp);
        fs::create_dir(&probe).map_err(failed())?;
        let mode = fs::metadata(&probe).map_err(failed())?.permissions().mode();
        fs::remove_dir(&probe).map_err(failed())?;
        fs::set_permissions(&self.temp, fs::Permissions::from_mode(mode)).map_err(failed())
    }

    #[cfg(not(unix))]
    fn open_to_others(&self) -> Result<(), CheckpointError> {
        Ok(())
    }

    /// Refuses a target as [`Self::create`] would; for the start of long work.
    pub fn check(target: &Path, force: bool) -> Result<(), CheckpointError> {
        split(target)?;
        check_target(target, force)
    }

    /// Where the files go for now.
    pub fn path(&self) -> &Path {
        &self.temp
    }

    /// Where the folder will stand.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The final path of a file, for messages.
    pub fn shown(&self, file: &str) -> PathBuf {
        self.target.join(file)
    }

    /// Creates a file; its parent is this folder.
    #[expect(clippy::disallowed_methods, reason = "outputs are made here")]
    pub fn file(&self, name: &str) -> Result<fs::File, CheckpointError> {
        let shown = self.shown(name);
        fs::File::create(self.temp.join(name)).map_err(write_error(&shown))
    }

    /// Creates a file whose bytes are hashed as they are written.
    pub fn hashed(&self, name: &str) -> Result<HashedFile, CheckpointError> {
        HashedFile::create(&self.temp.join(name), self.shown(name))
    }

    /// Writes a whole file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<FileRecord, CheckpointError> {
        let shown = self.shown(name);
        let mut file = self.file(name)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(write_error(&shown))?;
        Ok(FileRecord { bytes: bytes.len() as u64, sha256: sha256(bytes) })
    }

    /// Gives the folder its name. What stood there before is replaced by two renames, so that
    /// either the old or the new folder is on the disk at any time.
    pub fn commit(mut self) -> Result<(), CheckpointError> {
        let (target, temp) = (self.target.clone(), self.temp.clone());
        sync_dir(&temp).map_err(write_error(&target))?;
        check_target(&target, self.force)?;
        // Held over the renames: an interrupt comes before or after both.
        let mut list = unfinished();
        let old = (target.symlink_metadata().is_ok()).then(|| {
            let mut name = temp.clone().into_os_string();
            name.push(".old");
            PathBuf::from(name)
        });
        if let Some(old) = &old {
            fs::rename(&target, old).map_err(write_error(&target))?;
        }
        if let Err(source) = fs::rename(&temp, &target) {
            if let Some(old) = &old {
                fs::rename(old, &target).map_err(write_error(&target))?;
            }
            return Err(CheckpointError::Write { path: target, source });
        }
        list.retain(|path| *path != temp);
        drop(list);
        self.committed = true;
        if let Some(old) = old {
            let removed = if old.is_symlink() || old.is_file() {
                fs::remove_file(&old)
            } else {
                fs::remove_dir_all(&old)
            };
            removed.map_err(write_error(&old))?;
        }
        sync_dir(split(&target)?.0).map_err(write_error(&target))
    }
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        if !self.committed {
            unfinished().retain(|path| *path != self.temp);
            if let Err(error) = fs::remove_dir_all(&self.temp) {
                tracing::debug!("unfinished output: {error}");
            }
            remove_made(&self.made);
        }
    }
}

/// Makes renames in a folder lasting.
#[expect(clippy::disallowed_methods, reason = "a folder is opened to be synced")]
fn sync_dir(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) { fs::File::open(path)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make folders")]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let mut all: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    }

    #[test]
    fn an_output_appears_whole_or_not_at_all() {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("new/deeper/out");
        let output = OutputDir::create(&target, false).unwrap();
        output.write("config.json", b"{}").unwrap();
        assert!(!target.exists());
        drop(output);
        assert!(names(top.path()).is_empty(), "made parents are removed again");

        let output = OutputDir::create(&target, false).unwrap();
        output.write("config.json", b"{}").unwrap();
        output.commit().unwrap();
        assert_eq!(names(&target), ["config.json"]);
        assert_eq!(names(target.parent().unwrap()), ["out"]);
    }

    #[test]
    fn what_exists_is_replaced_only_on_request_and_never_merged() {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("letter.txt"), "dear").unwrap();
        let refused = OutputDir::create(&target, false).unwrap_err();
        assert!(matches!(refused, CheckpointError::Exists { .. }));
        let refused = OutputDir::create(&target, true).unwrap_err();
        assert!(matches!(refused, CheckpointError::NotReplaceable { .. }), "not a model");
        fs::write(target.join("config.json"), "{}").unwrap();

        let output = OutputDir::create(&target, true).unwrap();
        output.write("model.safetensors", b"x").unwrap();
        assert_eq!(names(&target), ["config.json", "letter.txt"], "untouched until the end");
        output.commit().unwrap();
        assert_eq!(names(&target), ["model.safetensors"]);
        assert_eq!(names(top.path()), ["out"]);
    }

    #[test]
    #[cfg(unix)]
    fn what_killed_runs_left_goes_but_not_what_is_in_use() {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        let living = OutputDir::create(&target, false).unwrap();
        living.write("config.json", b"{}").unwrap();
        for name in [".out.tmp-abc123", ".out.tmp-abc123.old", ".out.tmp-x", ".other.tmp-abc123"] {
            fs::create_dir(top.path().join(name)).unwrap();
            fs::write(top.path().join(name).join("model.safetensors"), "x").unwrap();
        }
        drop(OutputDir::create(&target, false).unwrap());
        let kept = [".other.tmp-abc123", ".out.tmp-abc123.old", ".out.tmp-x"];
        let mut left = names(top.path());
        left.retain(|name| top.path().join(name) != living.temp);
        assert_eq!(left, kept);
        living.commit().unwrap();
        assert_eq!(names(&target), ["config.json"]);
    }
}
