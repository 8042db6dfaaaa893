//! What a pruned model learns from its parent, and that nothing is lost on the way.
use crate::{
    cli::program,
    prune::{golden, ids, names, same, with},
    util::Fuse,
};
use milm_compress::{
    calibrate::{CalibrationSet, DataFingerprint},
    eval::Window,
    linalg::Team,
    package::{self, Opened},
    pipeline::{Measured, PipelineError, Prune, Recover, Recovered},
    progress::{Progress, Silent},
    train::Settings,
};
use predicates::prelude::*;
use serde_json::{Value, json};
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::Ordering,
};

/// Windows to learn from, and those that decide behind them.
const LEARNT: u32 = 10;

/// Half of a golden model, as it was cut.
fn pruned(parent: &Opened, target: &Path) -> Opened {
    let settings = with(|it| {
        it.keep = Some(0.5);
        it.repair = milm_compress::prune::Repair::None;
    });
    let windows: Vec<Vec<u32>> = (0..12).map(|window| ids(window, 48)).collect();
    let calibration =
        CalibrationSet { windows, fingerprint: DataFingerprint::default(), ..Default::default() };
    Prune {
        opened: parent,
        settings: &settings,
        calibration: &calibration,
        allow_rank_deficient: false,
        measured: &[],
        source_sha256: "0",
        statistics: None,
        key: &json!({}),
        recipe: &json!({ "step": [] }),
        seed: 0,
        team: &Team::new(2),
        progress: &Silent,
    }
    .write(target, false, false)
    .unwrap();
    package::open(target.to_str().unwrap()).unwrap()
}

struct Job<'a> {
    models: (&'a Opened, &'a Opened),
    settings: Settings,
    threads: usize,
    progress: &'a dyn Progress,
    resume: bool,
}

impl<'a> Job<'a> {
    fn new(student: &'a Opened, parent: &'a Opened) -> Self {
        let settings = Settings {
            block_epochs: 6,
            epochs: 6,
            block_rate: 3e-3,
            learning_rate: 3e-3,
            step_windows: 4,
            ..Settings::default()
        };
        let models = (student, parent);
        Self { models, settings, threads: 2, progress: &Silent, resume: false }
    }

    fn write(&self, target: &Path) -> Result<Recovered, PipelineError> {
        let windows: Vec<Vec<u32>> = (0..LEARNT + 2).map(|window| ids(window, 40)).collect();
        let measured = Measured {
            name: "other".into(),
            windows: (100..103).map(|w| Window { scored: 1..40, ids: ids(w, 40) }).collect(),
        };
        Recover {
            student: self.models.0,
            parent: self.models.1,
            settings: &self.settings,
            windows: &windows,
            learnt: LEARNT as usize,
            measured: &[measured],
            source_sha256: "0",
            key: &json!({ "settings": &self.settings }),
            recipe: &json!({ "step": [] }),
            seed: 0,
            team: &Team::new(self.threads),
            progress: self.progress,
        }
        .write(target, self.resume, false)
    }
}

/// KL to the parent on the text that nothing was learnt from: before and after.
fn divergence(recovered: &Recovered) -> [f64; 2] {
    let gain = &recovered.gains[0];
    [&gain.before, &gain.after].map(|it| it.divergence.as_ref().unwrap().kl_mean.value)
}

#[test]
fn what_was_cut_comes_nearer_to_its_parent_on_text_that_was_not_seen() {
    for name in ["llama", "qwen3-tied", "mistral-sliding", "llama-tied-bias", "qwen2-moe"] {
        let (parent, top) = (golden(name), tempfile::tempdir().unwrap());
        let student = pruned(&parent, &top.path().join("pruned"));
        let both = Job::new(&student, &parent).write(&top.path().join("both")).unwrap();
        let [before, after] = divergence(&both);
        assert!(after < before, "{name}: {before} {after}");
        for loss in &both.blocks {
            assert!(loss.after <= loss.before, "{name}: {loss:?}");
        }
        assert!(both.blocks.iter().any(|loss| loss.after < 0.9 * loss.before), "{name}");
        // The state that was best is what is written: measuring it again gives its loss.
        let least = both.whole.iter().map(|it| it.measured).fold(f64::INFINITY, f64::min);
        let written = package::open(top.path().join("both").to_str().unwrap()).unwrap();
        let mut job = Job::new(&written, &parent);
        job.settings.block_epochs = 0;
        job.settings.epochs = 1;
        let again = job.write(&top.path().join("again")).unwrap();
        // Both in float32; tensors are float32 here, too.
        let begun = again.whole[0].measured;
        assert!((begun - least).abs() < 1e-5 * least, "{name}: {begun} {least}");
    }
}

