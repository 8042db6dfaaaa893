//! ONNX folders: onnxruntime computes what we compute, our reader gives back what was written.
use crate::{cli::program, prune::ids, util};
use milm_compress::{
    checkpoint::{Folder, OutputDir},
    forward::{self, Backend, Point, Ranges, Reference},
    linalg::Team,
    model::{Model, Weight},
    package::{
        self,
        onnx::{Export, ExportOptions, GraphForm},
    },
    progress::Silent,
    quantize::{Method, rtn::Rtn},
    runtime::Kernels,
    scheme::{
        ActivationGrid, Activations, Granularity, IntScheme, OUTLIER_GRID, OutlierColumns, QTensor,
        Rounded, SplitTensor, TensorScheme, WeightGrid,
    },
    tensor::FloatType,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

/// Logits in onnxruntime: `prefill` tokens at once, then one by one with the cache.
pub(crate) fn in_onnxruntime(
    python: &Path,
    folder: &Path,
    (ids, prefill): (&[u32], usize),
) -> Vec<f32> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/onnx_logits.py");
    let out = folder.with_extension("f32");
    let list = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new(python);
    command.arg(script).arg(folder).arg(&out).args(["--ids", &list]);
    let ran = command.args(["--prefill", &prefill.to_string()]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "ok", "onnx.checker");
    let bytes = fs::read(out).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn options(form: GraphForm) -> ExportOptions<'static> {
    ExportOptions { form, float: FloatType::F32, chain: None }
}

fn write(model: &Model, target: &Path, options: ExportOptions<'_>) {
    let export = Export::plan(model, options).unwrap();
    let output = OutputDir::create(target, false).unwrap();
    export.write(&output, &Folder::in_memory("test", BTreeMap::new()), &Silent).unwrap();
    output.commit().unwrap();
}

fn golden(name: &str) -> Model {
    util::open(&util::golden().join(name))
}

fn logits(model: &Model, backend: &dyn Backend, ids: &[u32]) -> Vec<f32> {
    forward::logits(model, backend, ids, &Team::new(2)).unwrap().into_raw_vec_and_offset().0
}

/// Largest difference over the largest logit.
fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let largest = ours.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    ours.iter().zip(theirs).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// A grid for weights whose columns it divides.
fn grid(bits: u32, symmetric: bool, group: usize) -> IntScheme {
    IntScheme { bits, symmetric, granularity: Granularity::Group(group) }
}

/// The model with its linear layers on a grid, some columns at int8.
pub(crate) fn quantized(
    mut model: Model,
    weights: impl Into<WeightGrid>,
    (activations, outliers): (Activations, usize),
) -> Model {
    let (weights, scale_type) = (weights.into(), FloatType::F32);
    let linears: Vec<_> = model
        .spec
        .tensors
        .iter()
        .filter(|it| it.role.is_block_linear() && it.input.is_some())
        .collect();
    for spec in linears {
        let weight = model.weights.get(&spec.name).unwrap();
        let (values, [rows, columns]) = (weight.to_f32(), [weight.shape()[0], weight.shape()[1]]);
        let round = |grid: WeightGrid, values: &[f32], columns| -> QTensor {
            Rtn { grid, scale_type, method: Method::Minmax }.tensor(values, [rows, columns])
        };
        let scheme = TensorScheme {
            weights,
            scale_type,
            activations,
            format: weights.format(activations),
            outliers,
        };
        let rounded: Rounded = if outliers == 0 {
            round(weights, &values, columns).into()
        } else {
            let places = (0..outliers).map(|at| at as u32 * 3 + 1).collect();
            let places = OutlierColumns::new(columns, places).unwrap();
            let picked = |order: &[usize]| -> Vec<f32> {
                values.chunks(columns).flat_map(|row| order.iter().map(|at| row[*at])).collect()
            };
            let order = places.order();
            let (base, apart) = order.split_at(places.base());
            let base = round(weights, &picked(base), base.len());
            let apart = round(OUTLIER_GRID.into(), &picked(apart), apart.len());
            Rounded::Split(SplitTensor::new(places, base, apart))
        };
        model.weights.quantize(&spec.name, scheme, &rounded);
        if activations == Activations::Int8Static {
            model.weights.set_input_scale(&spec.name, 0.02);
        }
    }
    model
}

