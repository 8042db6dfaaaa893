//! Work that was interrupted goes on to the bytes that it would have given at once.
use super::{Job, golden, names, same, with};
use crate::{cli::program, util::Fuse};
use milm_compress::prune::{Pairs, Settings};
use predicates::prelude::*;
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

fn in_two_shots() -> Settings {
    with(|it| (it.keep, it.shots) = (Some(0.7), 2))
}

/// Stops everywhere: while scoring, between the parts, while cutting, measuring and writing, in
/// each of two shots; of every seventeen neighbouring places one.
#[test]
fn a_run_that_is_stopped_anywhere_goes_on() {
    let opened = golden("llama");
    let top = tempfile::tempdir().unwrap();
    let whole = top.path().join("whole");
    let count = Fuse::new(usize::MAX);
    let mut job = Job::new(&opened, in_two_shots());
    job.progress = &count;
    job.write(&whole).unwrap();
    let reports = count.reports.load(Ordering::Relaxed);
    assert!(reports > 200, "{reports}");
    let mut resumed = 0;
    for at in (0..reports).step_by(17).chain([reports - 1]) {
        let parts = top.path().join(format!("parts-{at}"));
        let fuse = Fuse::new(at);
        let stopped = Job { progress: &fuse, ..Job::new(&opened, in_two_shots()) };
        let stopped = catch_unwind(AssertUnwindSafe(|| stopped.write(&parts)));
        assert!(stopped.is_err() && !parts.exists(), "{at} of {reports}");
        // Where nothing was finished yet there is nothing to lose.
        match Job::new(&opened, in_two_shots()).write(&parts) {
            Ok(_) => {
                same(&whole, &parts, &format!("anew after {at} of {reports}"));
                fs::remove_dir_all(&parts).unwrap();
                continue;
            }
            Err(error) => {
                let fresh = error.to_string();
                assert!(fresh.contains("--resume") && fresh.contains("--force"), "{fresh}");
            }
        }
        let rest = Fuse::new(usize::MAX);
        let job = Job { resume: true, progress: &rest, ..Job::new(&opened, in_two_shots()) };
        job.write(&parts).unwrap();
        same(&whole, &parts, &format!("stopped at {at} of {reports}"));
        resumed += usize::from(rest.reports.load(Ordering::Relaxed) < reports);
        fs::remove_dir_all(&parts).unwrap();
    }
    assert!(resumed > 10, "only {resumed} runs went on, the others began anew");
    assert_eq!(names(top.path()), ["whole"], "nothing is left over");
}

/// Stops when the checkpoint has its name, and the work still lies there.
#[test]
fn a_run_that_was_stopped_behind_its_last_step_is_finished() {
    let opened = golden("llama");
    let top = tempfile::tempdir().unwrap();
    let [whole, target] = ["whole", "out"].map(|name| top.path().join(name));
    let count = Fuse::new(usize::MAX);
    let first = Job { progress: &count, ..Job::new(&opened, in_two_shots()) };
    let told = first.write(&whole).unwrap();
    let fuse = Fuse::new(count.reports.load(Ordering::Relaxed) - 1);
    let stopped = Job { progress: &fuse, ..Job::new(&opened, in_two_shots()) };
    assert!(catch_unwind(AssertUnwindSafe(|| stopped.write(&target))).is_err());
    fs::create_dir(&target).unwrap();
    for (name, bytes) in super::files(&whole) {
        fs::write(target.join(name), bytes).unwrap();
    }
    let other = Settings { damping: 0.5, ..in_two_shots() };
    let refused = Job::new(&opened, other).write(&target).unwrap_err().to_string();
    assert!(refused.contains("--force"), "{refused}");
    let again = Job::new(&opened, in_two_shots()).write(&target).unwrap();
    let json = |pruned| serde_json::to_value(pruned).unwrap();
    assert_eq!(json(&told), json(&again));
    assert_eq!(names(top.path()), ["out", "whole"], "the work is removed");
}

