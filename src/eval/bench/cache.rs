//! Results of earlier runs: a file of JSON lines per task, model and settings.
use super::BenchError;
use crate::{
    checkpoint::LineFile,
    eval::task::{Recall, Record, RecordKey, Task, TaskError, fingerprint},
};
use std::{collections::HashMap, path::Path};

/// Records in a file; without one, nothing is remembered.
pub(super) struct Kept {
    records: HashMap<String, Record>,
    file: Option<LineFile>,
    found: std::cell::Cell<usize>,
}

impl Kept {
    /// Opens the file of a task and a model in a folder, which is made when it is not there.
    pub(super) fn open(
        folder: Option<&Path>,
        (task, key): (&dyn Task, &RecordKey),
    ) -> Result<Self, BenchError> {
        let mut kept = Self { records: HashMap::new(), file: None, found: 0.into() };
        let Some(folder) = folder else { return Ok(kept) };
        std::fs::create_dir_all(folder)
            .map_err(|source| BenchError::CacheFolder { path: folder.to_owned(), source })?;
        let path = folder.join(format!("{}-{}.jsonl", task.name(), &fingerprint(key)[..16]));
        let cannot = |source| BenchError::Cache { path: path.clone(), source };
        let (file, text) = LineFile::open(&path).map_err(cannot)?;
        for line in text.lines() {
            // The last line of a run that was stopped while it wrote is not whole.
            match serde_json::from_str::<Record>(line) {
                Ok(record) => drop(kept.records.insert(record.key.clone(), record)),
                Err(error) => tracing::warn!("`{}`: a line left out: {error}", path.display()),
            }
        }
        kept.file = Some(file);
        Ok(kept)
    }

    /// How many records were used again.
    pub(super) fn found(&self) -> usize {
        self.found.get()
    }
}

impl Recall for Kept {
    fn find(&self, key: &str) -> Option<Record> {
        let record = self.records.get(key).cloned();
        self.found.set(self.found.get() + usize::from(record.is_some()));
        record
    }

    fn keep(&mut self, record: &Record) -> Result<(), TaskError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let failed = |detail: String| TaskError::Keep { item: record.id.clone(), detail };
        let line = serde_json::to_string(record).map_err(|error| failed(error.to_string()))?;
        file.append(&line).map_err(|error| failed(error.to_string()))
    }
}
