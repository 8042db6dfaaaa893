//! Rows that are verified, offers that are accepted: no bit of a text depends on them.
use crate::{cli::program, util};
use milm_compress::{
    checkpoint::BUILTINS,
    forward::{Backend, ForwardError, Head, Reference, Rows},
    linalg::Team,
    model::Model,
    package,
    progress::Silent,
    runtime::{
        Counts, Draft, Engine, GenerateSettings, Generated, Kernels, Lookup, Plain, Proposer,
        Sampler, SamplingSettings, Sequence, Speculation, States, StopReason, Wanted,
        generate_with, same_vocabulary,
    },
    scheme::KvPrecision,
    text::{TextFiles, Tokenizer},
};
use std::{cell::RefCell, collections::BTreeMap};

pub(crate) const KV: [KvPrecision; 3] = [KvPrecision::Float, KvPrecision::Int8, KvPrecision::Int4];

pub(crate) fn ids(first: u32, count: u32) -> Vec<u32> {
    (0..count).map(|i| 3 + (first * 11 + i * 37) % 120).collect()
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

/// Logits after each of `ids`, fed alone behind a prompt.
fn alone(engine: &mut Engine<'_>, prompt: &[u32], ids: &[u32]) -> Vec<Vec<u32>> {
    engine.truncate(0);
    engine.feed(prompt).unwrap();
    ids.iter().map(|id| bits(engine.feed(&[*id]).unwrap())).collect()
}

/// As [`alone`], read in passes of `rows` tokens with as many wrong ones behind, which are forgotten.
fn verified(
    engine: &mut Engine<'_>,
    prompt: &[u32],
    (ids, rows): (&[u32], usize),
) -> Vec<Vec<u32>> {
    engine.truncate(0);
    engine.feed(prompt).unwrap();
    let mut all = Vec::new();
    for part in ids.chunks(rows) {
        let wrong = vec![9; rows];
        let logits = engine.verify(&[part, wrong.as_slice()].concat()).unwrap();
        engine.truncate(engine.len() - wrong.len());
        all.extend(logits.outer_iter().take(part.len()).map(|row| bits(row.to_slice().unwrap())));
    }
    all
}

fn assert_verified(name: &str, model: &Model, backend: &dyn Backend) {
    let (prompt, ids) = (ids(0, 9), ids(1, 8));
    for threads in [1, 2] {
        let team = Team::new(threads);
        let mut engine = Engine::load(model, backend, &team, &Silent).unwrap();
        let want = alone(&mut engine, &prompt, &ids);
        for rows in [1, 2, 3, 8] {
            let got = verified(&mut engine, &prompt, (&ids, rows));
            assert!(got == want, "{name} {:?} {threads}: {rows}", model.spec.kv_cache);
        }
        let mut other = ids.clone();
        other[2] = 9;
        let got = verified(&mut engine, &prompt, (&other, 8));
        assert!(got[..2] == want[..2] && got[2..] != want[2..], "{name}, the twin: an other row");
    }
}

#[test]
fn verified_rows_have_the_bits_of_rows_alone() {
    for name in util::MODELS {
        for kv_cache in KV {
            let mut model = util::open(&util::golden().join(name));
            model.spec.kv_cache = kv_cache;
            assert_verified(name, &model, &Reference);
            assert_verified(name, &model, &Kernels::new());
        }
    }
}

#[test]
fn rows_of_several_texts_are_verified_together() {
    let mut model = util::open(&util::golden().join("llama"));
    for kv_cache in KV {
        model.spec.kv_cache = kv_cache;
        let team = Team::new(2);
        let mut engine = Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
        let texts = [(ids(0, 5), ids(4, 3)), (ids(1, 12), ids(5, 1)), (ids(2, 2), ids(6, 6))];
        let want: Vec<_> =
            texts.iter().flat_map(|(prompt, ids)| alone(&mut engine, prompt, ids)).collect();
        let mut sequences: Vec<Sequence> = texts.iter().map(|_| engine.sequence()).collect();
        for (sequence, (prompt, _)) in sequences.iter_mut().zip(&texts) {
            engine.feed_to(sequence, prompt).unwrap();
        }
        let rows = sequences.iter_mut().zip(texts.iter().map(|(_, ids)| ids.as_slice()));
        let got = engine.step(rows.collect()).unwrap();
        let got: Vec<_> = got.outer_iter().map(|row| bits(row.to_slice().unwrap())).collect();
        assert!(got == want, "{kv_cache:?}");
        let lengths: Vec<usize> = sequences.iter().map(Sequence::len).collect();
        assert_eq!(lengths, [8, 13, 8]);
    }
}

#[test]
fn rows_of_packages_are_verified_with_their_bits() {
    let top = tempfile::tempdir().unwrap();
    for (name, flags) in [
        ("w4a16", ["--scheme=w4a16", "--group-size=32"]),
        ("w8a8", ["--scheme=w8a8", "--kv-cache=int8"]),
        ("w4a8", ["--scheme=w4a8", "--kv-cache=int4"]),
    ] {
        let target = top.path().join(name);
        let mut command = program();
        command.args(["quantize", "builtin:milm-mini", "--for=milm", "--rounding=nearest", "-o"]);
        command.arg(&target).args(flags).assert().success();
        let model = util::open(&target);
        assert_verified(name, &model, &Kernels::new());
    }
}

/// The carried tokenizer, with another token that ends a text. Golden models take its first 128 ids.
pub(crate) fn tokenizer(eos: u32) -> Tokenizer {
    let mini = BUILTINS.iter().find(|it| it.name == "milm-mini").unwrap();
    let file = mini.files.iter().find(|(file, _)| *file == "tokenizer.json").unwrap().1;
    let generation = format!("{{\"eos_token_id\": {eos}}}");
    Tokenizer::new(&TextFiles {
        tokenizer: file,
        generation_config: Some(&generation),
        ..Default::default()
    })
    .unwrap()
}

/// Offers the text that comes, with a wrong token where `wrong` says so.
struct Oracle {
    text: Vec<u32>,
    wrong: fn(usize) -> bool,
}

impl Proposer for Oracle {
    fn offer(&mut self, text: &[u32], most: usize) -> Result<Vec<u32>, ForwardError> {
        let to = self.text.len().min(text.len() + most);
        let offer = |at| if (self.wrong)(at) { (self.text[at] + 1) % 128 } else { self.text[at] };
        Ok((text.len()..to).map(offer).collect())
    }
}

const PROMPT: u32 = 12;

/// Offers as an oracle does, and keeps the states that it is shown, by their places.
struct Witness<'a> {
    oracle: Oracle,
    wants: Wanted,
    seen: &'a RefCell<BTreeMap<usize, Vec<u32>>>,
}