/// Static grids at every point that a text has.
fn with_grids(mut model: Model, bits: u32) -> Model {
    let team = Team::new(1);
    let (mut cache, mut all) = (forward::RotaryCache::default(), BTreeMap::new());
    let text = ids(5, 40);
    let mut x = forward::Embedding::load(&model).unwrap().rows(&text).unwrap();
    let mut note = |ranges: Ranges, block: Option<usize>| {
        for ((point, expert), (min, max)) in ranges.0 {
            all.insert(point.key(block, expert), ActivationGrid::covering(min, max, bits));
        }
    };
    let mut ends = Ranges::default();
    ends.add(Point::Embedding, None, x.view());
    for block in 0..model.spec.blocks.len() {
        let weights = forward::BlockWeights::load(&model, block, &Reference).unwrap();
        let rotary = cache.get(&model.spec, block, 0..text.len(), text.len());
        let mut ranges = Ranges::default();
        let mut scratch = forward::Scratch::default();
        let (tap, rows) = (&mut ranges, forward::Rows::Together);
        let mut run = forward::Run { team: &team, scratch: &mut scratch, tap, rows };
        let mut kv = weights.cache(text.len());
        weights.attend(x.view_mut(), (forward::Memory::One(&mut kv), rotary), &mut run);
        weights.feed(x.view_mut(), &mut run);
        note(ranges, Some(block));
    }
    let head = forward::Head::load(&model, &Reference).unwrap();
    ends.add(Point::FinalNorm, None, head.normed(x.view(), &team).view());
    ends.add(Point::Head, None, head.logits(x.view(), &team).view());
    note(ends, None);
    model.weights.activations = all;
    model
}

/// Prefill and decoding with the cache, of every family; with one switch set wrong it is seen.
#[test]
fn every_family_in_onnxruntime() {
    let Some(python) = util::engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let text = ids(3, 40);
    for name in util::MODELS {
        let (model, folder) = (golden(name), top.path().join(name));
        write(&model, &folder, options(GraphForm::Float));
        let ours = logits(&model, &Reference, &text);
        for prefill in [text.len(), 30] {
            let theirs = in_onnxruntime(&python, &folder, (&text, prefill));
            let found = difference(&ours, &theirs);
            println!("{name}, {prefill} at once: {found:.1e}");
            assert!(found < 1e-4, "{name}: {found}");
        }
    }
    let mut wrong = golden("llama");
    wrong.spec.rope.theta *= 2.0;
    write(&wrong, &top.path().join("wrong"), options(GraphForm::Float));
    let theirs = in_onnxruntime(&python, &top.path().join("wrong"), (&text, 40));
    assert!(difference(&logits(&golden("llama"), &Reference, &text), &theirs) > 1e-3);
}

/// Rotations that are left to the forward pass are products with matrices.
#[test]
fn online_rotations_in_onnxruntime() {
    let Some(python) = util::engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let (text, plain) = (ids(3, 24), golden("llama"));
    for (at, key) in ["keys", "down_input"].into_iter().enumerate() {
        let mut config = plain.config.clone();
        config["milm_transform"] = json!({"rotation": "none", key: true});
        let model = Model::new(config, plain.weights.clone()).unwrap();
        let folder = top.path().join(at.to_string());
        write(&model, &folder, options(GraphForm::Float));
        let found = difference(
            &logits(&model, &Reference, &text),
            &in_onnxruntime(&python, &folder, (&text, 20)),
        );
        assert!(found < 1e-4, "{key}: {found}");
    }
}

/// Codes in the graph against our forward pass over the same codes.
#[test]
fn quantized_graphs_in_onnxruntime() {
    let Some(python) = util::engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let text = ids(3, 24);
    let kernels = Kernels::default();
    let rows = |bits| IntScheme { granularity: Granularity::Channel, ..grid(bits, true, 0) }.into();
    // Both sides round activations to 8 bits: a last bit of float32 may choose the other neighbour,
    // one part in 255 of one value in thousands.
    let cases: [(WeightGrid, Activations, usize, f32); 7] = [
        (grid(4, true, 32).into(), Activations::Float, 0, 1e-4),
        (grid(4, false, 16).into(), Activations::Float, 0, 1e-4),
        (rows(4), Activations::Float, 0, 1e-4),
        (WeightGrid::MXFP4, Activations::Float, 0, 1e-4),
        (rows(8), Activations::Int8PerToken, 0, 1e-2),
        (rows(8), Activations::Int8Static, 0, 1e-2),
        (rows(4), Activations::Float, 4, 1e-4),
    ];
    for name in ["llama", "qwen3-tied"] {
        for (at, (weights, activations, outliers, bound)) in cases.into_iter().enumerate() {
            let model = quantized(golden(name), weights, (activations, outliers));
            let folder = top.path().join(format!("{name}-{at}"));
            write(&model, &folder, options(GraphForm::Qdq));
            let backend: &dyn Backend =
                if activations == Activations::Float { &Reference } else { &kernels };
            let ours = logits(&model, backend, &text);
            let found = difference(&ours, &in_onnxruntime(&python, &folder, (&text, 20)));
            println!("{name}, {weights}, {activations:?}, {outliers} outliers: {found:.1e}");
            assert!(found < bound, "{name}, case {at}: {found}");
            let float = top.path().join(format!("{name}-{at}-float"));
            write(&model, &float, options(GraphForm::Float));
            let found = difference(
                &logits(&model, &Reference, &text),
                &in_onnxruntime(&python, &float, (&text, 20)),
            );
            assert!(found < 1e-4, "{name}, float graph of case {at}: {found}");
        }
    }
}

