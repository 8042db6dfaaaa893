//! What stands where a model is looked for.
use crate::checkpoint::Folder;
use std::path::Path;

/// What stands at a path, by names alone.
#[derive(Debug)]
pub struct Place<'a> {
    path: &'a Path,
    /// The folder and the names in it, where it is one.
    folder: Option<(Folder, Vec<String>)>,
}

impl<'a> Place<'a> {
    /// The place of a path or of `builtin:NAME`. What cannot be listed has no names here: opening it
    /// tells why.
    pub fn of(name: &'a str) -> Self {
        let path = Path::new(name);
        let folder = if path.is_file() { None } else { Folder::open(name).ok() };
        let listed = |folder: Folder| {
            let names = folder.list().ok()?;
            Some((folder, names))
        };
        Self { path, folder: folder.and_then(listed) }
    }

    /// The path, where a file stands.
    pub fn file(&self) -> Option<&'a Path> {
        self.path.is_file().then_some(self.path)
    }

    /// The folder, where one stands.
    pub fn folder(&self) -> Option<&Folder> {
        self.folder.as_ref().map(|(folder, _)| folder)
    }

    /// Whether a folder stands here with one of these files in it.
    pub fn has_any(&self, files: &[&str]) -> bool {
        let names = self.folder.iter().flat_map(|(_, names)| names);
        names.into_iter().any(|name| files.contains(&name.as_str()))
    }
}
