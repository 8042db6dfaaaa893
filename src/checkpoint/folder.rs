//! A folder of files: on the disk, or carried by the binary.
use super::{BUILTIN_PREFIX, BUILTINS, Builtin, CheckpointError, hint, temporary};
use crate::tensor::Bytes;
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// A checkpoint's files.
#[derive(Clone, Debug)]
pub struct Folder {
    name: String,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// The canonical path.
    Disk(PathBuf),
    Carried(&'static Builtin),
    /// Files that were made of another file.
    Memory(Arc<BTreeMap<String, Bytes>>),
}

/// Endings of files that hold weights or caches, which a copy of a checkpoint leaves behind.
const NOT_CARRIED: &[&str] = &[
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
    ".gguf",
    ".onnx",
    ".onnx.data",
    ".encodings",
    ".encodings.uncovered.json",
    ".h5",
    ".msgpack",
    ".npz",
];
/// Files that an output writes anew.
const REWRITTEN: &[&str] = &["config.json", "milm.json", "milm.json.minisig"];
/// What says which model the folder holds.
const CONFIG_FILE: &str = "config.json";
/// The largest file that is carried over.
const MAX_CARRIED: u64 = 256 << 20;
/// The largest text or JSON file that is read: what is parsed of it takes many times its size.
const MAX_TEXT: u64 = 16 << 20;
/// Files with an entry per tensor may be larger.
const MAX_LIST: u64 = 128 << 20;
const LISTS: &[&str] = &["model.safetensors.index.json", "milm.json"];

impl Folder {
    /// A folder by its path, or `builtin:NAME`.
    pub fn open(name: &str) -> Result<Self, CheckpointError> {
        if let Some(carried) = name.strip_prefix(BUILTIN_PREFIX) {
            let builtin = BUILTINS.iter().find(|builtin| builtin.name == carried);
            let unknown = || CheckpointError::UnknownBuiltin { name: name.to_owned() };
            let source = Source::Carried(builtin.ok_or_else(unknown)?);
            return Ok(Self { name: name.to_owned(), source });
        }
        let path = Path::new(name);
        if !path.is_dir() {
            // It may have lost its name to a run that was killed.
            temporary::tidy(path);
        }
        if !path.is_dir() {
            let hint = hint::not_a_folder(path);
            return Err(CheckpointError::NotAFolder { name: name.to_owned(), hint });
        }
        let root = path.canonicalize().map_err(|source| read_error(path, source))?;
        Ok(Self { name: name.to_owned(), source: Source::Disk(root) })
    }

    /// A folder whose files are in memory; `name` is told in messages.
    pub fn in_memory(name: &str, files: BTreeMap<String, Bytes>) -> Self {
        Self { name: name.to_owned(), source: Source::Memory(Arc::new(files)) }
    }

    /// The name that it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The canonical path; `None` for one that is not on the disk.
    pub fn path(&self) -> Option<&Path> {
        match &self.source {
            Source::Disk(root) => Some(root),
            Source::Carried(_) | Source::Memory(_) => None,
        }
    }

    /// Whether it is a model that the program carries.
    pub fn is_carried(&self) -> bool {
        matches!(self.source, Source::Carried(_))
    }

    /// Name of a file of this folder in messages.
    pub fn file_name(&self, file: &str) -> String {
        match &self.source {
            Source::Disk(_) => Path::new(&self.name).join(file).display().to_string(),
            Source::Carried(_) => format!("{}/{file}", self.name),
            Source::Memory(_) => format!("{} ({file})", self.name),
        }
    }

    /// Names of all entries, sorted; subfolders end in `/` and are not descended into. Names that
    /// are not UTF-8 are shown with replacement characters.
    pub fn list(&self) -> Result<Vec<String>, CheckpointError> {
        self.list_in("")
    }

    /// [`Folder::list`] of a subfolder of a folder on the disk; `""` is the folder itself.
    pub fn list_in(&self, subfolder: &str) -> Result<Vec<String>, CheckpointError> {
        let root = match &self.source {
            Source::Carried(builtin) => {
                return Ok(builtin.files.iter().map(|(name, _)| (*name).to_owned()).collect());
            }
            Source::Memory(files) => return Ok(files.keys().cloned().collect()),
            Source::Disk(root) => root,
        };
        let failed = |source| read_error(Path::new(&self.name), source);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(root.join(subfolder)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let mut name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                name.push('/');
            }
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    /// The error that a file is missing, with what to do about what is there instead.
    pub(super) fn no_file(&self, file: &str) -> Result<CheckpointError, CheckpointError> {
        let hint = hint::missing(file, &self.list()?);
        Ok(CheckpointError::NoFile { folder: self.name().to_owned(), file: file.to_owned(), hint })
    }

    /// Refuses a file that Git LFS has not fetched.
    pub fn refuse_pointer(&self, file: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        if hint::is_pointer(bytes) {
            return Err(CheckpointError::LfsPointer { file: self.file_name(file) });
        }
        Ok(())
    }

    /// The bytes of a file, mapped; `None` when it does not exist. `file` is relative and stays
    /// inside the folder.
    pub fn read(&self, file: &str) -> Result<Option<Bytes>, CheckpointError> {
        self.read_named_by(file, "the program")
    }

    /// [`Folder::read`] of a file that another file names: `by` is told in errors.
    pub fn read_named_by(&self, file: &str, by: &str) -> Result<Option<Bytes>, CheckpointError> {
        let outside = || CheckpointError::Outside { file: file.to_owned(), by: by.to_owned() };
        let plain = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
        if file.is_empty() || !plain || file.contains(['\\', '\0']) {
            return Err(outside());
        }
        let root = match &self.source {
            Source::Carried(builtin) => {
                let found = builtin.files.iter().find(|(name, _)| *name == file);
                return Ok(found.map(|(_, bytes)| Bytes::fixed(bytes)));
            }
            Source::Memory(files) => return Ok(files.get(file).cloned()),
            Source::Disk(root) => root,
        };
        let path = root.join(file);
        let target = match path.canonicalize() {
            Ok(target) => target,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(read_error(&path, source)),
        };
        if !target.starts_with(root) && !hub_blobs(root).is_some_and(|it| target.starts_with(it)) {
            let file = self.file_name(file);
            return Err(CheckpointError::Link { file, target });
        }
        Ok(Some(Bytes::map(&target)?))
    }

    /// A text file; `None` when it does not exist.
    pub fn text(&self, file: &str) -> Result<Option<String>, CheckpointError> {
        let limit = if LISTS.contains(&file) { MAX_LIST } else { MAX_TEXT };
        let Some(bytes) = self.read(file)? else { return Ok(None) };
        let bytes = bytes.within(limit, Path::new(&self.file_name(file)))?;
        self.refuse_pointer(file, &bytes)?;
        String::from_utf8(bytes.to_vec()).map(Some).map_err(|error| CheckpointError::NotUtf8 {
            file: self.file_name(file),
            at: error.utf8_error().valid_up_to(),
        })
    }

    /// A JSON file; `None` when it does not exist.
    pub fn json(&self, file: &str) -> Result<Option<serde_json::Value>, CheckpointError> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        let failed = |source| CheckpointError::Json { file: self.file_name(file), source };
        serde_json::from_str(&text).map(Some).map_err(failed)
    }

