//! Data files of tasks on the disk.
use crate::{
    cli::input::MAX,
    eval::task::{Data, TaskError},
    tensor::read_file,
};
use std::path::PathBuf;

/// A folder of data files on the disk.
pub(super) struct Folder(pub(super) PathBuf);

impl Data for Folder {
    fn read(&self, file: &str) -> Result<Option<Vec<u8>>, TaskError> {
        match read_file(&self.0.join(file), MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(TaskError::Read { file: self.shown(file), detail: error.source.to_string() })
            }
        }
    }

    fn shown(&self, file: &str) -> String {
        self.0.join(file).display().to_string()
    }
}
