//! Adaptive rounding as a whole: what it loses, what it refuses, how it goes on.
use crate::{
    prune::{golden, ids, names, same},
    util::Fuse,
};
use milm_compress::{
    calibrate::CalibrationSet,
    forward::{self, Reference},
    linalg::Team,
    model::Model,
    package::{self, Opened},
    pipeline::{Bases, PipelineError, Quantize, Quantized},
    progress::{Progress, Silent},
    quantize::{ActivationScales, CodeChoice, Effort, RoundingTarget, Settings, TargetEngine},
    tensor::Bytes,
    transform,
};
use serde_json::json;
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::Ordering,
};

/// A run over a golden model.
pub(crate) struct Job<'a> {
    opened: &'a Opened,
    settings: Settings,
    pub(crate) transform: transform::Settings,
    threads: usize,
    progress: &'a dyn Progress,
    resume: bool,
}

impl<'a> Job<'a> {
    pub(crate) fn new(opened: &'a Opened, settings: Settings) -> Self {
        let transform = transform::Settings::default();
        Self { opened, settings, transform, threads: 2, progress: &Silent, resume: false }
    }

    pub(crate) fn write(&self, target: &Path) -> Result<Quantized, PipelineError> {
        let window = |window| ids(window, 48);
        let calibration = CalibrationSet {
            windows: (0..12).map(window).collect(),
            held_out: (100..103).map(window).collect(),
            ..CalibrationSet::default()
        };
        let quantize = Quantize {
            opened: self.opened,
            settings: &self.settings,
            bases: &Bases::of(&self.opened.model, &self.settings, &self.transform)?,
            seed: 0,
            calibration: &calibration,
            source_sha256: "0",
            key: &json!({ "settings": &self.settings, "transform": &self.transform }),
            recipe: &json!({ "step": [] }),
            team: &Team::new(self.threads),
            progress: self.progress,
        };
        Ok(quantize.write(target, self.resume, false)?.0)
    }
}

pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Settings {
    let (group_size, engine) = ("channel".parse().ok(), Some(TargetEngine::Milm));
    let mut settings = Settings { group_size, engine, ..Settings::default() };
    change(&mut settings);
    settings
}

/// The mean KL divergence on held-out windows.
pub(crate) fn kl(job: &Job<'_>) -> f64 {
    let top = tempfile::tempdir().unwrap();
    let quantized = job.write(&top.path().join("out")).unwrap();
    quantized.loss.unwrap().divergence.unwrap().kl_mean.value
}

/// What is told of held-out text is what the package gives: checked by reading it back.
#[test]
fn the_loss_that_is_told_is_that_of_the_package() {
    loss_is_told(with(|_| ()));
    // Hidden units of MLPs change places behind the walk that measured the loss.
    loss_is_told(with(|it| it.outliers = Some(0.125)));
    // Scales have moved since.
    loss_is_told(with(|it| it.tuning = crate::tune::tuning()));
    // The head's scale is chosen behind the last block.
    loss_is_told(with(|it| {
        (it.scheme, it.activations) = ("w8a8".into(), ActivationScales::Static);
    }));
}

fn loss_is_told(settings: Settings) {
    let opened = golden("llama");
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let told = Job::new(&opened, settings).write(&target).unwrap();
    let package = package::open(target.to_str().unwrap()).unwrap();
    let (team, backend) = (Team::new(2), milm_compress::runtime::Kernels::new());
    let (mut sum, mut count) = (0.0, 0);
    for window in 100..103 {
        let ids = ids(window, 48);
        let logits =
            |model, backend| milm_compress::forward::logits(model, backend, &ids, &team).unwrap();
        let float = logits(&opened.model, &milm_compress::forward::Reference);
        let ours = logits(&package.model, &backend);
        // The last token predicts nothing that is scored.
        for (p, q) in float.outer_iter().zip(ours.outer_iter()).take(ids.len() - 1) {
            let (p, q) = (p.to_vec(), q.to_vec());
            let sums = |x: &[f32]| {
                let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f64 = x.iter().map(|x| f64::from(x - max).exp()).sum();
                f64::from(max) + sum.ln()
            };
            let (log_p, log_q) = (sums(&p), sums(&q));
            let terms = p.iter().zip(&q).map(|(p, q)| {
                let (p, q) = (f64::from(*p) - log_p, f64::from(*q) - log_q);
                p.exp() * (p - q)
            });
            sum += terms.sum::<f64>();
            count += 1;
        }
    }
    let (package, told) = (sum / f64::from(count), told.loss.unwrap().divergence.unwrap());
    // Streams are kept in bfloat16 between blocks: each of the two halves of two blocks may move
    // logits by 2^-9 of themselves, which moves a KL divergence by about as much of its root.
    let bound = 4.0 * f64::powi(2.0, -9) * (package.sqrt() + package);
    let difference = (package - told.kl_mean.value).abs();
    assert!(difference < bound, "{package} {} {bound}", told.kl_mean.value);
}

