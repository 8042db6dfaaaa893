//! Data files of tasks on the disk.
use crate::eval::task::{Data, TaskError};
use std::path::PathBuf;

/// A folder of data files on the disk.
pub(super) struct Folder(pub(super) PathBuf);

impl Data for Folder {
    #[expect(clippy::disallowed_methods, reason = "data files are arguments of the command line")]
    fn read(&self, file: &str) -> Result<Option<Vec<u8>>, TaskError> {
        match std::fs::read(self.0.join(file)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(TaskError::Read { file: self.shown(file), detail: error.to_string() })
            }
        }
    }

    fn shown(&self, file: &str) -> String {
        self.0.join(file).display().to_string()
    }
}
