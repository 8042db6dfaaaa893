//! Data files of tasks on the disk.
use super::{Data, TaskError};
use crate::tensor::{MAX_WHOLE, read_file};
use std::path::PathBuf;

/// A folder of data files on the disk.
#[derive(Clone, Debug)]
pub struct DataFolder(pub PathBuf);

impl Data for DataFolder {
    fn read(&self, file: &str) -> Result<Option<Vec<u8>>, TaskError> {
        match read_file(&self.0.join(file), MAX_WHOLE) {
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
