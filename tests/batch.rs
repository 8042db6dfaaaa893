//! Texts written together are the texts written alone.
use crate::{cli::program, decode, util};
use milm_compress::{
    forward::{Backend, Reference},
    linalg::Team,
    model::Model,
    package,
    progress::Silent,
    runtime::{
        Draft, Engine, GenerateError, GenerateSettings, Generated, Job, Kernels, Lookup, Offers,
        Plain, SamplingSettings, Scripted, Sequence, Speculation, generate, generate_all,
        generate_all_with, measure_offers, width,
    },
    scheme::KvPrecision,
};

fn ids(first: u32, count: u32) -> Vec<u32> {
    (0..count).map(|i| 3 + (first * 11 + i * 37) % 120).collect()
}

/// Logits of three texts after each of four tokens, read in steps and alone.
fn steps(model: &Model, backend: &dyn Backend, threads: usize) -> [Vec<Vec<u32>>; 2] {
    let team = Team::new(threads);
    let mut engine = Engine::load(model, backend, &team, &Silent).unwrap();
    let prompts = [ids(0, 9), ids(1, 1), ids(2, 14), ids(3, 5), ids(4, 6)];
    let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    let mut alone = Vec::new();
    for prompt in &prompts {
        engine.truncate(0);
        engine.feed(prompt).unwrap();
        alone.extend((0..4).map(|step| bits(engine.feed(&[7 + step]).unwrap())));
    }
    let mut sequences: Vec<Sequence> = prompts.iter().map(|_| engine.sequence()).collect();
    for (sequence, prompt) in sequences.iter_mut().zip(&prompts) {
        engine.feed_to(sequence, prompt).unwrap();
    }
    let mut together = vec![vec![]; alone.len()];
    for step in 0..4 {
        let id = [7 + step as u32];
        let texts = sequences.iter_mut().map(|it| (it, id.as_slice())).collect();
        let logits = engine.step(texts).unwrap();
        for (text, row) in logits.outer_iter().enumerate() {
            together[text * 4 + step] = bits(row.to_slice().unwrap());
        }
    }
    [alone, together]
}

#[test]
fn a_step_has_the_bits_of_each_text_alone() {
    for name in util::MODELS {
        for kv_cache in [KvPrecision::Float, KvPrecision::Int8] {
            let mut model = util::open(&util::golden().join(name));
            model.spec.kv_cache = kv_cache;
            for backend in [&Reference as &dyn Backend, &Kernels::new()] {
                let [alone, together] = steps(&model, backend, 2);
                assert!(alone == together, "{name} {kv_cache:?}");
                assert_ne!(alone[0], alone[4], "{name}, the twin: other texts, other logits");
            }
        }
    }
}

/// Everything that is written behind some prompts, in their order.
fn all(
    opened: &package::Opened,
    jobs: &[Job],
    (at_once, threads): (usize, usize),
) -> Vec<Generated> {
    let (team, tokenizer) = (Team::new(threads), opened.tokenizer().unwrap());
    let mut engine = Engine::load(&opened.model, &Kernels::new(), &team, &Silent).unwrap();
    let mut texts = vec![None; jobs.len()];
    let mut keep = |place: usize, text| -> Result<(), GenerateError> {
        assert!(texts[place].replace(text).is_none(), "each text comes once");
        Ok(())
    };
    generate_all(&mut engine, tokenizer, jobs, at_once, &mut keep).unwrap();
    texts.into_iter().map(|text| text.expect("every text comes")).collect()
}

fn alone(opened: &package::Opened, job: &Job) -> Generated {
    let (team, tokenizer) = (Team::new(2), opened.tokenizer().unwrap());
    let mut engine = Engine::load(&opened.model, &Kernels::new(), &team, &Silent).unwrap();
    let mut go_on = |_: &str| true;
    generate(&mut engine, tokenizer, &job.prompt, &job.settings, &mut go_on).unwrap()
}

