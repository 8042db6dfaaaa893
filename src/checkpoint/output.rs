//! Outputs that appear whole or not at all.
use super::{
    CheckpointError,
    hashed::{FileRecord, HashedFile},
    mark,
    place::{old_name, split, write_error},
    temporary::{self, tidy},
    unfinished::unfinished,
};
use crate::tensor::sha256;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

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

/// Removes an output of this program, and only that: as one that is replaced.
pub fn remove_output(folder: &Path) -> Result<(), CheckpointError> {
    mark::check_replaceable(folder)?;
    temporary::remove_at_once(folder, mark::discard)
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

fn check_target(target: &Path, force: bool) -> Result<(), CheckpointError> {
    if target.symlink_metadata().is_err() {
        return Ok(());
    }
    if !force {
        return Err(CheckpointError::Exists { path: target.to_owned() });
    }
    mark::check_replaceable(target)
}

/// Gives `temp` the name `target`, and tells under which name the old output stands now, if there
/// was one. Either of them has the name at any time where the system can exchange two; elsewhere
/// [`tidy`] brings the old one back.
fn swap(temp: &Path, target: &Path) -> std::io::Result<Option<PathBuf>> {
    if target.symlink_metadata().is_err() {
        return fs::rename(temp, target).map(|()| None);
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        if renameat_with(CWD, temp, CWD, target, RenameFlags::EXCHANGE).is_ok() {
            return Ok(Some(temp.to_owned()));
        }
    }
    let old = old_name(temp);
    fs::rename(target, &old)?;
    if let Err(error) = fs::rename(temp, target) {
        fs::rename(&old, target)?;
        return Err(error);
    }
    Ok(Some(old))
}

impl OutputDir {
    /// Starts an output. A target that exists is refused without `force`, and with it unless it
    /// is empty or an output of this program and nothing else; nothing is ever merged. Missing
    /// parents are made.
    pub fn create(target: &Path, force: bool) -> Result<Self, CheckpointError> {
        tidy(target);
        check_target(target, force)?;
        Self::begin(target, force)
    }

    /// A folder for what is needed during the work on `target` only.
    pub fn scratch(target: &Path) -> Result<Self, CheckpointError> {
        Self::begin(target, false)
    }

    fn begin(target: &Path, force: bool) -> Result<Self, CheckpointError> {
        let (parent, name) = split(target)?;
        let made = make_parents(parent)?;
        let (temp, lock) =
            temporary::make((parent, name), 0o777, temporary::folder).map_err(|source| {
                remove_made(&made);
                CheckpointError::Write { path: parent.to_owned(), source }
            })?;
        unfinished().push(temp.clone());
        let target = target.to_owned();
        Ok(Self { target, temp, force, made, committed: false, _lock: lock })
    }

    /// Refuses a target as [`Self::create`] would; for the start of long work.
    pub fn check(target: &Path, force: bool) -> Result<(), CheckpointError> {
        split(target)?;
        tidy(target);
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

    /// Gives the folder its name, marked as an output of this program. What stood there before is
    /// replaced at once, and then removed.
    pub fn commit(mut self) -> Result<(), CheckpointError> {
        let (target, temp) = (self.target.clone(), self.temp.clone());
        if let Some(mark) = mark::mark(&temp)? {
            self.write(mark::MARK_FILE, mark.as_bytes())?;
        }
        sync_dir(&temp).map_err(write_error(&target))?;
        check_target(&target, self.force)?;
        // Held over the renames: an interrupt comes before or after both.
        let mut list = unfinished();
        let old = swap(&temp, &target).map_err(write_error(&target))?;
        list.retain(|path| *path != temp);
        drop(list);
        self.committed = true;
        if let Some(old) = old {
            mark::discard(&old).map_err(write_error(&old))?;
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

    /// An output with one file.
    fn write(target: &Path, force: bool, text: &str) {
        let output = OutputDir::create(target, force).unwrap();
        output.write("config.json", text.as_bytes()).unwrap();
        output.commit().unwrap();
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

        write(&target, false, "{}");
        assert_eq!(names(&target), [mark::MARK_FILE, "config.json"]);
        assert_eq!(names(target.parent().unwrap()), ["out"]);
    }

    #[test]
    fn only_outputs_of_this_program_are_replaced_and_never_merged() {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        // A folder of somebody else, however much it looks like a model.
        fs::create_dir(&target).unwrap();
        for name in ["config.json", "model.safetensors", "letter.txt"] {
            fs::write(target.join(name), "dear").unwrap();
        }
        let refused = OutputDir::create(&target, false).unwrap_err();
        assert!(matches!(refused, CheckpointError::Exists { .. }));
        let refused = OutputDir::create(&target, true).unwrap_err().to_string();
        assert!(refused.contains("`config.json`, `letter.txt`"), "{refused}");
        assert_eq!(names(&target).len(), 3, "untouched");
        fs::remove_dir_all(&target).unwrap();

        write(&target, false, "old");
        let output = OutputDir::create(&target, true).unwrap();
        output.write("model.safetensors", b"x").unwrap();
        assert_eq!(fs::read(target.join("config.json")).unwrap(), b"old", "there until the end");
        output.commit().unwrap();
        assert_eq!(names(&target), [mark::MARK_FILE, "model.safetensors"]);
        assert_eq!(names(top.path()), ["out"]);

        // One of ours with something in it that it does not list: a file, a folder, a link.
        for stranger in ["letter.txt", "notes"] {
            let path = target.join(stranger);
            if stranger == "notes" { fs::create_dir(&path) } else { fs::write(&path, "dear") }
                .unwrap();
            let refused = OutputDir::create(&target, true).unwrap_err().to_string();
            assert!(refused.contains(&format!("holds `{stranger}`")), "{refused}");
            assert!(path.exists() && remove_output(&target).is_err() && path.exists());
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
        remove_output(&target).unwrap();
        assert!(names(top.path()).is_empty());
    }

    #[test]
    #[cfg(unix)]
    fn a_link_is_neither_followed_nor_replaced() {
        let top = tempfile::tempdir().unwrap();
        let (real, link) = (top.path().join("real"), top.path().join("link"));
        write(&real, false, "real");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(OutputDir::create(&link, true).is_err());
        assert_eq!(fs::read(real.join("config.json")).unwrap(), b"real");
        // Nor is a file of ours that became a link.
        fs::rename(real.join("config.json"), top.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", real.join("config.json")).unwrap();
        assert!(OutputDir::create(&real, true).is_err());
        assert_eq!(fs::read(top.path().join("elsewhere")).unwrap(), b"real");
    }

    #[test]
    fn what_comes_into_the_old_output_meanwhile_is_kept() {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        write(&target, false, "old");
        let aside = top.path().join(".out.tmp-abc123");
        fs::rename(&target, &aside).unwrap();
        fs::write(aside.join("letter.txt"), "dear").unwrap();
        mark::discard(&aside).unwrap();
        assert_eq!(names(top.path()), ["out.kept-abc123"]);
        assert_eq!(fs::read(top.path().join("out.kept-abc123/letter.txt")).unwrap(), b"dear");
    }

    #[test]
    #[cfg(unix)]
    fn what_killed_runs_left_goes_but_not_what_is_in_use() {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        let living = OutputDir::create(&target, false).unwrap();
        living.write("config.json", b"{}").unwrap();
        let work = ".out.partial.tmp-abc123";
        for name in [".out.tmp-abc123", work, ".out.tmp-x", ".other.tmp-abc123"] {
            fs::create_dir(top.path().join(name)).unwrap();
            fs::write(top.path().join(name).join("model.safetensors"), "x").unwrap();
        }
        drop(OutputDir::create(&target, false).unwrap());
        let mut left = names(top.path());
        left.retain(|name| top.path().join(name) != living.temp);
        assert_eq!(left, [".other.tmp-abc123", ".out.tmp-x"]);
        living.commit().unwrap();
        assert_eq!(names(&target), [mark::MARK_FILE, "config.json"]);
    }

    /// Where names cannot be exchanged, a kill between two renames leaves the old output under
    /// another name: whoever asks for it next, to read or to write, finds it.
    #[test]
    fn an_output_that_lost_its_name_comes_back() {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        let (new, old) =
            (top.path().join(".out.tmp-abc123"), top.path().join(".out.tmp-abc123.old"));
        for force in [false, true] {
            write(&target, false, "old");
            fs::rename(&target, &old).unwrap();
            fs::create_dir(&new).unwrap();
            fs::write(new.join("config.json"), "new").unwrap();
            if force {
                write(&target, true, "newer");
            }
            let folder = crate::checkpoint::Folder::open(target.to_str().unwrap()).unwrap();
            let text = folder.text("config.json").unwrap().unwrap();
            assert_eq!(text, if force { "newer" } else { "old" });
            assert_eq!(names(top.path()), ["out"], "and nothing is left over");
            remove_output(&target).unwrap();
        }
    }
}