#[test]
fn codes_chosen_on_text_lose_less_than_the_nearest() {
    for name in ["llama", "qwen2", "qwen3-tied", "llama-tied-bias"] {
        let opened = golden(name);
        let transform = transform::Settings {
            rotate: Some(transform::Rotate::None),
            ..transform::Settings::default()
        };
        let of =
            |settings| kl(&Job { transform: transform.clone(), ..Job::new(&opened, settings) });
        let weights = of(with(|it| it.target = RoundingTarget::Weights));
        let stream = of(with(|_| ()));
        // Nearest codes have no walk: with H = 1 everywhere GPTQ gives the nearest code.
        let nearest = of(with(|it| (it.damping, it.target) = (1e6, RoundingTarget::Weights)));
        assert!(weights < nearest, "{name}: {weights} {nearest}");
        assert!(stream < nearest, "{name}: {stream} {nearest}");
    }
}

/// Every family is rounded, packaged and read back; experts that saw hardly a token are named.
#[test]
fn every_family_is_rounded_whole() {
    for name in crate::util::MODELS {
        let opened = golden(name);
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        let told = Job::new(&opened, with(|_| ())).write(&target).unwrap();
        let package = package::open(target.to_str().unwrap()).unwrap();
        let linears = opened.model.spec.tensors.iter();
        let linears = linears.filter(|it| it.role.is_block_linear() && it.input.is_some());
        let names: Vec<&str> = linears.map(|it| it.name.as_str()).collect();
        for tensor in &names {
            assert!(package.model.weights.quantized.contains_key(*tensor), "{name}: {tensor}");
        }
        assert_eq!(told.layers.len(), names.len(), "{name}");
        for layer in &told.layers {
            assert!(layer.error.is_finite() && layer.error < 0.5, "{name}: {layer:?}");
            assert_eq!(layer.nearest, layer.tokens < 32, "{name}: {layer:?}");
        }
        let verified = package::verify(target.to_str().unwrap(), &Team::new(1), &Silent);
        assert!(verified.unwrap().problems.is_empty(), "{name}");
    }
}

#[test]
fn a_run_that_is_stopped_anywhere_goes_on() {
    goes_on(|| with(|_| ()));
    goes_on(|| with(|it| it.tuning = crate::tune::tuning()));
}

fn goes_on(settings: impl Fn() -> Settings) {
    let opened = golden("llama");
    let top = tempfile::tempdir().unwrap();
    let whole = top.path().join("whole");
    let count = Fuse::new(usize::MAX);
    Job { progress: &count, ..Job::new(&opened, settings()) }.write(&whole).unwrap();
    let reports = count.reports.load(Ordering::Relaxed);
    let (mut resumed, mut begun) = (0, 0);
    for at in (0..reports).step_by(13).chain([reports - 1]) {
        let parts = top.path().join(format!("parts-{at}"));
        let fuse = Fuse::new(at);
        let stopped = Job { progress: &fuse, ..Job::new(&opened, settings()) };
        let stopped = catch_unwind(AssertUnwindSafe(|| stopped.write(&parts)));
        assert!(stopped.is_err() && !parts.exists(), "{at} of {reports}");
        let other = Settings { damping: 0.5, ..settings() };
        match (Job { resume: true, ..Job::new(&opened, other) }.write(&parts)) {
            // Nothing was finished yet: there is nothing to mix with other settings.
            Ok(_) => {
                fs::remove_dir_all(&parts).unwrap();
                begun += 1;
                continue;
            }
            Err(error) => assert!(error.to_string().contains("settings.damping"), "{error}"),
        }
        let rest = Fuse::new(usize::MAX);
        let job = Job { resume: true, progress: &rest, ..Job::new(&opened, settings()) };
        job.write(&parts).unwrap();
        same(&whole, &parts, &format!("stopped at {at} of {reports}"));
        resumed += usize::from(rest.reports.load(Ordering::Relaxed) < reports);
        fs::remove_dir_all(&parts).unwrap();
    }
    assert!(resumed > 2, "only {resumed} runs went on, the others began anew");
    assert!(begun < resumed, "{begun} runs were stopped before anything was finished");
    assert_eq!(names(top.path()), ["whole"], "nothing is left over");
}

