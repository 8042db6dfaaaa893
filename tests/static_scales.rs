//! Static scales of int8 activations: chosen, stored, used, refused.
use crate::{
    adaptive::{Job, with},
    prune::{golden, ids},
    util::MODELS,
};
use milm_compress::{
    forward,
    linalg::Team,
    model::{Input, Model, Weight},
    package,
    progress::Silent,
    quantize::{ActivationScales, CodeChoice, Settings},
    runtime::Kernels,
};
use std::{fs, path::Path};

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    with(|it| {
        (it.scheme, it.activations) = ("w8a8".into(), ActivationScales::Static);
        change(it);
    })
}

fn package(name: &str, target: &Path) -> Model {
    Job::new(&golden(name), settings(|_| ())).write(target).unwrap();
    package::open(target.to_str().unwrap()).unwrap().model
}

#[test]
fn every_layer_has_a_scale() {
    for name in MODELS {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        let model = package(name, &target);
        for (weight, (scheme, _)) in &model.weights.quantized {
            let Weight::Quantized { activations, .. } = model.weights.get(weight).unwrap() else {
                panic!("{name}: {weight}")
            };
            let embedding = weight.contains("embed") && !model.spec.tied;
            assert_eq!(matches!(activations, Input::Float), embedding, "{name}: {weight}");
            if let Input::Int8Static(scale) = activations {
                assert!(scale > 0.0, "{name}: {weight}");
                assert!(scheme.outliers == 0);
            }
        }
        let verified = package::verify(target.to_str().unwrap(), &Team::new(1), &Silent);
        assert!(verified.unwrap().problems.is_empty(), "{name}");
        if model.spec.tied {
            continue; // the standard has no scale for the product of a tied embedding
        }
        // The standard says it all: without our manifest the same model is read.
        let (kernels, team) = (Kernels::new(), Team::new(2));
        let logits =
            |model: &Model| forward::logits(model, &kernels, &ids(100, 20), &team).unwrap();
        fs::remove_file(target.join("milm.json")).unwrap();
        let standard = package::open(target.to_str().unwrap()).unwrap().model;
        assert_eq!(logits(&standard), logits(&model), "{name}");
    }
}

#[test]
fn scales_are_used_and_well_chosen() {
    let opened = golden("llama");
    let top = tempfile::tempdir().unwrap();
    let model = package("llama", &top.path().join("out"));
    let (kernels, team) = (Kernels::new(), Team::new(2));
    let logits = |model: &Model| forward::logits(model, &kernels, &ids(100, 48), &team).unwrap();
    let float = logits(&opened.model);
    let error =
        |model: &Model| (logits(model) - &float).iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let chosen = error(&model);
    for factor in [0.25, 4.0] {
        let mut other = model.clone();
        let names: Vec<String> = model.weights.quantized.keys().cloned().collect();
        for name in names {
            if let Ok(Weight::Quantized { activations: Input::Int8Static(scale), .. }) =
                model.weights.get(&name)
            {
                other.weights.set_input_scale(&name, scale * factor);
            }
        }
        assert!(error(&other) > 2.0 * chosen, "{factor}: {} {chosen}", error(&other));
    }
}

#[test]
fn a_damaged_scale_is_named() {
    let top = tempfile::tempdir().unwrap();
    let mut model = package("llama", &top.path().join("out"));
    let name = "model.layers.0.mlp.down_proj.weight";
    for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        model.weights.set_input_scale(name, wrong);
        let error = model.weights.get(name).unwrap_err().to_string();
        assert!(error.contains("down_proj.input_scale"), "{error}");
    }
    model.weights.raw.remove("model.layers.0.mlp.down_proj.input_scale");
    let error = model.weights.get(name).unwrap_err().to_string();
    assert!(error.contains("down_proj.input_scale") && error.contains("missing"), "{error}");
}

#[test]
fn schemes_without_static_scales_are_refused() {
    let opened = golden("llama");
    let top = tempfile::tempdir().unwrap();
    let refused = |settings| {
        Job::new(&opened, settings).write(&top.path().join("out")).unwrap_err().to_string()
    };
    let float = refused(settings(|it| it.scheme = "w4a16".into()));
    assert!(float.contains("w8a8, w4a8"), "{float}");
    let nearest = refused(settings(|it| it.rounding = Some(CodeChoice::Nearest)));
    assert!(nearest.contains("--rounding adaptive"), "{nearest}");
}
