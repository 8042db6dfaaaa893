//! Rotations change no logit.
use crate::{golden::difference, util};
use milm_compress::{
    forward,
    forward::Reference,
    linalg::Team,
    model::{Model, ModelSpec, Part, Role},
    package::gguf,
    progress::Silent,
    prune,
    runtime::{Engine, Kernels},
    tensor::RawTensor,
    transform::{Evidence, HeadForm, Rotate, Settings, TiedHead, Transform},
};
use serde_json::json;

const KINDS: [Rotate; 5] =
    [Rotate::Hadamard, Rotate::Random, Rotate::Pca, Rotate::Resq, Rotate::Learned];

fn open(name: &str) -> Model {
    util::open(&util::golden().join(name))
}

fn ids(model: &Model, count: u32, seed: u32) -> Vec<u32> {
    let vocab = model.spec.vocab as u32;
    (0..count).map(|i| (i * i * 7 + i * 3 + seed * 11) % vocab).collect()
}

fn evidence(model: &Model) -> Evidence {
    let windows = [ids(model, 24, 1), ids(model, 24, 2)];
    Evidence::collect(model, &windows, (&Team::new(2), &Silent)).unwrap()
}

fn transform(model: &Model, settings: &Settings) -> Transform {
    let evidence = settings.needs_evidence().then(|| evidence(model));
    Transform::new(model, settings, (7, 0.125), evidence.as_ref()).unwrap()
}

