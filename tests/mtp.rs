//! Layers for multi-token prediction, and whatever else lies beside the architecture, where widths
//! are cut or coordinates turned (tests/golden/mimo-mtp).
use crate::{golden, util};
use milm_compress::{
    linalg::Team,
    model::{Model, ModelSpec},
    package::{self, Job, compressed_tensors::vllm},
    progress::Silent,
    prune::{self, Settings},
    quantize,
    tensor::RawTensor,
    transform::{self, Rotate, Transform},
};

fn mimo() -> Model {
    util::open(&util::golden().join("mimo-mtp"))
}

fn layers(model: &Model) -> usize {
    model.weights.raw.keys().filter(|name| name.starts_with("model.mtp_layers.0.")).count()
}

fn narrower(model: &Model) -> ModelSpec {
    let mut config = model.config.clone();
    config["intermediate_size"] = 32.into();
    ModelSpec::from_config(&config).unwrap()
}

fn rotation(model: &Model, rotate: Rotate) -> Transform {
    let settings = transform::Settings { rotate: Some(rotate), ..transform::Settings::default() };
    Transform::new(model, &settings, (0, 0.125), None).unwrap()
}

#[test]
fn the_main_path_of_mimo_agrees_with_transformers() {
    let model = mimo();
    assert_eq!((model.spec.family, layers(&model), model.extras().len()), ("mimo", 16, 16));
    let file = util::golden().join("mimo-mtp/golden.safetensors");
    assert!(golden::difference(&model, &file) < 1e-4);
}

#[test]
fn layers_for_multi_token_prediction_go_where_their_widths_are_cut() {
    let model = mimo();
    assert_eq!(model.stranded(&narrower(&model)).len(), 16);
    let settings = Settings { keep: Some(0.8), ..Settings::default() };
    let plan = prune::Plan::of(&model, &settings).unwrap();
    assert_eq!(plan.config["num_nextn_predict_layers"], 0);
    assert_eq!(layers(&plan.outline(&model)), 0);
    assert!(plan.notes.iter().any(|it| it.contains("model.mtp_layers.0")), "{:?}", plan.notes);
    // The twin: what is not cut stays.
    let same = prune::pruned_config(&model.config, &model.spec, &kept_all(&model)).unwrap();
    assert_eq!(same["num_nextn_predict_layers"], 1);
    assert!(model.stranded(&model.spec).is_empty());
}

fn kept_all(model: &Model) -> Vec<prune::Kept> {
    model.spec.blocks.iter().map(prune::Kept::all).collect()
}

#[test]
fn layers_for_multi_token_prediction_go_where_the_stream_is_turned() {
    let model = mimo();
    let turned = rotation(&model, Rotate::Hadamard).apply(&model).unwrap();
    assert_eq!((layers(&turned), turned.extras().len()), (0, 0));
    assert_eq!(turned.config["num_nextn_predict_layers"], 0);
    let file = util::golden().join("mimo-mtp/golden.safetensors");
    assert!(golden::difference(&turned, &file) < 1e-4);
    let plain = rotation(&model, Rotate::None).apply(&model).unwrap();
    assert_eq!((layers(&plain), &plain.config["num_nextn_predict_layers"]), (16, &1.into()));
}

/// The rule holds for any tensor, not for names that are known.
#[test]
fn unknown_tensors_go_where_one_of_their_axes_is_cut_or_turned() {
    let mut model = mimo();
    let zeros =
        |shape: Vec<usize>| RawTensor::from_f32(shape.clone(), &vec![0.0; shape.iter().product()]);
    for (name, shape) in [
        ("medusa.hidden", vec![32, 32]),
        ("medusa.pair", vec![5, 64]),
        ("medusa.inner", vec![48, 5]),
        ("medusa.free", vec![5, 7]),
    ] {
        model.weights.raw.insert(name.into(), zeros(shape));
    }
    let own = |names: Vec<String>| {
        names.into_iter().filter(|it| it.starts_with("medusa")).collect::<Vec<_>>()
    };
    assert_eq!(own(model.stranded(&narrower(&model))), ["medusa.inner"]);
    let turned = rotation(&model, Rotate::Hadamard);
    let turned = ModelSpec::from_config(&turned.config(&model.config)).unwrap();
    assert_eq!(own(model.stranded(&turned)), ["medusa.hidden", "medusa.pair"]);
}

#[test]
fn a_package_carries_layers_for_multi_token_prediction_in_float_and_ignores_them() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let opened = package::open(util::golden().join("mimo-mtp").to_str().unwrap()).unwrap();
    let settings = quantize::Settings {
        method: Some(quantize::Method::Minmax),
        group_size: Some(quantize::GroupSize::Of(16)),
        ..quantize::Settings::default()
    };
    let team = Team::new(2);
    let recipe = serde_json::Value::Null;
    let job = Job {
        opened: &opened,
        settings: &settings,
        recipe: &recipe,
        team: &team,
        progress: &Silent,
    };
    job.write(&target, false).unwrap();
    let package = package::open(target.to_str().unwrap()).unwrap();
    assert_eq!(
        (layers(&package.model), &package.model.config["num_nextn_predict_layers"]),
        (16, &1.into())
    );
    let ignore = package.model.config["quantization_config"]["ignore"].as_array().unwrap();
    let matrices =
        ["input_proj", "self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"];
    for module in matrices.map(|it| format!("model.mtp_layers.0.{it}")) {
        assert!(ignore.iter().any(|it| *it == module.as_str()), "{module}");
        let name = format!("{module}.weight");
        let [before, after] = [&opened.model, &package.model].map(|it| &it.weights.raw[&name]);
        assert_eq!((&after.shape, &*after.bytes), (&before.shape, &*before.bytes));
    }
    assert!(vllm(&package).iter().flat_map(|it| &it.places).all(|it| !it.contains("mtp")));
}