/// The twin: the comparison sees another setting, and the work is not mixed with it.
#[test]
fn other_settings_do_not_go_on() {
    let opened = golden("llama");
    let top = tempfile::tempdir().unwrap();
    let (target, other) = (top.path().join("out"), top.path().join("other"));
    let fuse = Fuse::new(60);
    let stopped = Job { progress: &fuse, ..Job::new(&opened, in_two_shots()) };
    assert!(catch_unwind(AssertUnwindSafe(|| stopped.write(&target))).is_err());
    let damped = Settings { damping: 0.5, ..in_two_shots() };
    let error = Job { resume: true, ..Job::new(&opened, damped.clone()) }.write(&target);
    let error = error.unwrap_err().to_string();
    for part in ["settings.damping", "0.01", "0.5", "hint: "] {
        assert!(error.contains(part), "{part}: {error}");
    }
    Job { resume: true, ..Job::new(&opened, in_two_shots()) }.write(&target).unwrap();
    Job::new(&opened, damped).write(&other).unwrap();
    let [a, b] = [&target, &other].map(|it| super::files(it));
    assert!(a["model.safetensors"] != b["model.safetensors"]);
}

/// Sums over tokens do not depend on the number of threads.
#[test]
fn threads_change_no_byte() {
    let top = tempfile::tempdir().unwrap();
    for (name, pairs) in [("llama", Pairs::PerHead), ("qwen2-moe", Pairs::Shared)] {
        let opened = golden(name);
        let settings = with(|it| (it.keep, it.pairs) = (Some(0.6), pairs));
        let [one, two] = [1, 2].map(|threads| {
            let target = top.path().join(format!("{name}-{threads}"));
            Job { threads, ..Job::new(&opened, settings.clone()) }.write(&target).unwrap();
            target
        });
        same(&one, &two, name);
    }
}

const FLAGS: [&str; 8] = [
    "prune",
    "builtin:milm-mini",
    "--keep=0.8",
    "--balance=1",
    "--calibration-samples=12",
    "--calibration-tokens=128",
    "--measure-windows=1",
    "-o",
];

/// Starts the program and kills it once the record of its work says `until`. The record is
/// written again after each block, long before the next one is finished.
fn killed(target: &Path, until: &str) -> bool {
    let state = target.with_extension("partial").join("state.json");
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("milm-compress"))
        .args(FLAGS)
        .arg(target)
        .args(["--threads", "2", "--quiet"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    loop {
        let reached = fs::read_to_string(&state).is_ok_and(|state| state.contains(until));
        if reached || child.try_wait().unwrap().is_some() {
            child.kill().unwrap();
            return child.wait().unwrap().code().is_none();
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_killed_program_resumes_to_the_same_bytes() {
    let top = tempfile::tempdir().unwrap();
    let run = |target: &Path, more: &[&str]| {
        let mut command = program();
        command.args(FLAGS).arg(target).args(more);
        command.assert()
    };
    let whole = top.path().join("whole");
    run(&whole, &["--threads", "1"]).success();
    for (name, until) in [("score", "\"phase\":\"observe\""), ("cut", "\"phase\":\"rewrite\"")] {
        let target = top.path().join(name);
        assert!(killed(&target, until), "finished before it was killed");
        assert!(!target.exists() && target.with_extension("partial").exists());
        let way_out = predicate::str::contains("--resume").and(predicate::str::contains("--force"));
        run(&target, &[]).code(2).stderr(way_out);
        let seed = predicate::str::contains("seed").and(predicate::str::contains("hint: "));
        run(&target, &["--resume", "--seed", "1"]).code(2).stderr(seed);
        let damping =
            predicate::str::is_match("`settings.damping`: [0-9.]+ then, 0.2 now").unwrap();
        run(&target, &["--resume", "--damping", "0.2"]).code(2).stderr(damping);
        run(&target, &["--resume", "--threads", "2"]).success();
        same(&whole, &target, name);
    }
    assert_eq!(names(top.path()), ["cut", "score", "whole"]);
}