/// Largest difference of a logit over the largest logit.
fn off(before: &Model, after: &Model) -> f32 {
    let (team, ids) = (Team::new(2), ids(before, 20, 3));
    let run = |model: &Model| forward::logits(model, &Reference, &ids, &team).unwrap();
    let (want, got) = (run(before), run(after));
    let largest = want.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    want.iter().zip(&got).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

/// The same bound as of the float reference against transformers: float32 sums in another order
/// differ by about √width · 2⁻²⁴ of their size at each of some ten layers, and the logits of these
/// tiny models are about as large as their terms.
const SAME: f32 = 1e-4;

/// The correction of a tied head is stored in float16: each of its entries is off by up to 2⁻¹² of
/// itself, and so are the terms of a logit, which are about as large as the largest logit.
const NARROW: f32 = 1.0 / 2048.0;

#[test]
fn no_rotation_changes_the_logits_of_any_family() {
    for name in util::plain() {
        let model = open(name);
        for kind in KINDS {
            let settings = Settings { rotate: Some(kind), ..Settings::default() };
            let transform = transform(&model, &settings);
            let rotated = transform.apply(&model).unwrap();
            let found = off(&model, &rotated);
            let bound = if model.spec.tied { NARROW } else { SAME };
            assert!(found < bound, "{name} {kind:?}: {found}");
            // Weights did change.
            let query = rotated.spec.find(Some(0), Role::Q, None, Part::Weight).unwrap();
            let moved = |model: &Model| model.weights.get(&query.name).unwrap().to_f32();
            let (before, after) = (moved(&model), moved(&rotated));
            assert!(before.iter().zip(after).any(|(a, b)| (a - b).abs() > 1e-3), "{name} {kind:?}");
        }
    }
}

#[test]
fn rotations_at_run_time_change_no_logits_either() {
    for name in util::plain() {
        let model = open(name);
        for (down, keys) in [(true, false), (false, true), (true, true)] {
            let settings = Settings {
                rotate_down: Some(down),
                rotate_keys: Some(keys),
                ..Settings::default()
            };
            let transform = transform(&model, &settings);
            let rotated = transform.apply(&model).unwrap();
            let found = off(&model, &rotated);
            assert!(found < SAME, "{name} {down} {keys}: {found}");
            if down {
                // The twin: weights for a rotation that the forward pass does not do.
                let plain = Model::new(model.config.clone(), rotated.weights.clone()).unwrap();
                assert!(off(&model, &plain) > 1e-2, "{name}");
            }
        }
    }
}

#[test]
fn values_alone_and_blocks_change_no_logits() {
    let model = open("llama");
    let block = Some(model.spec.hidden / 2);
    let all = Settings {
        rotate: Some(Rotate::Hadamard),
        rotate_block: block,
        rotate_down: Some(true),
        rotate_keys: Some(true),
        ..Settings::default()
    };
    let values = Settings { rotate_values: Some(true), ..Settings::default() };
    let residual = Settings {
        rotate: Some(Rotate::Hadamard),
        rotate_values: Some(false),
        ..Settings::default()
    };
    for settings in [all, values, residual] {
        let found = off(&model, &transform(&model, &settings).apply(&model).unwrap());
        assert!(found < SAME, "{settings:?}: {found}");
    }
    let none = transform(&model, &Settings::default());
    assert_eq!(none.config(&model.config), model.config);
    let same = none.block(&model, 1).unwrap();
    for (name, raw) in same {
        assert_eq!(raw.to_f32(), Some(model.weights.get(&name).unwrap().to_f32()), "{name}");
    }
}

#[test]
fn a_tied_head_is_corrected_or_untied() {
    for name in ["llama-tied-bias", "qwen3-tied"] {
        let model = open(name);
        assert!(model.spec.tied);
        let mut forms = vec![];
        for tied in [TiedHead::Auto, TiedHead::Correction, TiedHead::Untie] {
            let settings = Settings {
                rotate: Some(Rotate::Hadamard),
                tied_head: Some(tied),
                ..Settings::default()
            };
            let transform = transform(&model, &settings);
            let rotated = transform.apply(&model).unwrap();
            let found = off(&model, &rotated);
            let corrected = transform.report().head == HeadForm::Corrected;
            let bound = if corrected { NARROW } else { SAME };
            assert!(found < bound, "{name} {tied:?}: {found}");
            forms.push(transform.report().head);
            let (parameters, added) = (rotated.spec.parameters(), transform.report().head_values);
            assert_eq!(parameters, model.spec.parameters() + added, "{name}");
            // What config.json says is what is read back.
            let again = ModelSpec::from_config(&rotated.config).unwrap();
            assert_eq!(again.transformed, rotated.spec.transformed);
        }
        assert_eq!(forms[1..], [HeadForm::Corrected, HeadForm::Untied]);
        let (hidden, vocab) = (model.spec.hidden, model.spec.vocab);
        assert_eq!(forms[0] == HeadForm::Corrected, 2 * hidden < vocab);
    }
    // The twin: without the correction the logits are others.
    let model = open("qwen3-tied");
    let corrected = Settings {
        rotate: Some(Rotate::Hadamard),
        tied_head: Some(TiedHead::Correction),
        ..Settings::default()
    };
    let rotated = transform(&model, &corrected).apply(&model).unwrap();
    let mut config = rotated.config.clone();
    config["milm_transform"]["head_correction"] = json!(false);
    let wrong = Model::new(config, rotated.weights).unwrap();
    assert!(off(&model, &wrong) > 1e-2);
}

/// Replaces a float tensor.
fn replace(model: &mut Model, name: &str, change: impl Fn(usize, f32) -> f32) {
    let raw = &model.weights.raw[name];
    let values: Vec<f32> =
        raw.to_f32().unwrap().into_iter().enumerate().map(|(i, x)| change(i, x)).collect();
    let raw = RawTensor::from_f32(raw.shape.clone(), &values);
    model.weights.raw.insert(name.to_owned(), raw);
}

/// The twins: what the order of the steps is for.
#[test]
fn gains_must_be_folded_and_embeddings_not_centered() {
    for name in ["llama", "qwen2", "mixtral"] {
        let model = open(name);
        let settings = Settings { rotate: Some(Rotate::Hadamard), ..Settings::default() };
        let mut rotated = transform(&model, &settings).apply(&model).unwrap();
        assert!(off(&model, &rotated) < SAME);
        // Gains that stay in the norms as well as in the matrices.
        let norm = model.spec.find(Some(0), Role::AttnNorm, None, Part::Weight).unwrap();
        let gain = model.weights.get(&norm.name).unwrap().to_f32();
        replace(&mut rotated, &norm.name, |i, _| gain[i]);
        assert!(off(&model, &rotated) > 1e-2, "{name}: gains");
        // The mean taken out of each row of the embedding, which LayerNorm would not notice.
        let mut centered = model.clone();
        let embed = model.spec.find(None, Role::Embed, None, Part::Weight).unwrap();
        let values = model.weights.get(&embed.name).unwrap().to_f32();
        let hidden = model.spec.hidden;
        let mean = |i: usize| {
            let row = i / hidden * hidden;
            values[row..row + hidden].iter().sum::<f32>() / hidden as f32
        };
        replace(&mut centered, &embed.name, |i, x| x - mean(i));
        assert!(off(&model, &centered) > 1e-2, "{name}: centering");
    }
}

#[test]
fn a_rotated_model_agrees_with_transformers() {
    let model = open("llama");
    let settings = Settings { rotate: Some(Rotate::Hadamard), ..Settings::default() };
    let rotated = transform(&model, &settings).apply(&model).unwrap();
    let golden = util::golden().join("llama/golden.safetensors");
    assert!(difference(&rotated, &golden) < SAME);
}

#[test]
fn seeds_decide_and_threads_do_not() {
    let model = open("llama");
    let settings = Settings { rotate: Some(Rotate::Random), ..Settings::default() };
    let with = |seed| Transform::new(&model, &settings, (seed, 0.125), None).unwrap();
    assert_eq!(with(1).report(), with(1).report());
    assert_ne!(with(1).report().residual, with(2).report().residual);
    assert_ne!(with(1).report().values, with(2).report().values);
    let bytes = |t: &Transform| t.block(&model, 0).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (one, many) = (pool.install(|| bytes(&with(1))), bytes(&with(1)));
    for (name, raw) in one {
        assert_eq!(*raw.bytes, *many[&name].bytes, "{name}");
    }
}

#[test]
fn what_cannot_be_rotated_is_told_before_work() {
    let model = open("llama");
    let hadamard = Settings { rotate: Some(Rotate::Hadamard), ..Settings::default() };
    let told = |model: &Model, settings: &Settings| {
        Transform::new(model, settings, (0, 0.125), None).unwrap_err().to_string()
    };
    let rotated = transform(&model, &hadamard).apply(&model).unwrap();
    assert!(told(&rotated, &hadamard).contains("rotated already"));
    let online = Settings { rotate_keys: Some(true), ..Settings::default() };
    assert!(told(&rotated, &online).contains("rotation `hadamard`"));
    let quantized = open("compressed-tensors");
    assert!(told(&quantized, &hadamard).contains("is quantized already"));
    let pca = Settings { rotate: Some(Rotate::Pca), ..Settings::default() };
    assert!(told(&model, &pca).contains("--rotate pca needs calibration"));
    let block = Settings { rotate_block: Some(7), ..hadamard };
    assert!(told(&model, &block).contains("found `7`"));
    let whole = Settings { rotate_block: Some(8), ..pca };
    assert!(told(&model, &whole).contains("kind `pca`"));
    let other = evidence(&open("llama-wide-heads"));
    let learned = Settings { rotate: Some(Rotate::Learned), ..Settings::default() };
    let wrong = Transform::new(&model, &learned, (0, 0.125), Some(&other)).unwrap_err();
    assert!(wrong.to_string().starts_with("calibration activations: "), "{wrong}");
    let mut broken = model.clone();
    let embed = model.spec.find(None, Role::Embed, None, Part::Weight).unwrap();
    let hidden = model.spec.hidden;
    replace(&mut broken, &embed.name, |i, x| if i == 3 * hidden + 2 { f32::NAN } else { x });
    let found = transform(&model, &hadamard).ends(&broken).unwrap_err().to_string();
    assert!(found.contains("row 3, column 2"), "{found}");
    let mut config = rotated.config;
    config["milm_transform"]["another"] = json!(true);
    assert!(ModelSpec::from_config(&config).unwrap_err().to_string().contains("milm_transform"));
}

#[test]
fn strong_directions_come_last() {
    let model = open("llama");
    let evidence = evidence(&model);
    let settings = Settings { rotate: Some(Rotate::Resq), ..Settings::default() };
    let transform = Transform::new(&model, &settings, (7, 0.125), Some(&evidence)).unwrap();
    let r = transform.residual().unwrap().matrix();
    let n = r.nrows();
    let last = milm_compress::transform::outlier_width(0.125, n);
    let energies = r.t().dot(&evidence.residual).dot(&r).diag().to_vec();
    let (low, high) = energies.split_at(n - last);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(high) > 2.0 * mean(low), "{} {}", mean(high), mean(low));
    // No direction of one part is correlated with one of the other.
    let turned = r.t().dot(&evidence.residual).dot(&r);
    let total: f64 = energies.iter().sum();
    for i in 0..n - last {
        for j in n - last..n {
            assert!(turned[[i, j]].abs() < 1e-9 * total);
        }
    }
}

