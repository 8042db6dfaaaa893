//! Outputs that are being written: an interrupted program removes them.
use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Temporary folders and files of outputs that are being written.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

pub(super) fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every output that is not complete: for the handler of Ctrl-C, which ends the program
/// afterwards. Waits for a rename that is under way.
pub fn remove_unfinished() {
    let mut list = unfinished();
    for path in list.drain(..) {
        // A thread that still writes may add a file between listing and removal.
        for _ in 0..20 {
            if fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).is_ok()
                || !path.exists()
            {
                break;
            }
        }
    }
}
