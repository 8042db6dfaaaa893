//! Scales that learn behind the rounding: their gradients, what stays, what is gained, what is refused.
use crate::{
    adaptive::{Job, with},
    cli::program,
    onnx::quantized,
    prune::{golden, ids},
    train::learn,
    util,
};
use milm_compress::{
    model::{Model, Weight},
    package,
    quantize::{CodeChoice, Settings, Tune, Tuning},
    scheme::{Activations, Granularity, IntScheme},
    train::Learns,
};
use predicates::prelude::*;

/// Steps that are long for models that are small.
pub(crate) fn tuning() -> Tuning {
    Tuning { tune: Some(Tune::Scales), tune_epochs: 4, tune_rate: 5e-3, ..Tuning::default() }
}

/// A model with the weights of its blocks on grids of 32 inputs. Their scales are float32: no rounding stands
/// between a scale and the loss.
fn on_grids(model: Model, symmetric: bool) -> Model {
    let granularity = Granularity::Group(32);
    quantized(model, IntScheme { bits: 4, symmetric, granularity }, (Activations::Float, 0))
}

/// Along the direction in which each scale of a weight moves by the same share, up where its gradient is above
/// 0, the loss rises by the sum of the gradients' magnitudes.
#[test]
fn gradients_of_scales_are_the_slopes_of_the_loss() {
    const SHARE: f32 = 1e-3;
    for (name, symmetric) in [("llama", true), ("qwen3-tied", false), ("mistral-sliding", true)] {
        let ids = ids(7, 33);
        let model = on_grids(util::open(&util::golden().join(name)), symmetric);
        let (student, _) = learn(&model, &ids, Learns::Scales, 2);
        let mut seen = 0;
        for parameter in student.parameters().flat_map(|it| &it.list).filter(|it| it.learns()) {
            let Weight::Quantized { tensor, .. } = model.weights.get(&parameter.name).unwrap()
            else {
                continue;
            };
            let slope: f64 = parameter.gradient.iter().map(|g| f64::from(g.abs())).sum();
            let moved = |sign: f32| {
                let (mut model, mut tensor) = (model.clone(), tensor.clone());
                for (scale, g) in tensor.scales.iter_mut().zip(&parameter.gradient) {
                    *scale *= 1.0 + sign * SHARE * g.signum();
                }
                let (scheme, _) = model.weights.quantized[&parameter.name];
                model.weights.quantize(&parameter.name, scheme, &tensor.into());
                learn(&model, &ids, Learns::Scales, 2).1
            };
            let found = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(SHARE));
            // A loss of some 5 nats for each of 32 tokens, each off by 2⁻²⁰ or less, over 2 · SHARE: 0.08.
            // The third derivative adds SHARE² of the slope's own size.
            assert!(
                (found - slope).abs() < 0.08 + 0.01 * slope,
                "{name} {}: {found} {slope}",
                parameter.name
            );
            seen += usize::from(slope > 0.8);
        }
        assert!(seen > 4, "{name}: {seen} slopes stand out");
    }
}

/// Codes, zero points and shapes stay, scales and norms move, and the text that was held out gains.
#[test]
fn the_form_stays_and_the_loss_falls() {
    let top = tempfile::tempdir().unwrap();
    for rounding in [CodeChoice::Nearest, CodeChoice::Adaptive] {
        let opened = golden("llama");
        let settings = |tuning| {
            with(|it: &mut Settings| {
                (it.rounding, it.tuning) = (Some(rounding), tuning);
            })
        };
        let folder = |name: &str| top.path().join(format!("{name}-{rounding:?}"));
        Job::new(&opened, settings(Tuning::default())).write(&folder("plain")).unwrap();
        let told = Job::new(&opened, settings(tuning())).write(&folder("tuned")).unwrap();
        let notes = told.tuned.unwrap();
        let best = notes.iter().map(|it| it.measured).fold(f64::INFINITY, f64::min);
        // Codes that were chosen on twelve short windows leave little to learn from the same.
        let most = if rounding == CodeChoice::Nearest { 0.95 } else { 1.0 };
        assert!(best < most * notes[0].measured, "{rounding:?}: {notes:?}");
        // Kernels and the trainer sum in other orders, and the package's scales are those that learnt.
        let loss = told.loss.unwrap().divergence.unwrap().kl_mean.value;
        assert!((loss - best).abs() < 0.02 * best, "{rounding:?}: {loss} {best}");

        let [plain, tuned] = ["plain", "tuned"]
            .map(|name| package::open(folder(name).to_str().unwrap()).unwrap().model.weights);
        assert_eq!(plain.quantized, tuned.quantized);
        let mut moved = Vec::new();
        for (name, raw) in &plain.raw {
            let other = &tuned.raw[name];
            assert_eq!((raw.dtype, &raw.shape), (other.dtype, &other.shape), "{name}");
            if *raw.bytes != *other.bytes {
                moved.push(name.as_str());
            }
        }
        let learns = |name: &&str| name.ends_with("_scale") || name.contains("norm");
        assert!(moved.iter().all(learns), "{moved:?}");
        assert!(moved.iter().filter(|it| it.ends_with("_scale")).count() > 10, "{moved:?}");
    }
}

#[test]
fn what_cannot_be_tuned_is_refused_before_any_work() {
    let top = tempfile::tempdir().unwrap();
    let out = top.path().join("out");
    let cases: [(&[&str], &str); 5] = [
        (&["--scheme", "w8a8"], "scales are tuned for float activations"),
        (&["--preset", "vendor-standard"], "to compare with"),
        (&["--outliers", "0.25", "--for", "milm"], "on one grid"),
        (&["--rule", "re:.*=float"], "on one grid"),
        (&["--rotate", "hadamard", "--rotate-keys", "--for", "milm"], "cannot be trained"),
    ];
    for (flags, want) in cases {
        let mut command = program();
        command.args(["quantize", "builtin:milm-mini", "--tune", "scales", "-o"]).arg(&out);
        command.args(flags).assert().failure().stderr(predicate::str::contains(want));
        assert!(!out.exists(), "{flags:?}");
    }
}