impl Proposer for Witness<'_> {
    fn wants(&self) -> Wanted {
        self.wants
    }

    fn see(&mut self, states: States) {
        let mut seen = self.seen.borrow_mut();
        seen.retain(|place, _| *place < states.first());
        let rows = states.rows();
        let rows = rows.outer_iter().map(|row| bits(row.to_slice().unwrap()));
        seen.extend((states.first()..).zip(rows));
    }

    fn offer(&mut self, text: &[u32], most: usize) -> Result<Vec<u32>, ForwardError> {
        self.oracle.offer(text, most)
    }
}

#[test]
fn proposers_see_what_the_head_multiplies_of_the_rows_that_stay() {
    let (model, team) = (util::open(&util::golden().join("llama")), Team::new(2));
    let settings = GenerateSettings { max_tokens: 40, ..Default::default() };
    let want = plain(&model, &settings, 4000, 99);
    let text = [ids(0, PROMPT), want.0.ids.clone()].concat();
    // Each row by itself, and what follows it.
    let mut engine = Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
    engine.keep_states(Wanted::All);
    engine.feed(&text[..PROMPT as usize]).unwrap();
    for id in &text[PROMPT as usize..text.len() - 1] {
        engine.feed(&[*id]).unwrap();
    }
    let states = engine.take_states();
    let head = Head::load(&model, &Kernels::new()).unwrap();
    let logits = head.read(states.rows(), (&team, Rows::Apart));
    assert_eq!((states.first(), logits.nrows()), (0, text.len() - 1));
    let behind = logits.outer_iter().skip(PROMPT as usize - 1);
    for (next, row) in text[PROMPT as usize..].iter().zip(behind) {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        assert_eq!(best as u32, *next, "the head makes the text of them");
    }
    let rows: Vec<_> = states.rows().outer_iter().map(|it| bits(it.to_slice().unwrap())).collect();
    for (wants, first) in [(Wanted::All, 0), (Wanted::Last, PROMPT as usize - 1)] {
        for wrong in [|_| false, |at| at % 3 == 0, |_| true] as [fn(usize) -> bool; 3] {
            let seen = RefCell::default();
            let witness = Witness { oracle: oracle(&want, wrong), wants, seen: &seen };
            let got = write((&model, 2), &settings, 4000, &mut Speculation::new(witness, 4), 99);
            assert_eq!(got.0, want.0);
            let places: Vec<usize> = seen.borrow().keys().copied().collect();
            assert_eq!(places, (first..got.2).collect::<Vec<_>>(), "{wants:?}: those that stay");
            assert!(seen.borrow().iter().all(|(place, row)| *row == rows[*place]), "{wants:?}");
        }
    }
    let seen = RefCell::default();
    let witness = Witness { oracle: oracle(&want, |_| false), wants: Wanted::Nothing, seen: &seen };
    write((&model, 2), &settings, 4000, &mut Speculation::new(witness, 4), 99);
    assert!(seen.borrow().is_empty(), "nobody asked");
}

