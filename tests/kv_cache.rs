//! Keys and values on integer grids.
use crate::util;
use milm_compress::{
    forward::{self, Reference},
    linalg::Team,
    model::{Model, ModelSpec},
    package::{self, Job},
    progress::Silent,
    quantize::{Settings, TargetEngine},
    runtime::{Engine, Kernels},
    scheme::KvPrecision,
};
use ndarray::Array2;
use serde_json::{Value, json};
use std::path::Path;

const MODELS: [&str; 4] = ["llama", "mistral-sliding", "qwen3-moe", "llama-wide-heads"];

fn open(name: &str, precision: KvPrecision) -> Model {
    let mut model = util::open(&util::golden().join(name));
    model.spec.kv_cache = precision;
    model
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
}

fn ids(count: u32) -> Vec<u32> {
    (0..count).map(|i| 3 + (i * 37) % 120).collect()
}

fn logits(model: &Model, threads: usize) -> Array2<f32> {
    forward::logits(model, &Reference, &ids(40), &Team::new(threads)).unwrap()
}

/// Eight bits move logits less than four do, and both move them: attention reads what was rounded,
/// of the tokens of the same pass too.
#[test]
fn fewer_bits_cost_more() {
    // A router jumps from one expert to another, however little it is moved: dense models only.
    for name in MODELS.into_iter().filter(|name| !name.ends_with("moe")) {
        let float = logits(&open(name, KvPrecision::Float), 2);
        let int8 = logits(&open(name, KvPrecision::Int8), 2);
        let int4 = logits(&open(name, KvPrecision::Int4), 2);
        let squares = |a: &Array2<f32>| (a - &float).mapv(|x| x * x).sum();
        let (eight, four) = (squares(&int8), squares(&int4));
        // Steps of 1/127 and 2/15 of a head's largest number differ by a factor of about 17.
        assert!(eight > 0.0 && eight * 25.0 < four, "{name}: {eight} {four}");
    }
}

#[test]
fn threads_change_no_bit() {
    for precision in [KvPrecision::Int8, KvPrecision::Int4] {
        for name in MODELS {
            let model = open(name, precision);
            assert_eq!(logits(&model, 1), logits(&model, 3), "{name} {precision:?}");
        }
    }
}

/// Reading token by token gives what reading at once gives, but for numbers between two codes that
/// another order of sums moves to the other one: far less than what the rounding itself does.
#[test]
fn reading_token_by_token_reads_the_same_codes() {
    let (ids, team) = (ids(40), Team::new(2));
    let last = ids.len() - 1;
    for precision in [KvPrecision::Int8, KvPrecision::Int4] {
        for name in MODELS {
            let model = open(name, precision);
            let want = logits(&model, 2).row(last).to_vec();
            let float = logits(&open(name, KvPrecision::Float), 2).row(last).to_vec();
            let mut engine = Engine::load(&model, &Reference, &team, &Silent).unwrap();
            engine.feed(&ids[..30]).unwrap();
            engine.truncate(20);
            for id in &ids[20..last] {
                engine.feed(&[*id]).unwrap();
            }
            let got = engine.feed(&ids[last..]).unwrap();
            let (same, rounding) = (difference(&want, got), difference(&want, &float));
            assert!(same < 0.1 * rounding, "{name} {precision:?}: {same} {rounding}");
        }
    }
}

fn made(target: &Path, precision: KvPrecision) -> Value {
    let opened = package::open("builtin:milm-mini").unwrap();
    let settings =
        Settings { kv_cache: precision, engine: Some(TargetEngine::Milm), ..Settings::default() };
    let recipe = serde_json::to_value(&settings).unwrap();
    let team = Team::new(2);
    let job = Job {
        opened: &opened,
        settings: &settings,
        recipe: &recipe,
        team: &team,
        progress: &Silent,
    };
    let summary = job.write(target, false).unwrap();
    let said = summary.beyond_standard.iter().any(|it| it.contains("keys and values"));
    assert_eq!(said, precision != KvPrecision::Float);
    let config = std::fs::read_to_string(target.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    config["quantization_config"]["kv_cache_scheme"].clone()
}

#[test]
fn a_package_says_how_keys_and_values_are_held() {
    let top = tempfile::tempdir().unwrap();
    let mut last: Vec<Vec<f32>> = Vec::new();
    for precision in [KvPrecision::Float, KvPrecision::Int8, KvPrecision::Int4] {
        let target = top.path().join(precision.name());
        let scheme = made(&target, precision);
        match precision {
            KvPrecision::Float => assert_eq!(scheme, Value::Null),
            _ => assert_eq!(scheme["num_bits"].as_u64(), precision.bits().map(u64::from)),
        }
        let model = util::open(&target);
        assert_eq!(model.spec.kv_cache, precision);
        let team = Team::new(1);
        let mut engine = Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
        last.push(engine.feed(&ids(20)).unwrap().to_vec());
    }
    assert!(last[0] != last[1] && last[1] != last[2]);
}

#[test]
fn other_programs_schemes_are_left_and_unknown_widths_refused() {
    let config = |scheme: Value| {
        let mut config = open("llama", KvPrecision::Float).config;
        config["quantization_config"] = json!({ "kv_cache_scheme": scheme });
        ModelSpec::from_config(&config).map(|spec| spec.kv_cache)
    };
    let fp8 = json!({ "num_bits": 8, "type": "float", "dynamic": false });
    assert_eq!(config(fp8).unwrap(), KvPrecision::Float);
    let fixed = json!({ "num_bits": 8, "type": "int", "dynamic": false });
    assert_eq!(config(fixed).unwrap(), KvPrecision::Float);
    let int8 = json!({ "num_bits": 8, "type": "int", "dynamic": true, "symmetric": true });
    assert_eq!(config(int8).unwrap(), KvPrecision::Int8);
    let wrong = config(json!({ "num_bits": 5, "type": "int", "dynamic": true }));
    assert!(wrong.unwrap_err().to_string().contains("kv_cache_scheme"));
}

#[test]
fn bytes_per_token_by_hand() {
    let spec = |precision| {
        let opened = package::open("builtin:milm-mini").unwrap();
        let mut spec = opened.model.spec;
        spec.kv_cache = precision;
        spec
    };
    let float = spec(KvPrecision::Float);
    let heads: usize = float.blocks.iter().map(|block| 2 * block.kv_heads).sum();
    let width = float.blocks[0].head_dim;
    assert_eq!(float.kv_cache_bytes_per_token(), heads * width * 4);
    assert_eq!(spec(KvPrecision::Int8).kv_cache_bytes_per_token(), heads * (width + 2));
    let int4 = spec(KvPrecision::Int4).kv_cache_bytes_per_token();
    assert_eq!(int4, heads * (width / 2 + 3 * width.div_ceil(32)));
}