/// Prompts of all lengths, two of which share more than a part of the prompt that is read at once.
fn jobs(opened: &package::Opened) -> Vec<Job> {
    let tokenizer = opened.tokenizer().unwrap();
    let long = "The number of the green box is 7. Some boats lay in the harbour. ".repeat(40);
    let texts = [
        "Once upon a time".to_owned(),
        "A list of three animals: a cat,".to_owned(),
        format!("{long} What is its number?"),
        "从前有一座山".to_owned(),
        format!("{long} Who owns it?"),
        "Water".to_owned(),
        format!("{long} What is its number?"),
    ];
    let job = |(i, text): (usize, &String)| {
        let prompt = tokenizer.encode(text, true).unwrap();
        let sampling = match i {
            5 => SamplingSettings { temperature: 0.8, seed: 3, ..SamplingSettings::default() },
            _ => SamplingSettings::default(),
        };
        let settings = GenerateSettings {
            max_tokens: [12, 3, 0, 20, 7, 9, 5][i],
            stop: vec!["\n\n".into()],
            sampling,
            ..GenerateSettings::default()
        };
        Job { prompt, settings }
    };
    texts.iter().enumerate().map(job).collect()
}

#[test]
fn texts_do_not_depend_on_their_neighbours() {
    let top = tempfile::tempdir().unwrap();
    let quantized = |name: &str, flags: &[&str]| {
        let target = top.path().join(name);
        let mut command = program();
        command.args(["quantize", "builtin:milm-mini", "--for=milm", "--rounding=nearest", "-o"]);
        command.arg(&target).args(flags).assert().success();
        target.to_str().unwrap().to_owned()
    };
    let models = [
        "builtin:milm-mini".to_owned(),
        quantized("w4a16", &["--scheme", "w4a16", "--group-size", "32"]),
        quantized("w8a8", &["--scheme", "w8a8", "--kv-cache", "int8"]),
    ];
    for name in &models {
        let opened = package::open(name).unwrap();
        let jobs = jobs(&opened);
        assert!(jobs[2].prompt.len() > 520, "longer than a part: {}", jobs[2].prompt.len());
        let want: Vec<Generated> = jobs.iter().map(|job| alone(&opened, job)).collect();
        for by in [(1, 1), (2, 3), (3, 2), (16, 2)] {
            assert_eq!(all(&opened, &jobs, by), want, "{name}: {by:?}");
        }
        let mut other = jobs.clone();
        other[3].prompt = other[1].prompt.clone();
        let got = all(&opened, &other, (3, 2));
        assert_ne!(got[3].text, want[3].text, "{name}, the twin: another prompt, another text");
        assert_eq!(got[4], want[4], "{name}: what stands beside it changes nothing");
    }
}

#[test]
fn what_cannot_be_written_is_an_error_and_ends_all() {
    let opened = package::open("builtin:milm-mini").unwrap();
    let (team, tokenizer) = (Team::new(1), opened.tokenizer().unwrap());
    let mut engine = Engine::load(&opened.model, &Kernels::new(), &team, &Silent).unwrap();
    let settings = GenerateSettings { max_tokens: 2, ..GenerateSettings::default() };
    let empty = Job { prompt: vec![], settings: settings.clone() };
    let fine = Job { prompt: vec![5], settings };
    let mut ended = 0;
    let mut keep = |_: usize, _| -> Result<(), GenerateError> {
        ended += 1;
        Ok(())
    };
    let none: Result<(), GenerateError> = generate_all(&mut engine, tokenizer, &[], 4, &mut keep);
    assert!(none.is_ok());
    let jobs = [fine.clone(), empty, fine];
    let wrong = generate_all(&mut engine, tokenizer, &jobs, 1, &mut keep);
    assert!(matches!(wrong, Err(GenerateError::EmptyPrompt)));
    assert_eq!(ended, 1, "the first ended before");
}