/// The text, its pieces, the tokens that were read, and what came of offers.
pub(crate) type Written = (Generated, Vec<String>, usize, Counts);

pub(crate) fn write(
    (model, threads): (&Model, usize),
    settings: &GenerateSettings,
    eos: u32,
    speculation: &mut Speculation<'_>,
    pieces: usize,
) -> Written {
    let (team, mut got) = (Team::new(threads), Vec::new());
    let mut engine = Engine::load(model, &Kernels::new(), &team, &Silent).unwrap();
    let mut receive = |piece: &str| {
        got.push(piece.to_owned());
        got.len() < pieces
    };
    let model = (&mut engine as _, &mut *speculation);
    let prompt = ids(0, PROMPT);
    let done = generate_with(model, &tokenizer(eos), &prompt, settings, &mut receive).unwrap();
    (done, got, engine.len(), speculation.take_counts())
}

pub(crate) fn plain(
    model: &Model,
    settings: &GenerateSettings,
    eos: u32,
    pieces: usize,
) -> Written {
    write((model, 1), settings, eos, &mut Speculation::new(Plain, 3), pieces)
}

fn oracle(written: &Written, wrong: fn(usize) -> bool) -> Oracle {
    Oracle { text: [ids(0, PROMPT), written.0.ids.clone()].concat(), wrong }
}

/// How tokens are drawn: best, and with all that changes the draw.
pub(crate) fn samplings() -> Vec<SamplingSettings> {
    let plain = SamplingSettings::default();
    let warm = SamplingSettings { temperature: 0.9, ..plain };
    vec![
        plain.clone(),
        SamplingSettings { repetition_penalty: 1.3, ..plain },
        SamplingSettings { seed: 1, ..warm.clone() },
        SamplingSettings { seed: 2, temperature: 0.4, ..warm.clone() },
        SamplingSettings { seed: 3, top_k: 20, top_p: 0.9, min_p: 0.02, ..warm.clone() },
        SamplingSettings { seed: 4, repetition_penalty: 1.5, ..warm },
    ]
}