/// Static grids of all points.
#[test]
fn static_grids_in_onnxruntime() {
    let Some(python) = util::engines() else { return };
    let top = tempfile::tempdir().unwrap();
    let text = ids(5, 24);
    for (name, bits, bound) in
        [("llama", 16, 1e-3), ("llama", 8, 0.05), ("qwen2-moe", 16, 1e-3), ("gemma3", 16, 1e-3)]
    {
        let model = with_grids(golden(name), bits);
        let folder = top.path().join(format!("{name}-{bits}"));
        write(&model, &folder, options(GraphForm::Qdq));
        let ours = logits(&model, &Reference, &text);
        let found = difference(&ours, &in_onnxruntime(&python, &folder, (&text, 24)));
        let plain = difference(&ours, &logits(&golden(name), &Reference, &text));
        println!("{name}, {bits} bits: {found:.1e}, without grids {plain:.1e}");
        assert!(found < bound && found < plain, "{name}, {bits} bits: {found}, {plain}");
    }
}

#[test]
fn the_reader_gives_back_what_was_written() {
    let top = tempfile::tempdir().unwrap();
    let channel = IntScheme { granularity: Granularity::Channel, ..grid(4, false, 0) };
    let models = [
        ("float", golden("qwen2-moe")),
        ("groups", quantized(golden("llama"), grid(4, false, 32), (Activations::Float, 0))),
        ("static", quantized(golden("llama"), grid(8, true, 32), (Activations::Int8Static, 0))),
        ("gains about 1", golden("gemma3")),
        ("outliers", quantized(golden("qwen3-tied"), channel, (Activations::Float, 4))),
        ("grids", with_grids(golden("llama"), 8)),
    ];
    for (name, model) in models {
        for form in [GraphForm::Qdq, GraphForm::Float] {
            let folder = top.path().join(format!("{name}-{form:?}"));
            write(&model, &folder, options(form));
            let back = package::open(folder.to_str().unwrap()).unwrap().model;
            for tensor in &model.spec.tensors {
                let get = |model: &Model| model.weights.get(&tensor.name).unwrap();
                let (a, b) = (get(&model), get(&back));
                assert_eq!(a.to_f32(), b.to_f32(), "{name} {form:?}: {}", tensor.name);
                let input = |model: &Model| model.weights.input(&tensor.name).unwrap();
                if form == GraphForm::Qdq {
                    assert_eq!(input(&model), input(&back));
                    let codes = |it: &Weight| matches!(it, Weight::Dense(_));
                    assert_eq!(codes(&a), codes(&b), "{name}: {}", tensor.name);
                }
            }
            if form == GraphForm::Qdq {
                assert_eq!(model.weights.activations, back.weights.activations);
            }
            let again = top.path().join("again");
            write(&model, &again, options(form));
            for file in ["model.onnx", "model.onnx.data", "config.json"] {
                let read = |folder: &Path| fs::read(folder.join(file)).unwrap();
                assert!(read(&folder) == read(&again), "{name}: {file}: same input, same bytes");
            }
            fs::remove_dir_all(again).unwrap();
        }
    }
}

#[test]
fn damaged_and_foreign_graphs_are_refused() {
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("a");
    let model = quantized(golden("llama"), grid(4, true, 32), (Activations::Float, 0));
    write(&model, &folder, options(GraphForm::Qdq));
    let open = || package::open(folder.to_str().unwrap());
    let whole = fs::read(folder.join("model.onnx")).unwrap();
    for cut in (0..whole.len()).step_by(whole.len() / 97) {
        fs::write(folder.join("model.onnx"), &whole[..cut]).unwrap();
        assert!(open().is_err(), "cut at {cut}");
    }
    for at in (0..whole.len()).step_by(13) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(folder.join("model.onnx"), &bytes).unwrap();
        let _ = open();
    }
    fs::write(folder.join("model.onnx"), b"\x08\x08\x12\x05other").unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("was not written by"), "{error}");
    fs::write(folder.join("model.onnx"), &whole).unwrap();
    let data = fs::read(folder.join("model.onnx.data")).unwrap();
    fs::write(folder.join("model.onnx.data"), &data[..data.len() - 1]).unwrap();
    assert!(open().unwrap_err().to_string().contains("tensor"));
}

