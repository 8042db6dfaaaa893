//! Results of earlier runs: a file of JSON lines per task, model and settings.
use crate::{
    cli::input::MAX,
    eval::task::{Recall, Record, RecordKey, Task, TaskError, fingerprint},
    tensor::read_file,
};
use anyhow::Context as _;
use std::{collections::HashMap, fs::File, io::Write as _, path::Path};

/// Records in a file; without one, nothing is remembered.
pub(super) struct Kept {
    records: HashMap<String, Record>,
    file: Option<File>,
    found: std::cell::Cell<usize>,
}

impl Kept {
    /// Opens the file of a task and a model in a folder, which is made when it is not there.
    pub(super) fn open(
        folder: Option<&Path>,
        (task, key): (&dyn Task, &RecordKey),
    ) -> anyhow::Result<Self> {
        let mut kept = Self { records: HashMap::new(), file: None, found: 0.into() };
        let Some(folder) = folder else { return Ok(kept) };
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        let path = folder.join(format!("{}-{}.jsonl", task.name(), &fingerprint(key)[..16]));
        let cannot = || format!("cannot use `{}`", path.display());
        let text = match read_file(&path, MAX) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(cannot),
        };
        for line in text.lines() {
            // The last line of a run that was stopped while it wrote is not whole.
            match serde_json::from_str::<Record>(line) {
                Ok(record) => drop(kept.records.insert(record.key.clone(), record)),
                Err(error) => tracing::warn!("`{}`: a line left out: {error}", path.display()),
            }
        }
        let mut file =
            File::options().create(true).append(true).open(&path).with_context(cannot)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").with_context(cannot)?;
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
        // One write for the line: what is there after a kill is whole, or is the last line.
        file.write_all((line + "\n").as_bytes()).map_err(|error| failed(error.to_string()))
    }
}