#[test]
fn every_proposer_leaves_the_text_as_it_is() {
    let (mut model, team) = (util::open(&util::golden().join("llama")), Team::new(1));
    for (kv_cache, threads) in KV.into_iter().zip([2, 1, 2]) {
        model.spec.kv_cache = kv_cache;
        for sampling in samplings() {
            let settings = GenerateSettings { max_tokens: 40, sampling, ..Default::default() };
            let want = plain(&model, &settings, 4000, 99);
            assert_eq!((want.3.passes, want.3.accepted), (39, 0));
            let go = |name: &str, mut speculation: Speculation<'_>| {
                let got = write((&model, threads), &settings, 4000, &mut speculation, 99);
                let name = format!("{name} {kv_cache:?} {settings:?}");
                assert_eq!((&got.0, got.1.concat()), (&want.0, want.1.concat()), "{name}");
                assert_eq!(got.2, want.2, "{name}: what the model has read");
                let Counts { passes, accepted, offered, .. } = got.3;
                assert_eq!(1 + passes + accepted, got.0.ids.len(), "{name}");
                assert!(accepted <= offered);
                got.3
            };
            let draft = |name: &str| {
                let model = util::open(&util::golden().join(name));
                let engine = Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
                Draft::new(engine, 128)
            };
            for most in [1, 5] {
                let all = go("all", Speculation::new(oracle(&want, |_| false), most));
                assert_eq!(all.passes, 39_usize.div_ceil(most + 1));
                assert_eq!(all.accepted, all.offered);
                let none = go("none", Speculation::new(oracle(&want, |_| true), most));
                assert_eq!((none.passes, none.accepted), (39, 0));
                go("some", Speculation::new(oracle(&want, |at| at % 3 == 0), most));
                go("paced", Speculation::new(oracle(&want, |at| at % 5 == 0), most).paced());
                go("lookup", Speculation::new(Lookup, most));
                go("other draft", Speculation::new(draft("qwen2"), most));
                let itself = go("itself", Speculation::new(draft("llama"), most));
                if settings.sampling.temperature == 0.0 && kv_cache == KvPrecision::Float {
                    let penalized = settings.sampling.repetition_penalty > 1.0;
                    assert!(penalized || itself.accepted == itself.offered, "{itself:?}");
                }
            }
        }
    }
}

/// A loop of its own: the rule as it is, and a wrong one that draws at rejected rows too.
fn drawn(model: &Model, sampling: &SamplingSettings, text: &[u32], wrong: bool) -> Vec<u32> {
    let team = Team::new(1);
    let mut engine = Engine::load(model, &Kernels::new(), &team, &Silent).unwrap();
    let mut sampler = Sampler::new(sampling.clone()).unwrap();
    let mut ids = ids(0, PROMPT);
    for id in &ids {
        sampler.saw(*id);
    }
    let next = sampler.choose(engine.feed(&ids).unwrap()).unwrap();
    sampler.saw(next);
    ids.push(next);
    while ids.len() < text.len() {
        // Every second token that is offered is wrong.
        let offer = text.iter().enumerate().skip(ids.len()).take(3);
        let offer: Vec<u32> = offer.map(|(at, id)| (id + at as u32 % 2) % 128).collect();
        let rows = [&[*ids.last().unwrap()], offer.as_slice()].concat();
        let (seen, logits) = (engine.len(), engine.verify(&rows).unwrap());
        let (mut open, mut kept) = (true, 0);
        for (at, logits) in logits.outer_iter().enumerate() {
            if !open && !wrong {
                break;
            }
            let id = sampler.choose(logits.to_slice().unwrap()).unwrap();
            if open {
                sampler.saw(id);
                ids.push(id);
                kept = at + 1;
                open = offer.get(at) == Some(&id);
            }
        }
        engine.truncate(seen + kept);
    }
    ids.truncate(text.len());
    ids
}

#[test]
fn a_sampler_that_draws_for_rejected_tokens_writes_another_text() {
    let model = util::open(&util::golden().join("llama"));
    for sampling in samplings().into_iter().filter(|it| it.temperature > 0.0) {
        let settings =
            GenerateSettings { max_tokens: 30, sampling: sampling.clone(), ..Default::default() };
        let want = [ids(0, PROMPT), plain(&model, &settings, 4000, 99).0.ids].concat();
        assert_eq!(drawn(&model, &sampling, &want, false), want, "{sampling:?}");
        assert_ne!(drawn(&model, &sampling, &want, true), want, "{sampling:?}");
    }
}