/// A model that is its own parent has nothing to learn, and stays.
#[test]
fn a_parent_stays_as_it_is() {
    let (parent, top) = (golden("llama"), tempfile::tempdir().unwrap());
    let same = Job::new(&parent, &parent).write(&top.path().join("same")).unwrap();
    let [before, after] = divergence(&same);
    // What is learnt is rounding of the streams to bfloat16, at most.
    assert!(before.abs() < 1e-9 && after < 1e-3, "{before} {after}");
}

#[test]
fn the_number_of_threads_does_not_change_a_byte() {
    let (parent, top) = (golden("llama"), tempfile::tempdir().unwrap());
    let student = pruned(&parent, &top.path().join("pruned"));
    let folders = [1, 2, 5].map(|threads| {
        let folder = top.path().join(format!("threads-{threads}"));
        Job { threads, ..Job::new(&student, &parent) }.write(&folder).unwrap();
        folder
    });
    same(&folders[0], &folders[1], "2 threads");
    same(&folders[0], &folders[2], "5 threads");
    // The twin: another order of the windows gives others.
    let mut job = Job::new(&student, &parent);
    job.settings.step_windows = 3;
    job.write(&top.path().join("other")).unwrap();
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert_ne!(weights(&folders[0]), weights(&top.path().join("other")));
}

#[test]
fn a_run_that_is_stopped_anywhere_goes_on_to_the_same_bytes() {
    let (parent, top) = (golden("llama"), tempfile::tempdir().unwrap());
    let student = pruned(&parent, &top.path().join("pruned"));
    let whole = top.path().join("whole");
    let count = Fuse::new(usize::MAX);
    Job { progress: &count, ..Job::new(&student, &parent) }.write(&whole).unwrap();
    let reports = count.reports.load(Ordering::Relaxed);
    let mut resumed = 0;
    for at in (0..reports).step_by(5).chain([reports - 1]) {
        let parts = top.path().join("parts");
        let fuse = Fuse::new(at);
        let stopped = Job { progress: &fuse, ..Job::new(&student, &parent) };
        let stopped = catch_unwind(AssertUnwindSafe(|| stopped.write(&parts)));
        assert!(stopped.is_err() && !parts.exists(), "{at} of {reports}");
        let rest = Fuse::new(usize::MAX);
        let job = Job { resume: true, progress: &rest, ..Job::new(&student, &parent) };
        job.write(&parts).unwrap();
        same(&whole, &parts, &format!("stopped at {at} of {reports}"));
        resumed += usize::from(rest.reports.load(Ordering::Relaxed) < reports);
        fs::remove_dir_all(&parts).unwrap();
    }
    assert!(resumed > 5, "only {resumed} of {reports} runs went on, the others began anew");
    assert_eq!(names(top.path()), ["pruned", "whole"], "nothing is left over");
}

#[test]
fn models_that_do_not_belong_together_are_refused() {
    let top = tempfile::tempdir().unwrap();
    let llama = golden("llama");
    let refused = |student: &Opened, parent: &Opened, change: &dyn Fn(&mut Settings)| {
        let mut job = Job::new(student, parent);
        change(&mut job.settings);
        let error = job.write(&top.path().join("out")).unwrap_err().to_string();
        assert_eq!(names(top.path()), [""; 0], "{error}");
        error
    };
    let mini = package::open("builtin:milm-mini").unwrap();
    let error = refused(&llama, &mini, &|_| ());
    assert!(error.contains("`vocab_size` is 128, the parent's is"), "{error}");
    let error = refused(&llama, &llama, &|it| (it.block_epochs, it.epochs) = (0, 0));
    assert!(error.contains("--block-epochs") && error.contains("--epochs"), "{error}");
    // A rate that explodes: the step is told, and the work before it stays.
    let student = pruned(&llama, &top.path().join("pruned"));
    let mut job = Job::new(&student, &llama);
    job.settings.learning_rate = 1e30;
    let error = job.write(&top.path().join("out")).unwrap_err().to_string();
    assert!(error.contains("the loss is no finite number") && error.contains("hint"), "{error}");
    assert_eq!(names(top.path()), ["out.partial", "pruned"]);
}

