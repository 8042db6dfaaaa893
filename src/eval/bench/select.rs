//! Which tasks are asked for, and where their data lies.
use super::BenchError;
use crate::{
    eval::task::{Data, DataFolder, SAMPLE, TASKS, Task, find, suite_task},
    tensor::read_text,
};
use std::path::{Path, PathBuf};

/// Tasks by their names, and their data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// Names of [`TASKS`], paths of TOML files of capability suites, or `sample` alone: all tasks on
    /// data that the program carries.
    pub names: Vec<String>,
    /// Folder of data files.
    pub data: Option<PathBuf>,
    /// Folder of data files where none is named; `sample` may stand beside it.
    pub usual_data: Option<PathBuf>,
}

impl Selection {
    /// All tasks are meant, each on the data that the program carries for it.
    pub fn is_sample(&self) -> bool {
        self.names.iter().any(|name| name == "sample")
    }

    /// The tasks, in the order in which they are named. Suites are read.
    pub fn tasks(&self) -> Result<Vec<&'static dyn Task>, BenchError> {
        if self.is_sample() {
            if self.names.len() != 1 || self.data.is_some() {
                return Err(BenchError::Sample);
            }
            return Ok(TASKS.to_vec());
        }
        let named = |name: &String| {
            if !is_suite(name) {
                return Ok(find(name)?);
            }
            let text = read_text(Path::new(name), "name a suite, see docs/evaluation.md")?;
            Ok(suite_task(name, &text)?)
        };
        self.names.iter().map(named).collect()
    }

    /// Their data.
    pub fn data(&self) -> Result<Box<dyn Data>, BenchError> {
        // Suites named by their paths bring their own items.
        if self.is_sample() || self.names.iter().all(|name| is_suite(name)) {
            return Ok(Box::new(SAMPLE));
        }
        let path = self.data.as_ref().or(self.usual_data.as_ref()).ok_or(BenchError::NoData)?;
        if !path.is_dir() {
            return Err(BenchError::NoFolder { path: path.clone() });
        }
        Ok(Box::new(DataFolder(path.clone())))
    }
}

/// Whether a name is the path of a capability suite.
fn is_suite(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|it| it == "toml")
}