#[test]
fn a_text_ends_inside_an_accepted_run_as_it_does_token_by_token() {
    let model = util::open(&util::golden().join("llama"));
    let sampling = SamplingSettings { temperature: 1.0, seed: 5, ..Default::default() };
    let settings = GenerateSettings { max_tokens: 300, sampling, ..Default::default() };
    let full = plain(&model, &settings, 4000, 999);
    assert_eq!((full.0.stop_reason, full.2), (StopReason::ContextFull, 256));
    let eos = full.0.ids[17];
    let stop = full.0.text.chars().skip(9).take(3).collect::<String>();
    let most = GenerateSettings { max_tokens: 23, ..settings.clone() };
    let stops = GenerateSettings { stop: vec![stop], ..settings.clone() };
    let shown = GenerateSettings { show_special: true, ..settings.clone() };
    for (settings, eos, pieces, reason) in [
        (&settings, 4000, 999, StopReason::ContextFull),
        (&most, 4000, 999, StopReason::MaxTokens),
        (&settings, eos, 999, StopReason::Eos),
        (&shown, eos, 999, StopReason::Eos),
        (&stops, 4000, 999, StopReason::StopText),
        (&settings, 4000, 11, StopReason::Interrupted),
    ] {
        let want = plain(&model, settings, eos, pieces);
        assert_eq!(want.0.stop_reason, reason);
        for offered in [1, 2, 4, 7, 300] {
            for wrong in [|_| false, |at| at % 4 == 0] as [fn(usize) -> bool; 2] {
                let mut speculation = Speculation::new(oracle(&full, wrong), offered);
                let got = write((&model, 2), settings, eos, &mut speculation, pieces);
                assert_eq!(got.0, want.0, "{reason:?} {offered}");
                assert_eq!((&got.1, got.2), (&want.1, want.2), "{reason:?} {offered}");
                assert!(got.3.passes < want.3.passes, "{reason:?} {offered}");
            }
        }
    }
}

#[test]
fn a_conversation_goes_on_after_offers() {
    let (model, team) = (util::open(&util::golden().join("qwen3-tied")), Team::new(2));
    let settings = GenerateSettings { max_tokens: 20, ..Default::default() };
    let talk = |offers: bool| {
        let mut engine = Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
        let draft = util::open(&util::golden().join("llama"));
        let draft = Engine::load(&draft, &Kernels::new(), &team, &Silent).unwrap();
        let mut speculation = Speculation::new(Draft::new(draft, 128), if offers { 4 } else { 0 });
        let (mut text, mut all) = (ids(3, 10), Vec::new());
        for turn in 0..3 {
            let model = (&mut engine as _, &mut speculation);
            let tokenizer = tokenizer(4000);
            let done = generate_with(model, &tokenizer, &text, &settings, &mut |_| true).unwrap();
            all.push(done.clone());
            text.extend(done.ids);
            text.extend(ids(turn, 5));
        }
        all
    };
    assert_eq!(talk(true), talk(false));
}

#[test]
fn a_draft_of_another_vocabulary_is_told_by_its_first_token() {
    let mini = BUILTINS.iter().find(|it| it.name == "milm-mini").unwrap();
    let file = mini.files.iter().find(|(file, _)| *file == "tokenizer.json").unwrap().1;
    let mut json: serde_json::Value = serde_json::from_slice(file).unwrap();
    let opened = package::open("builtin:milm-mini").unwrap();
    let target = opened.tokenizer().unwrap();
    let [first, second] = [300, 301].map(|id| target.id_to_token(id).unwrap());
    json["model"]["vocab"][&first] = 301.into();
    json["model"]["vocab"][&second] = 300.into();
    let text = json.to_string();
    let files = TextFiles { tokenizer: text.as_bytes(), ..Default::default() };
    let other = Tokenizer::new(&files).unwrap();
    assert_eq!(same_vocabulary((target, target), 4096), Ok(()));
    let error = same_vocabulary((target, &other), 4096).unwrap_err();
    let told = (error.id, error.target.as_str(), error.draft.as_str());
    assert_eq!(told, (300, format!("{first:?}").as_str(), format!("{second:?}").as_str()));
    assert_eq!(same_vocabulary((target, &other), 300), Ok(()));
}