/// Prune, recover, int4, measured on one window.
const RECIPE: &str = r#"
description = "prune, recover, quantize, measure"
model = "builtin:milm-mini"

[[step]]
do = "prune"
ffn-width = 256
calibration-samples = 6
calibration-tokens = 64
measure-windows = 0

[[step]]
do = "recover"
block-epochs = 1
epochs = 1
calibration-samples = 6
calibration-tokens = 64
validation-windows = 2
measure-windows = 1

[[step]]
do = "quantize"
group-size = 32

[[step]]
do = "eval"
reference = "source"
text = ["builtin:en"]
ctx = 64
windows = 1
"#;

#[test]
fn a_recipe_prunes_recovers_and_quantizes() {
    let top = tempfile::tempdir().unwrap();
    let (file, package) = (top.path().join("r.toml"), top.path().join("package"));
    fs::write(&file, RECIPE).unwrap();
    let compress = |more: &[&str]| {
        let mut command = program();
        command.arg("compress").arg(&file).arg("-o").arg(&package).args(more);
        command.assert()
    };
    // A step that fails at last leaves what was made before it, and is gone on from.
    let between = ["package.pruned", "package.recovered"];
    fs::write(top.path().join("package"), "in the way").unwrap();
    compress(&[]).code(2);
    fs::remove_file(&package).unwrap();
    compress(&["--keep-intermediate"]).success().stdout(
        predicate::str::contains("KL, held out").and(predicate::str::contains("recovered")),
    );
    let found = names(top.path());
    assert!(between.iter().all(|name| found.contains(&(*name).to_owned())), "{found:?}");
    let manifest = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(top.path().join(name).join("milm.json")).unwrap()).unwrap()
    };
    let steps = manifest("package")["recipe"]["step"].clone();
    let verbs = ["prune", "recover", "quantize", "eval"];
    assert_eq!([0, 1, 2, 3].map(|at| steps[at]["do"].clone()), verbs);
    assert_eq!(steps[1]["settings"]["learning-rate"], 1e-4, "defaults are resolved");
    // The hash chain: the recovered model names the pruned one, which names its parent.
    assert_eq!(steps[1]["parent"]["sha256"], manifest(between[0])["source"]["sha256"]);
    compress(&["--resume", "--force"])
        .success()
        .stderr(predicate::str::contains("is not made again"));
    assert_eq!(names(top.path()), ["package", "r.toml"], "what came between is gone");

    let recover = RECIPE.replace("do = \"prune\"\nffn-width = 256\n", "do = \"recover\"\n");
    fs::write(
        &file,
        recover.replacen("[[step]]\ndo = \"recover\"\nblock", "[[step]]\ndo = \"eval\"\nblock", 0),
    )
    .unwrap();
    compress(&["--force"]).code(2);
}

#[test]
fn a_parent_is_told_by_its_hash() {
    let top = tempfile::tempdir().unwrap();
    let pruned = top.path().join("pruned");
    let samples = ["--calibration-samples", "6", "--calibration-tokens", "64"];
    program()
        .args(["prune", "builtin:milm-mini", "--ffn-width", "256", "--measure-windows", "0", "-o"])
        .arg(&pruned)
        .args(samples)
        .assert()
        .success();
    let recover = |parent: &Path, more: &[&str]| {
        let mut command = program();
        command.arg("recover").arg(&pruned).arg("--parent").arg(parent).arg("-o");
        command.arg(top.path().join("out")).args(&samples[2..]).args(more).assert()
    };
    recover(&pruned, &[]).code(2).stderr(
        predicate::str::contains("SHA-256").and(predicate::str::contains("--force-parent")),
    );
    let quick =
        ["--calibration-samples=6", "--epochs=0", "--block-epochs=1", "--measure-windows=0"];
    recover(&pruned, &[&["--force-parent"], &quick[..]].concat())
        .success()
        .stdout(predicate::str::contains("squared distance to the parent's streams"));
    // Some ninety tokens: one window, and none to decide by.
    let short = top.path().join("short.txt");
    fs::write(&short, "It was a dark night. ".repeat(16)).unwrap();
    let text = format!("--calibration={}", short.display());
    recover(Path::new("builtin:milm-mini"), &["--force", &text, "--calibration-samples=6"])
        .code(2)
        .stderr(predicate::str::contains("too few to decide"));
}
