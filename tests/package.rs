//! `verify` finds every change of a package.
use milm_compress::{
    checkpoint::{
        OutputDir,
        synth::{Shape, Synth},
    },
    linalg::Team,
    package::{self, Job, Problem, Verification},
    progress::Silent,
    quantize::{Settings, TargetEngine},
    tensor::FloatType,
};
use std::{fs, path::Path};

fn made(target: &Path) {
    let opened = package::open("builtin:milm-mini").unwrap();
    let settings = Settings {
        shard_size: "1500KB".parse().unwrap(),
        engine: Some(TargetEngine::Milm),
        ..Settings::default()
    };
    let recipe = serde_json::to_value(&settings).unwrap();
    let team = Team::new(2);
    let job = Job {
        opened: &opened,
        settings: &settings,
        recipe: &recipe,
        team: &team,
        progress: &Silent,
    };
    job.write(target, false).unwrap();
}

fn verified(target: &Path) -> Verification {
    package::verify(target.to_str().unwrap(), &Team::new(1), &Silent).unwrap()
}

#[test]
fn any_flipped_bit_is_found() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    made(&target);
    assert!(verified(&target).passed());
    let files: Vec<_> = fs::read_dir(&target).unwrap().map(|it| it.unwrap().path()).collect();
    assert!(files.len() >= 8, "manifest, config, index, two shards, tokenizer files");
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let bytes = fs::read(&file).unwrap();
        // Some hundred places spread over the file, another bit each time; the ends too.
        let step = (bytes.len() / if name == "milm.json" { 300 } else { 12 }).max(1);
        let places = (0..bytes.len()).step_by(step).chain([bytes.len() - 1]);
        for (i, place) in places.enumerate() {
            let mut changed = bytes.clone();
            changed[place] ^= 1 << (i % 8);
            fs::write(&file, &changed).unwrap();
            assert!(!verified(&target).passed(), "{name}: bit {} of byte {place}", i % 8);
        }
        fs::write(&file, &bytes).unwrap();
    }
    assert!(verified(&target).passed());
}

#[test]
fn every_bit_of_a_small_part_of_the_manifest_matters() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    made(&target);
    let file = target.join("milm.json");
    let bytes = fs::read(&file).unwrap();
    for place in (0..120).chain(bytes.len() - 20..bytes.len()) {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[place] ^= 1 << bit;
            fs::write(&file, &changed).unwrap();
            let (manifest, problems) = (changed, verified(&target).problems);
            let shown = String::from_utf8_lossy(&manifest[place.saturating_sub(9)..=place]);
            assert!(!problems.is_empty(), "bit {bit} of byte {place}: {shown}");
        }
    }
}

#[test]
fn missing_and_extra_files_and_changed_tensors_are_named() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    made(&target);
    fs::write(target.join("notes.txt"), "x").unwrap();
    fs::create_dir(target.join("sub")).unwrap();
    fs::remove_file(target.join("generation_config.json")).unwrap();
    let shard = target.join("model-00001-of-00002.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&shard, bytes).unwrap();
    let problems = verified(&target).problems;
    let extra = |file: &str| Problem::Extra { file: file.into() };
    assert!(problems.contains(&extra("notes.txt")) && problems.contains(&extra("sub/")));
    assert!(problems.contains(&Problem::Missing { file: "generation_config.json".into() }));
    let changed = problems.iter().find_map(|it| match it {
        Problem::Changed { file, what } => Some((file.as_str(), what)),
        _ => None,
    });
    let (file, what) = changed.unwrap();
    assert_eq!((file, what.len()), ("model-00001-of-00002.safetensors", 1), "{problems:?}");
    assert!(what[0].starts_with("tensor `model."), "{what:?}");
    assert_eq!(problems.len(), 4);
}

#[test]
fn an_evaluation_is_added_under_the_seal() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    made(&target);
    let evaluation = serde_json::json!({ "ppl": 55.07, "kl_mean": 1e-5 });
    package::set_evaluation(target.to_str().unwrap(), evaluation.clone()).unwrap();
    assert!(verified(&target).passed());
    let opened = package::open(target.to_str().unwrap()).unwrap();
    assert_eq!(opened.manifest.unwrap().evaluation, Some(evaluation));
    assert!(package::verify("builtin:milm-mini", &Team::new(1), &Silent).is_err(), "no package");
}

/// Text can be tried on random checkpoints whose vocabulary has room for a tokenizer's.
#[test]
fn random_checkpoints_of_a_large_vocabulary_have_a_tokenizer() {
    let top = tempfile::tempdir().unwrap();
    let small = Shape::find("tiny").unwrap();
    for (vocab, has) in [(4095, false), (4096, true)] {
        let shape = Shape { vocab, ..*small };
        let (team, dtype) = (Team::new(1), FloatType::Bf16);
        let synth = Synth {
            shape: &shape,
            dtype,
            seed: 0,
            shard_bytes: 1 << 30,
            team: &team,
            progress: &Silent,
        };
        let target = top.path().join(vocab.to_string());
        let output = OutputDir::create(&target, false).unwrap();
        synth.write(&shape.spec().unwrap(), &output).unwrap();
        output.commit().unwrap();
        let opened = package::open(target.to_str().unwrap()).unwrap();
        let ids = opened.tokenizer().ok().map(|it| it.encode("Hello, world", true).unwrap());
        assert_eq!(ids.is_some(), has, "{vocab}");
    }
}

#[test]
fn random_checkpoints_are_the_same_at_any_number_of_threads() {
    let top = tempfile::tempdir().unwrap();
    let made = |name: &str, shape: &str, threads, seed| {
        let shape = Shape::find(shape).unwrap();
        let team = Team::new(threads);
        let dtype = FloatType::Bf16;
        let synth =
            Synth { shape, dtype, seed, shard_bytes: 300_000, team: &team, progress: &Silent };
        let target = top.path().join(name);
        let output = OutputDir::create(&target, false).unwrap();
        synth.write(&shape.spec().unwrap(), &output).unwrap();
        output.commit().unwrap();
        target
    };
    let same = |a: &Path, b: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(a).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert!(names.len() > 3, "several shards");
        names.iter().all(|name| fs::read(a.join(name)).unwrap() == fs::read(b.join(name)).unwrap())
    };
    for shape in ["tiny", "tiny-x4"] {
        let name = |suffix: &str| format!("{shape}{suffix}");
        let one = made(&name("-1"), shape, 1, 5);
        assert!(same(&one, &made(&name("-3"), shape, 3, 5)));
        assert!(!same(&one, &made(&name("-seed"), shape, 1, 6)), "another seed, other weights");
        let opened = package::open(one.to_str().unwrap()).unwrap();
        let name = "model.layers.1.self_attn.q_proj.weight";
        let q = opened.model.weights.get(name).unwrap().to_f32();
        let square = q.iter().map(|x| x * x).sum::<f32>() / q.len() as f32;
        // Variance 1/128; over 16384 weights its estimate errs by 1.1 % (one standard deviation).
        assert!((square * 128.0 - 1.0).abs() < 0.05, "{square}");
    }
}