#[test]
fn a_learned_rotation_fits_better_than_its_start() {
    let model = open("llama");
    let settings = Settings { rotate: Some(Rotate::Learned), ..Settings::default() };
    let transform = transform(&model, &settings);
    let learned = transform.report().learned.clone().unwrap();
    assert!(learned.steps > 0 && learned.after < learned.before, "{learned:?}");
}

#[test]
fn the_engine_with_its_cache_rotates_as_the_forward_pass() {
    for name in ["qwen3-tied", "qwen3-moe", "mistral-sliding"] {
        let model = open(name);
        let settings = Settings {
            rotate: Some(Rotate::Hadamard),
            rotate_down: Some(true),
            rotate_keys: Some(true),
            tied_head: Some(TiedHead::Correction),
            ..Settings::default()
        };
        let rotated = transform(&model, &settings).apply(&model).unwrap();
        let (team, ids) = (Team::new(2), ids(&model, 30, 5));
        let want = forward::logits(&model, &Reference, &ids, &team).unwrap();
        let want = want.row(ids.len() - 1);
        let mut engine = Engine::load(&rotated, &Kernels::new(), &team, &Silent).unwrap();
        engine.feed(&ids[..11]).unwrap();
        for id in &ids[11..29] {
            engine.feed(&[*id]).unwrap();
        }
        let got = engine.feed(&ids[29..]).unwrap();
        let largest = want.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        let found = want.iter().zip(got).fold(0.0_f32, |m, (w, g)| m.max((w - g).abs())) / largest;
        assert!(found < NARROW, "{name}: {found}");
    }
}

#[test]
fn formats_and_cuts_refuse_what_they_cannot_say() {
    let model = open("qwen3-tied");
    let fused = Settings {
        rotate: Some(Rotate::Hadamard),
        tied_head: Some(TiedHead::Untie),
        ..Settings::default()
    };
    let accepted = |settings: &Settings| {
        let rotated = transform(&model, settings).apply(&model).unwrap();
        let cut = prune::check_float(&rotated).map_err(|it| it.to_string());
        (gguf::accepts(&rotated.spec).map_err(|it| it.to_string()), cut)
    };
    let (format, cut) = accepted(&fused);
    assert!(format.is_ok() && cut.is_ok());
    let tied = Settings { tied_head: Some(TiedHead::Correction), ..fused };
    assert!(accepted(&tied).0.unwrap_err().contains("--tied-head untie"));
    let keys = Settings { rotate_keys: Some(true), ..fused };
    assert!(accepted(&keys).0.unwrap_err().contains("--rotate-keys"));
    let (format, cut) = accepted(&Settings { rotate_down: Some(true), ..fused });
    assert!(format.unwrap_err().contains("--rotate-down"));
    assert!(cut.unwrap_err().contains("prune the checkpoint first"));
}