#[test]
fn keys_and_values_stay_within_their_budget() {
    let opened = package::open("builtin:milm-mini").unwrap();
    let team = Team::new(1);
    let engine = Engine::load(&opened.model, &Kernels::new(), &team, &Silent).unwrap();
    let one = engine.bytes_of(100);
    let of = |block: &milm_compress::model::Block| 2 * block.kv_heads * block.head_dim * 4;
    assert_eq!(one, 100 * opened.model.spec.blocks.iter().map(of).sum::<usize>());
    assert_eq!(
        [0, one - 1, one, 5 * one, 5 * one - 1].map(|it| width(&engine, 100, it)),
        [1, 1, 1, 5, 4]
    );
    assert_eq!(width(&engine, 100, 1000 * one), 16);
}

/// Texts of a golden model, of which some begin alike.
fn small_jobs() -> Vec<Job> {
    let job = |i: u32| {
        let sampling = SamplingSettings {
            temperature: if i.is_multiple_of(2) { 0.0 } else { 0.9 },
            seed: i.into(),
            ..SamplingSettings::default()
        };
        let max_tokens = [24, 0, 40, 1, 17, 33][i as usize];
        let settings = GenerateSettings { max_tokens, sampling, ..GenerateSettings::default() };
        Job { prompt: ids(i / 2, 6 + 5 * i), settings }
    };
    (0..6).map(job).collect()
}

#[test]
fn texts_do_not_depend_on_what_each_is_offered() {
    let model = util::open(&util::golden().join("llama"));
    let (team, tokenizer, jobs) = (Team::new(1), decode::tokenizer(4000), small_jobs());
    let load = || Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
    let write = |offers: &mut Offers<'_>, width: usize| {
        let mut texts = vec![None; jobs.len()];
        let mut keep = |place: usize, text: Generated| -> Result<(), GenerateError> {
            assert!(texts[place].replace(text).is_none(), "each text comes once");
            Ok(())
        };
        let with = (&mut load(), offers);
        generate_all_with(with, &tokenizer, &jobs, width, &mut keep).unwrap();
        texts.into_iter().map(Option::unwrap).collect::<Vec<_>>()
    };
    let want = write(&mut Offers::new(|| Box::new(Plain), 0), 1);
    let draft = Draft::new(load(), 128);
    for width in [1, 2, 6] {
        for paced in [false, true] {
            let lookups = Offers::new(|| Box::new(Lookup), 3);
            let drafts = Offers::new(|| Box::new(draft.another()), 2);
            for (offers, itself) in [(lookups, false), (drafts, true)] {
                let mut offers = if paced { offers.paced() } else { offers };
                assert_eq!(write(&mut offers, width), want, "{width} {paced} {itself}");
                let counts = offers.take_counts();
                let written: usize = want.iter().map(|it| it.ids.len()).sum();
                let begun = want.iter().filter(|it| !it.ids.is_empty()).count();
                assert_eq!(counts.passes + counts.accepted + begun, written);
                assert!(!itself || paced || counts.accepted > 30, "{counts:?}");
            }
        }
    }
}

#[test]
fn scripted_offers_are_measured_beside_plain_decoding() {
    let model = util::open(&util::golden().join("llama"));
    let (team, tokenizer) = (Team::new(1), decode::tokenizer(4000));
    let mut engine = Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
    for (share, accepted) in [(0.0, 0..1), (0.7, 30..100), (1.0, 60..61)] {
        let make = |text: &[u32]| Speculation::new(Scripted::new(text, share, 1), 3);
        let report = measure_offers(&mut engine, &tokenizer, &ids(0, 9), (41, 2), make).unwrap();
        assert!(report.same_text && report.written_tokens == 41, "{report:?}");
        assert_eq!(report.counts.passes + report.counts.accepted, 2 * 40, "of two rounds");
        assert!(accepted.contains(&report.counts.accepted), "{share}: {report:?}");
        assert!(report.ratio.median > 0.0);
    }
}