#[test]
fn run_offers_and_tells_what_came_of_it() {
    let out = |more: &[&str]| {
        let mut command = program();
        command.args(["run", "builtin:milm-mini", "--prompt", "a b c a b c a b", "--json"]);
        command.args(["--max-tokens=24", "--quiet"]).args(more);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice::<serde_json::Value>(&done.stdout).unwrap()
    };
    let plain = out(&[]);
    assert!(plain.get("speculation").is_none());
    for more in [&["--lookup", "--draft-tokens=3"][..], &["--draft", "builtin:milm-mini"]] {
        let got = out(more);
        assert_eq!(got["ids"], plain["ids"], "{more:?}");
        let count = |key: &str| got["speculation"][key].as_u64().unwrap();
        let written = got["ids"].as_array().unwrap().len() as u64;
        assert_eq!(1 + count("passes") + count("accepted"), written);
        let share = count("accepted") as f64 / count("passes") as f64;
        assert_eq!(got["speculation"]["accepted_per_pass"], share);
        let places = got["speculation"]["by_position"].as_array().unwrap();
        for key in ["offered", "accepted"] {
            let sum: u64 = places.iter().map(|it| it[key].as_u64().unwrap()).sum();
            assert_eq!(sum, count(key), "{more:?}");
        }
        assert!(got["speculation"]["target_seconds"].as_f64().unwrap() > 0.0);
    }
    for wrong in [
        &["--draft-tokens=2"][..],
        &["--lookup", "--draft=builtin:milm-mini"],
        &["--lookup", "--medusa=heads"],
        &["--mtp", "--draft=builtin:milm-mini"],
    ] {
        let mut command = program();
        command.args(["run", "builtin:milm-mini", "--prompt", "a"]).args(wrong).assert().code(2);
    }
}

#[test]
fn bench_puts_decoding_with_offers_beside_plain_decoding() {
    let out = |more: &[&str]| {
        let mut command = program();
        command.args(["bench", "builtin:milm-mini", "--prefill=8", "--decode=12", "--json=-"]);
        let done = command.args(["--repeats=1", "--quiet"]).args(more).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice::<serde_json::Value>(&done.stdout).unwrap()
    };
    assert!(out(&[]).get("offers").is_none());
    for more in [
        &["--acceptance=0.7", "--draft-tokens=3"][..],
        &["--lookup", "--prompt=a b c a b c a b"],
        &["--draft=builtin:milm-mini"],
    ] {
        let offers = out(more)["offers"].clone();
        assert_eq!((&offers["same_text"], &offers["written_tokens"]), (&true.into(), &12.into()));
        let count = |key: &str| offers[key].as_u64().unwrap();
        assert_eq!(1 + count("passes") + count("accepted"), 12, "{more:?}");
        assert!(offers["ratio"]["median"].as_f64().unwrap() > 0.0);
    }
    for (wrong, told) in [
        (&["--prompt=a"][..], "nothing offers tokens"),
        (&["--acceptance=0.5", "--lookup"], "--lookup"),
        (&["--acceptance=0.5", "--decode=1020"], "1028 tokens"),
    ] {
        let mut command = program();
        let assert =
            command.args(["bench", "builtin:milm-mini", "--prefill=8"]).args(wrong).assert();
        assert.code(2).stderr(predicates::str::contains(told));
    }
}

#[test]
fn tasks_are_answered_alike_with_offers() {
    let top = tempfile::tempdir().unwrap();
    let records = |name: &str, more: &[&str]| {
        let file = top.path().join(name);
        let mut command = program();
        command.args(["eval", "builtin:milm-mini", "--tasks=sample", "--limit=2", "--records"]);
        command.arg(&file).args(more).assert().success();
        std::fs::read_to_string(file).unwrap()
    };
    let want = records("plain", &["--quiet"]);
    assert_eq!(records("lookup", &["--quiet", "--lookup", "--batch=1"]), want);
    assert_eq!(records("lookups", &["--quiet", "--lookup", "--batch=3"]), want);
    let mut command = program();
    command.args(["eval", "builtin:milm-mini", "--text=builtin:en", "--lookup"]);
    command
        .assert()
        .code(2)
        .stderr(predicates::str::contains("`lookup`: offers are made to texts"));
}
