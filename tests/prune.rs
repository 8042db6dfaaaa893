//! Pruning as a whole: what is written, what is said of it, what is refused.
pub(crate) mod cut;
mod refuse;
mod resume;

use crate::util;
use milm_compress::{
    calibrate::{CalibrationSet, DataFingerprint},
    eval::Window,
    linalg::Team,
    package::{self, Opened},
    pipeline::{Measured, PipelineError, Prune, Pruned},
    progress::{Progress, Silent},
    prune::Settings,
};
use serde_json::json;
use std::{collections::BTreeMap, fs, path::Path};

/// A run over a golden model.
struct Job<'a> {
    opened: &'a Opened,
    settings: Settings,
    threads: usize,
    progress: &'a dyn Progress,
    resume: bool,
}

impl<'a> Job<'a> {
    fn new(opened: &'a Opened, settings: Settings) -> Self {
        Self { opened, settings, threads: 2, progress: &Silent, resume: false }
    }

    fn write(&self, target: &Path) -> Result<Pruned, PipelineError> {
        let windows: Vec<Vec<u32>> = (0..12).map(|window| ids(window, 48)).collect();
        let fingerprint = DataFingerprint {
            sources: Vec::new(),
            ids_sha256: String::new(),
            samples: windows.len(),
            tokens: 48,
            seed: 0,
            self_generated: false,
        };
        let held_out = Vec::new();
        let calibration = CalibrationSet { windows, held_out, fingerprint, ..Default::default() };
        let text = |name: &str, from: u32| Measured {
            name: name.into(),
            windows: (from..from + 2).map(|w| Window { scored: 1..40, ids: ids(w, 40) }).collect(),
        };
        let prune = Prune {
            opened: self.opened,
            settings: &self.settings,
            calibration: &calibration,
            allow_rank_deficient: false,
            measured: &[text("one", 100), text("two", 200)],
            source_sha256: "0",
            statistics: None,
            key: &json!({ "settings": &self.settings }),
            recipe: &json!({ "step": [] }),
            seed: 0,
            team: &Team::new(self.threads),
            progress: self.progress,
        };
        prune.write(target, self.resume, false)
    }
}

/// Tokens below 128 without a short period.
pub(crate) fn ids(window: u32, count: u32) -> Vec<u32> {
    (0..count).map(|i| 3 + (i * i * 7 + i * 37 + window * 53 + i * window) % 120).collect()
}

pub(crate) fn golden(name: &str) -> Opened {
    package::open(util::golden().join(name).to_str().unwrap()).unwrap()
}

pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Settings {
    // Both halves are cut, and not by what the defaults happen to be.
    let mut settings =
        Settings { multiple: Some(8), balance: 1.0, damping: 0.01, ..Settings::default() };
    change(&mut settings);
    settings
}

/// Every file of a folder.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().into(), fs::read(path).unwrap()))
        .collect()
}

pub(crate) fn same(a: &Path, b: &Path, what: &str) {
    let (a, b) = (files(a), files(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in &a {
        assert!(*bytes == b[name], "{what}: `{name}` differs");
    }
}

/// What lies in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}