/// The form of AIMET's encodings, version 1.0.0, after its specification.
fn schema() -> Value {
    let entry = json!({
        "type": "object",
        "required": ["name", "enc_type", "dtype", "bw", "is_sym", "scale", "offset"],
        "properties": {
            "name": {"type": "string"},
            "enc_type": {"enum": ["PER_TENSOR", "PER_CHANNEL", "PER_BLOCK", "LPBQ"]},
            "dtype": {"enum": ["INT", "FLOAT"]},
            "bw": {"enum": [4, 8, 16]},
            "is_sym": {"type": "boolean"},
            "scale": {"type": "array", "minItems": 1, "items": {"exclusiveMinimum": 0}},
            "offset": {"type": "array", "minItems": 1, "items": {"type": "integer", "maximum": 0}},
            "block_size": {"type": "integer", "minimum": 1}
        },
        "additionalProperties": false
    });
    json!({
        "type": "object",
        "required": ["version", "activation_encodings", "param_encodings"],
        "properties": {
            "version": {"const": "1.0.0"},
            "activation_encodings": {"type": "array", "items": entry},
            "param_encodings": {"type": "array", "items": entry},
            "excluded_layers": {"type": "array"}
        },
        "additionalProperties": false
    })
}

#[test]
fn encodings_have_their_form_and_cover_or_list_every_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut quantize = program();
    quantize.args([
        "quantize",
        "builtin:milm-mini",
        "--rounding",
        "nearest",
        "--for=onnxruntime",
        "-o",
    ]);
    quantize.arg(path("package")).assert().success();
    for version in ["1.0.0", "2.0.0"] {
        let mut export = program();
        export.arg("export").arg(path("package")).args(["--to", "onnx", "--graph", "float"]);
        export.args(["--encodings", version, "-o"]).arg(path(version)).assert().success();
        let read = |file: &str| -> Value {
            serde_json::from_slice(&fs::read(path(version).join(file)).unwrap()).unwrap()
        };
        let (told, open) = (read("model.encodings"), read("model.encodings.uncovered.json"));
        assert_eq!(told["version"], version);
        let model = package::open(path("package").to_str().unwrap()).unwrap().model;
        let names = |list: &Value| -> Vec<String> {
            let entries = list.as_array().unwrap().iter();
            entries.map(|it| it["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let weights = if version == "1.0.0" {
            let validator = jsonschema::validator_for(&schema()).unwrap();
            assert!(validator.validate(&told).is_ok());
            let mut wrong = told.clone();
            wrong["param_encodings"][0]["bw"] = json!(5);
            assert!(validator.validate(&wrong).is_err());
            names(&told["param_encodings"])
        } else {
            names(&told["encodings"])
        };
        let weights: BTreeSet<&str> = weights.iter().map(String::as_str).collect();
        // The table is looked up; products see the head that is tied to it, a tensor of its own.
        let table = "model.embed_tokens.weight";
        let quantized =
            model.weights.quantized.keys().map(String::as_str).filter(|it| *it != table);
        let head =
            model.weights.quantized.contains_key(table).then_some("model.embed_tokens.weight.head");
        let wanted: BTreeSet<&str> = quantized.chain(head).collect();
        assert_eq!(weights, wanted, "every quantized weight");
        assert!(open["activations"].as_array().unwrap().len() > 100, "no static grids here");
        let listed = open["parameters"].as_array().unwrap();
        assert!(listed.contains(&json!("model.norm.weight")));
    }
}

#[test]
fn the_program_exports_evaluates_and_never_writes_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let export = |more: &[&str]| {
        let mut command = program();
        command.args(["export", "builtin:milm-mini", "--to", "onnx", "-o"]).arg(path("a"));
        command.args(more).assert()
    };
    export(&["--pre", "x"]).code(2);
    export(&["--encodings", "1.0.0"]).code(2).stderr(predicates::str::contains("--graph float"));
    export(&[]).success();
    export(&[]).code(2).stderr(predicates::str::contains("exists"));
    export(&["--force"]).success();
    let logits = |model: &str, out: &str| {
        let mut command = program();
        command.args(["logits", model, "--prompt", "Once upon a time", "-o"]).arg(path(out));
        command.assert().success();
        fs::read(path(out)).unwrap()
    };
    let folder = path("a");
    let plain = logits("builtin:milm-mini", "plain.safetensors");
    assert!(plain == logits(folder.to_str().unwrap(), "back.safetensors"));
}
