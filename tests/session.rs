//! A user of the library opens a model once: what it owns is worked out once and handed on.
use milm_compress::{
    calibrate::{self, CalibrationSet, Request},
    eval::{
        bench::{self, Asked, Bench, BenchError, Selection, Shard, TaskReport},
        task::{Data as _, Options, SAMPLE},
    },
    forward::Reference,
    linalg::Team,
    package::{self, Opened},
    pipeline::{Bases, Calibration, Quantize, fingerprint},
    progress::{Progress, Unit},
    quantize, transform,
};
use serde_json::json;
use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Remembers which work was begun.
#[derive(Default)]
struct Begun(Mutex<Vec<String>>);

impl Begun {
    fn count(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|it| *it == what).count()
    }
}

impl Progress for Begun {
    fn start(&self, what: &str, _: u64, _: Unit) {
        self.0.lock().unwrap().push(what.to_owned());
    }
    fn advance(&self, _: u64) {}
    fn finish(&self) {}
}

fn set(opened: &Opened, self_generate: bool, begun: &Begun) -> CalibrationSet {
    let settings = calibrate::Settings {
        calibration_samples: 2,
        calibration_tokens: Some(8),
        self_generate,
        ..calibrate::Settings::default()
    };
    let team = Team::new(2);
    Calibration { opened, settings: &settings, seed: 1, team: &team, progress: begun }
        .set(1)
        .unwrap()
}

#[test]
fn a_model_is_hashed_once_in_a_quantization() {
    let (opened, begun) = (package::open("builtin:milm-mini").unwrap(), Begun::default());
    let top = tempfile::tempdir().unwrap();
    let settings = quantize::Settings { scheme: "w8a16".into(), ..quantize::Settings::default() };
    // The package, and one to beat from the same model.
    for name in ["package", "yardstick"] {
        let set = set(&opened, false, &begun);
        assert_eq!((set.windows.len(), set.held_out.len()), (2, 1));
        let request = Request::default();
        let key = fingerprint(("mini", &opened), &set, &request, &begun).unwrap();
        assert_eq!(key.model_sha256, opened.model_sha256(&begun));
        assert_eq!(key.tokenizer_sha256, opened.tokenizer_sha256().unwrap());
        let plain = transform::Settings::default();
        let bases = Bases::of(&opened.model, &settings, &plain).unwrap();
        let quantize = Quantize {
            opened: &opened,
            settings: &settings.resolved(),
            bases: &bases,
            seed: 1,
            calibration: &set,
            source_sha256: &opened.source_sha256(&begun),
            key: &json!(key),
            recipe: &json!({ "step": [] }),
            team: &Team::new(2),
            progress: &begun,
        };
        let (_, summary) = quantize.write(&top.path().join(name), false, false).unwrap();
        assert_eq!(summary.source_sha256, opened.source_sha256(&begun));
    }
    assert_eq!(begun.count("hash"), 1);
    // Opened again, it is another model.
    package::open("builtin:milm-mini").unwrap().source_sha256(&begun);
    assert_eq!(begun.count("hash"), 2);
}

#[test]
fn a_model_writes_the_same_text_for_a_seed() {
    let (opened, begun) = (package::open("builtin:milm-mini").unwrap(), Begun::default());
    let [own, again] = [(); 2].map(|()| set(&opened, true, &begun));
    assert_eq!(own, again);
    assert!(own.fingerprint.self_generated && own.windows != set(&opened, false, &begun).windows);
    assert_eq!(begun.count("self-generate"), 2);
}

/// A task on data in a folder, with what it told.
fn run(
    opened: &Opened,
    (data, cache): (&Path, &Path),
    shard: Option<Shard>,
    begun: &Begun,
) -> Result<(TaskReport, Vec<(usize, usize)>), BenchError> {
    let told = RefCell::new(vec![]);
    let done = |it: &Asked<'_>| told.borrow_mut().push((it.items, it.remembered));
    let bench = Bench {
        offers: None,
        selection: &Selection {
            names: vec!["piqa".into()],
            data: Some(data.to_owned()),
            ..Selection::default()
        },
        options: &Options::default(),
        backend: (&Reference, "reference"),
        chat_template: false,
        batch: None,
        cache: Some(cache),
        shard,
        team: &Team::new(2),
        progress: begun,
        done: &done,
    };
    let answers = bench.run(opened, false)?;
    let report = TaskReport { shard, ..TaskReport::new("mini", answers.summaries) };
    if let Some(Shard { index, .. }) = shard {
        let place = |extension: &str| cache.join(format!("{index}.{extension}"));
        fs::write(place("json"), serde_json::to_vec(&report).unwrap()).unwrap();
        let lines = answers.records.iter().map(|it| serde_json::to_string(it).unwrap() + "\n");
        fs::write(place("jsonl"), lines.collect::<String>()).unwrap();
    }
    Ok((report, told.into_inner()))
}

#[test]
fn tasks_go_on_from_a_cache_and_parts_join_to_the_whole() {
    let (opened, begun) = (package::open("builtin:milm-mini").unwrap(), Begun::default());
    let [data, cache] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let dirs = (data.path(), cache.path());
    let missing = run(&opened, (&data.path().join("no"), cache.path()), None, &begun).unwrap_err();
    assert!(matches!(missing, BenchError::NoFolder { .. }), "{missing}");
    fs::create_dir(data.path().join("piqa")).unwrap();
    let file = SAMPLE.read("piqa/piqa.jsonl").unwrap().unwrap();
    fs::write(data.path().join("piqa/piqa.jsonl"), file).unwrap();

    let (whole, told) = run(&opened, dirs, None, &begun).unwrap();
    let items = told[0].0;
    assert_eq!((items, told[0].1), (whole.tasks[0].groups[0].items, 0));
    assert_eq!(run(&opened, dirs, None, &begun).unwrap(), (whole.clone(), vec![(items, items)]));
    assert_eq!(begun.count("hash"), 1, "the model is one");

    let part = |index| Some(Shard { index, of: 2 });
    let paths: Vec<PathBuf> =
        (1..3).map(|index| cache.path().join(format!("{index}.json"))).collect();
    for index in 1..3 {
        run(&opened, dirs, part(index), &begun).unwrap();
    }
    assert_eq!(bench::merge(&paths, &[]).unwrap().report, whole);
    let lost = bench::merge(&paths[..1], &[]).unwrap_err().to_string();
    assert!(lost.contains("part 2/2 is missing"), "{lost}");
}