    /// The parsed `config.json`.
    pub fn config(&self) -> Result<serde_json::Value, CheckpointError> {
        match self.json(CONFIG_FILE)? {
            Some(config) => Ok(config),
            None => Err(self.no_file(CONFIG_FILE)?),
        }
    }

    /// Files that belong to the model beside its weights (tokenizer, templates, licence), to be
    /// copied into what is made of it. Hidden files, weights and files over 256 MiB are not.
    pub fn side_files(&self) -> Result<Vec<String>, CheckpointError> {
        let mut names = self.list()?;
        names.retain(|name| {
            let weights = NOT_CARRIED.iter().any(|ending| name.ends_with(ending));
            let other = name.ends_with('/') || name.starts_with('.') || name.contains('\u{fffd}');
            !weights && !other && !REWRITTEN.contains(&&**name)
        });
        let mut kept = Vec::new();
        for name in names {
            let large = |bytes: &Bytes| bytes.len() as u64 > MAX_CARRIED;
            match self.read(&name) {
                Ok(Some(bytes)) if !large(&bytes) => kept.push(name),
                Ok(Some(_)) => self.left_behind(&name, "it is larger than 256 MiB"),
                Ok(None) => self.left_behind(&name, "it is a link to nothing"),
                Err(CheckpointError::Link { target, .. }) => {
                    let reason = format!("it is a link to `{}`", target.display());
                    self.left_behind(&name, &reason);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }
}

impl Folder {
    fn left_behind(&self, file: &str, reason: &str) {
        tracing::warn!("`{}` is not carried over: {reason}", self.file_name(file));
    }
}

fn read_error(path: &Path, source: std::io::Error) -> CheckpointError {
    CheckpointError::Read { path: path.to_owned(), source }
}

/// Where the files of a `snapshots/<revision>` folder of the Hugging Face cache really lie.
fn hub_blobs(root: &Path) -> Option<PathBuf> {
    let snapshots = root.parent().filter(|parent| parent.ends_with("snapshots"))?;
    Some(snapshots.parent()?.join("blobs"))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make folders")]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_the_folder() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("model");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(top.path().join("secret"), "x").unwrap();
        std::fs::write(root.join("a.json"), "{}").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        std::os::unix::fs::symlink("a.json", root.join("inner")).unwrap();
        let folder = Folder::open(root.to_str().unwrap()).unwrap();
        for bad in ["../secret", "/etc/passwd", "link", "", "./a.json", "x/../a.json"] {
            let error = folder.read_named_by(bad, "index").unwrap_err().to_string();
            assert!(error.contains("outside the folder"), "{bad}: {error}");
        }
        let link = folder.read("link").unwrap_err().to_string();
        assert!(link.contains("secret`") && link.contains("cp -rL"), "{link}");
        assert!(!folder.side_files().unwrap().contains(&"link".to_owned()), "and is not copied");
        assert_eq!(folder.read("inner").unwrap().unwrap().len(), 2, "a link inside is followed");
        assert!(folder.read("absent").unwrap().is_none());
        assert_eq!(folder.list().unwrap(), ["a.json", "inner", "link"]);
    }

    #[test]
    fn links_of_the_hub_cache_are_followed() {
        let top = tempfile::tempdir().unwrap();
        let (root, blobs) = (top.path().join("snapshots/1"), top.path().join("blobs"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir(&blobs).unwrap();
        std::fs::write(blobs.join("77"), "{}").unwrap();
        std::os::unix::fs::symlink("../../blobs/77", root.join("config.json")).unwrap();
        let folder = Folder::open(root.to_str().unwrap()).unwrap();
        assert!(folder.config().unwrap().is_object());
    }

    #[test]
    fn text_that_is_not_utf8_is_an_error_with_its_place() {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("config.json"), b"{\"a\": \"\xff\"}").unwrap();
        let folder = Folder::open(top.path().to_str().unwrap()).unwrap();
        let error = folder.config().unwrap_err().to_string();
        assert!(error.contains("not UTF-8: the byte at 7"), "{error}");
    }
}