#[test]
fn threads_change_no_byte() {
    let top = tempfile::tempdir().unwrap();
    let tuned = with(|it| it.tuning = crate::tune::tuning());
    let cases = [("llama", with(|_| ())), ("qwen2-moe", with(|_| ())), ("qwen3-tied", tuned)];
    for (name, settings) in cases {
        let opened = golden(name);
        let [one, two] = [1, 3].map(|threads| {
            let target = top.path().join(format!("{name}-{threads}"));
            Job { threads, ..Job::new(&opened, settings.clone()) }.write(&target).unwrap();
            target
        });
        same(&one, &two, name);
    }
    // The twin: the comparison sees another choice of codes.
    let opened = golden("llama");
    let nearest = top.path().join("nearest");
    let settings = with(|it| it.rounding = Some(CodeChoice::Nearest));
    let hadamard = transform::Settings {
        rotate: Some(transform::Rotate::Hadamard),
        ..transform::Settings::default()
    };
    Job { transform: hadamard, ..Job::new(&opened, settings) }.write(&nearest).unwrap();
    let bytes = |name: &str| fs::read(top.path().join(name).join("model.safetensors")).unwrap();
    assert!(bytes("llama-1") != bytes("nearest"));
}

/// The yardstick: grids come from the calibration text, are stored, and are used by whoever opens
/// the package.
#[test]
fn a_vendors_package_keeps_its_activation_grids() {
    let opened = golden("qwen2-moe");
    let top = tempfile::tempdir().unwrap();
    let package = |scheme: &str| {
        let target = top.path().join(scheme);
        let settings = with(|it| {
            (it.preset, it.scheme) = (Effort::VendorStandard, scheme.into());
        });
        Job::new(&opened, settings).write(&target).unwrap();
        package::open(target.to_str().unwrap()).unwrap().model
    };
    let team = Team::new(2);
    let logits = |model: &Model| forward::logits(model, &Reference, &ids(100, 48), &team).unwrap();
    let float = logits(&opened.model);
    let error =
        |model: &Model| (logits(model) - &float).iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let (fine, coarse) = (package("w8a16"), package("w8a8"));
    for (model, bits) in [(&fine, 16), (&coarse, 8)] {
        let grids = &model.weights.activations;
        assert!(grids.values().all(|grid| grid.bits == bits));
        for point in ["0.q", "0.mixed", "1.hidden.2", "1.silu.shared", "embedding", "head"] {
            assert!(grids.contains_key(point), "{point}");
        }
    }
    let mut without = coarse.clone();
    without.weights.activations.clear();
    assert!(error(&coarse) > 2.0 * error(&without), "the grids are used");
    assert!(error(&fine) < 1.5 * error(&without), "16 bits hardly cost anything");
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    let mut opened = golden("llama");
    let name = "model.layers.1.mlp.up_proj.weight";
    let raw = opened.model.weights.raw.get_mut(name).unwrap();
    let mut bytes = raw.bytes.to_vec();
    for byte in bytes.chunks_mut(4).take(1) {
        byte.copy_from_slice(&f32::NAN.to_le_bytes()[4 - byte.len()..]);
    }
    raw.bytes = Bytes::owned(bytes);
    let top = tempfile::tempdir().unwrap();
    let error = Job::new(&opened, with(|_| ())).write(&top.path().join("out")).unwrap_err();
    assert!(error.to_string().contains("model.layers.1.mlp"), "{error}");
}
