//! What a `config.json` means whose keys are absent, null, old, nested or at odds, beside
//! transformers (tests/golden/config-rows).
use crate::{gguf::export, util};
use milm_compress::{
    forward,
    forward::Reference,
    linalg::Team,
    model::{Block, Model, ModelSpec, Rope, WeightStore, family},
    package::{self, Job, gguf::ExportOptions},
    progress::Silent,
    quantize::{GroupSize, Method, Settings},
    tensor::FloatType,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// A row of the table.
#[derive(Clone, serde::Deserialize)]
struct Row {
    base: String,
    #[serde(rename = "row")]
    name: String,
    remove: Vec<String>,
    set: serde_json::Map<String, Value>,
    #[serde(default)]
    ours: Option<String>,
    #[serde(default)]
    logits: Vec<f32>,
    #[serde(default)]
    windows: Vec<Option<usize>>,
    #[serde(default)]
    eps: f64,
    #[serde(default)]
    theta: f64,
    #[serde(default)]
    positions: usize,
}

struct Base {
    config: Value,
    weights: WeightStore,
    ids: Vec<u32>,
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(util::golden().join("config-rows/rows.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn bases(rows: &[Row]) -> BTreeMap<String, Base> {
    let open = |name: &String| {
        let folder = util::golden().join(name);
        let config = fs::read(folder.join("config.json")).unwrap();
        let ids = util::tensors(&folder.join("golden.safetensors"))["input_ids"].clone();
        let ids = ids.bytes.as_chunks::<8>().0.iter().take(48);
        let ids = ids.map(|b| i64::from_le_bytes(*b) as u32).collect();
        let config = serde_json::from_slice(&config).unwrap();
        (name.clone(), Base { config, weights: util::open(&folder).weights, ids })
    };
    rows.iter().map(|row| &row.base).map(open).collect()
}

impl Row {
    fn config(&self, base: &Base) -> Value {
        let mut keys = base.config.as_object().unwrap().clone();
        keys.retain(|key, _| !self.remove.contains(key));
        keys.extend(self.set.clone());
        Value::Object(keys)
    }

    fn is_refused(&self) -> bool {
        self.logits.is_empty() || self.ours.as_ref().is_some_and(|it| it.starts_with("refused"))
    }
}

/// The logits of the table: tokens 0, 16, … 112 at positions 24 and 47.
fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let all = forward::logits(model, &Reference, ids, &Team::new(1)).unwrap();
    let at =
        |position: usize| all.row(position).into_iter().step_by(16).copied().collect::<Vec<_>>();
    [at(24), at(47)].concat()
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    let largest = a.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
    a.iter().zip(b).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

/// What a row has wrong, if anything.
fn fault(row: &Row, base: &Base) -> Option<String> {
    let model = match Model::new(row.config(base), base.weights.clone()) {
        Ok(_) if row.is_refused() => return Some("is taken".into()),
        Ok(model) => model,
        Err(_) if row.is_refused() => return None,
        Err(error) => return Some(error.to_string()),
    };
    let spec = &model.spec;
    let windows: Vec<_> = spec.blocks.iter().map(|block| block.window).collect();
    let differs = furthest(&row.logits, &logits(&model, &base.ids));
    let settings = (windows, spec.norm_eps, spec.rope.theta, spec.max_positions);
    let wanted = (row.windows.clone(), row.eps as f32, row.theta, row.positions);
    let fits = differs < 1e-4 && settings == wanted;
    (!fits).then(|| format!("logits differ by {differs}, {settings:?} for {wanted:?}"))
}

#[test]
fn every_form_of_a_config_is_read_as_transformers_reads_it_or_refused() {
    let rows = rows();
    assert!(rows.len() > 800, "{}", rows.len());
    let bases = bases(&rows);
    let faults: Vec<String> = rows
        .iter()
        .filter_map(|row| Some(format!("{}: {}", row.name, fault(row, &bases[&row.base])?)))
        .collect();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), rows.len(), faults.join("\n"));
}

/// The models of the rows, one of each architecture.
fn models(rows: &[Row], bases: &BTreeMap<String, Base>) -> Vec<(String, Model, String)> {
    let mut seen = BTreeSet::new();
    let fine = rows.iter().filter(|row| !row.is_refused());
    let models = fine.map(|row| {
        let base = &bases[&row.base];
        let model = Model::new(row.config(base), base.weights.clone()).unwrap();
        (row.name.clone(), model, row.base.clone())
    });
    models
        .filter(|(_, model, base)| seen.insert(format!("{base} {:?}", essence(&model.spec))))
        .collect()
}

fn essence(spec: &ModelSpec) -> (&[Block], &Rope, f32, usize, bool, usize) {
    (&spec.blocks, &spec.rope, spec.norm_eps, spec.max_positions, spec.tied, spec.tensors.len())
}

/// Other engines have defaults of their own.
#[test]
fn what_leaves_says_what_was_left_out() {
    let rows = rows();
    let bases = bases(&rows);
    for row in rows.iter().filter(|row| !row.is_refused()) {
        let base = &bases[&row.base];
        let config = Model::new(row.config(base), base.weights.clone()).unwrap().config;
        assert_eq!(family::complete(&config).unwrap().1, config, "{}", row.name);
        let said = |key: &str| config.get(key).is_some_and(|it| !it.is_null());
        for key in [
            "architectures",
            "model_type",
            "rms_norm_eps",
            "max_position_embeddings",
            "num_key_value_heads",
            "tie_word_embeddings",
        ] {
            assert!(said(key), "{}: {key}", row.name);
        }
        let nested =
            ["rope_scaling", "rope_parameters"].map(|key| config[key]["rope_theta"].is_number());
        assert!(said("rope_theta") || nested.contains(&true), "{}", row.name);
        let windows = row.windows.iter().flatten().count();
        if windows > 0 {
            assert!(said("sliding_window"), "{}", row.name);
        }
        if windows > 0 && windows < row.windows.len() {
            assert!(said("layer_types"), "{}", row.name);
        }
    }
}

#[test]
fn packages_of_every_row_are_read_as_the_row_was() {
    let rows = rows();
    let bases = bases(&rows);
    let models = models(&rows, &bases);
    assert!(models.len() > 150, "{}", models.len());
    let settings = Settings {
        method: Some(Method::Minmax),
        group_size: Some(GroupSize::Of(16)),
        ..Settings::default()
    };
    let (team, recipe) = (Team::new(2), Value::Null);
    for (name, model, base) in models {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        let mut opened = package::open(util::golden().join(base).to_str().unwrap()).unwrap();
        opened.model = model;
        let job = Job {
            opened: &opened,
            settings: &settings,
            recipe: &recipe,
            team: &team,
            progress: &Silent,
        };
        job.write(&target, false).unwrap();
        let got = package::open(target.to_str().unwrap()).unwrap().model;
        assert_eq!(essence(&got.spec), essence(&opened.model.spec), "{name}");
    }
}

#[test]
fn ggufs_of_every_row_are_read_as_the_row_was() {
    let rows = rows();
    let bases = bases(&rows);
    let top = tempfile::tempdir().unwrap();
    let (mut written, mut refused) = (0, 0);
    for (i, (name, model, base)) in models(&rows, &bases).into_iter().enumerate() {
        let file = top.path().join(format!("{i}.gguf"));
        if export::write(&model, &file, ExportOptions::default()).is_err() {
            refused += 1;
            continue;
        }
        written += 1;
        let (_folder, opened) = export::read(&file, FloatType::F32);
        let (got, want) = (&opened.model.spec, &model.spec);
        assert_eq!(
            (got.norm_eps, got.max_positions),
            (want.norm_eps, want.max_positions),
            "{name}"
        );
        let windows = |spec: &ModelSpec| spec.blocks.iter().map(|it| it.window).collect::<Vec<_>>();
        assert_eq!(windows(got), windows(want), "{name}");
        let ids = &bases[&base].ids;
        let found = furthest(&logits(&model, ids), &logits(&opened.model, ids));
        // Factors of frequencies are float32 in the file.
        assert!(found < 1e-3, "{name}: {found}");
        fs::remove_file(&file).unwrap();
    }
    assert!(written > 100, "{written} written, {refused} refused");
}

/// The twin: with a default of another family, rows of the table do not hold.
#[test]
fn a_wrong_default_is_seen() {
    let rows = rows();
    let bases = bases(&rows);
    for (name, key, wrong) in [
        ("mixtral: no rope key at all", "rope_theta", json!(10_000.0)),
        ("mixtral: rms_norm_eps absent", "rms_norm_eps", json!(1e-6)),
        ("mistral: no key of a window", "sliding_window", Value::Null),
        (
            "llama: yarn, original positions at the top",
            "original_max_position_embeddings",
            json!(256),
        ),
        (
            "qwen2-moe: window, max_window_layers 1",
            "layer_types",
            json!(["full_attention", "sliding_attention", "sliding_attention"]),
        ),
        ("qwen2: max_position_embeddings absent", "max_position_embeddings", json!(2048)),
    ] {
        let mut row = rows.iter().find(|it| it.name == name).cloned().unwrap();
        assert_eq!(fault(&row, &bases[&row.base]), None, "{name}");
        row.set.insert(key.to_owned(), wrong);
        assert!(fault(&row, &bases[&row.base]).is_some(), "{name}");
    }
}
