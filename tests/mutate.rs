//! Two thousand damaged inputs for each parser: each is read or refused, soon, and nothing panics.
use crate::{cli::program, util};
use milm_compress::{
    calibrate::Statistics,
    checkpoint::{BUILTINS, parse_safetensors},
    device::Profile,
    eval::StoredReference,
    model::ModelSpec,
    package::{self, Manifest, gguf},
    recipe::Recipe,
    tensor::{Bytes, FloatType},
    text::{
        ChatTemplate, Message, TextFiles, Tokenizer, TokenizerConfig,
        apart::{Bounds, Guard},
    },
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

const RUNS: u64 = 2000;

/// No input may take longer; the machine may be busy with others.
const LONGEST: Duration = Duration::from_secs(20);

/// What damaged files hold: ends of ranges, what closes and what nests.
const WORDS: [&str; 12] = [
    "18446744073709551615",
    "-1",
    "1e999",
    "4294967296",
    "null",
    "[]",
    "{}",
    "\"\"",
    "\u{0}",
    "\n",
    "[[[[",
    "é",
];

/// A copy with up to four faults in its first `head` bytes.
fn damaged(seed: &[u8], head: usize, number: u64) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(number);
    let mut bytes = seed.to_vec();
    for _ in 0..random.random_range(1..=4) {
        let end = bytes.len().min(head);
        if end == 0 {
            break;
        }
        let at = random.random_range(0..end);
        let length = random.random_range(1..=16).min(end - at);
        match random.random_range(0..6) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let again = bytes[at..at + length].to_vec();
                drop(bytes.splice(at..at, again));
            }
            4 => {
                let word = WORDS[random.random_range(0..WORDS.len())];
                drop(bytes.splice(at..at + length, word.bytes()));
            }
            _ => bytes.truncate(if random.random_bool(0.1) { at } else { bytes.len() - 1 }),
        }
    }
    bytes
}

/// Runs `read` on damaged copies; tells how many were read all the same.
fn survive(seeds: &[Vec<u8>], head: usize, mut read: impl FnMut(Vec<u8>) -> bool) -> u64 {
    assert!(seeds.iter().all(|seed| read(seed.clone())), "what is whole is read");
    let mut whole = 0;
    for number in 0..RUNS {
        let input = damaged(&seeds[number as usize % seeds.len()], head, number);
        let began = Instant::now();
        whole += u64::from(read(input));
        assert!(began.elapsed() < LONGEST, "input {number} takes {:?}", began.elapsed());
    }
    assert!(whole < RUNS, "faults are found");
    whole
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn checkpoints() {
    let weights = fs::read(util::golden().join("llama-mha/model.safetensors")).unwrap();
    let head = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    survive(&[weights], head, |it| parse_safetensors(&Bytes::owned(it)).is_ok());
    let configs: Vec<Vec<u8>> = util::MODELS
        .iter()
        .map(|name| fs::read(util::golden().join(name).join("config.json")).unwrap())
        .collect();
    survive(&configs, usize::MAX, |it| {
        serde_json::from_slice(&it).is_ok_and(|config| ModelSpec::from_config(&config).is_ok())
    });
}

#[test]
fn recipes_and_devices() {
    let recipe = include_bytes!("../recipes/quickstart.toml").to_vec();
    survive(&[recipe], usize::MAX, |it| Recipe::parse("r.toml", &text(&it)).is_ok());
    let device = include_bytes!("../recipes/devices/x86.toml").to_vec();
    survive(&[device], usize::MAX, |it| Profile::parse("d.toml", &text(&it)).is_ok());
}

#[test]
fn chat_templates() {
    let template = b"{% for m in messages %}{{ '<|' + m['role'] + '|>' + m.content | trim }}\n\
        {% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}{% endfor %}\
        {% set x = namespace(a=[1, 2]) %}{{ x.a[::-1] | tojson }}{{ 'a b'.split(' ')[1] }}"
        .to_vec();
    let messages = [Message::new("user", "hi"), Message::new("assistant", "ho")];
    survive(&[template], usize::MAX, |it| {
        let template = ChatTemplate::compile(&text(&it), &TokenizerConfig::default(), None);
        template.and_then(|it| it.render(&messages, true)).is_ok()
    });
}

/// A tokenizer with a part of every kind, small.
const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,
"added_tokens":[{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,
"normalized":false,"special":true}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},
{"type":"Replace","pattern":{"String":" "},"content":"_"}]},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":
{"Regex":"[a-z]+|_"},"behavior":"Isolated","invert":false}]},
"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},
{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"<s>":{"id":"<s>","ids":[0],
"tokens":["<s>"]}}},
"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},
"content":" "},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,
"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
"vocab":{"<s>":0,"_":1,"a":2,"b":3,"ab":4,"c":5},"merges":[["a","b"]]}}"#;

#[test]
fn tokenizers() {
    // The helper is what holds here, whatever the library makes of a file.
    let bounds = Bounds { milliseconds: 5000, ..Bounds::default() };
    let guard = Guard::new(env!("CARGO_BIN_EXE_milm-compress").into(), bounds);
    survive(&[TOKENIZER.into()], usize::MAX, |it| {
        let files = TextFiles { tokenizer: &it, ..TextFiles::default() };
        let used = Tokenizer::guarded(&files, &guard).and_then(|tokenizer| {
            let ids = tokenizer.encode("ab cab <s>é", true)?;
            tokenizer.decode(&ids, false)
        });
        used.is_ok()
    });
}

#[test]
fn packages_signatures_and_gguf() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name).display().to_string();
    let nearest = ["quantize", "builtin:milm-mini", "--rounding", "nearest", "--rotate", "none"];
    program().args(nearest).args(["-o", &at("package")]).assert().success();
    let manifest = fs::read(top.path().join("package/milm.json")).unwrap();
    survive(&[manifest], 8192, |it| {
        let it = text(&it);
        serde_json::from_str::<Manifest>(&it).is_ok_and(|manifest| manifest.is_intact(&it))
    });

    let (public, secret) = package::new_keys().unwrap();
    package::sign(&at("package"), &secret, None).unwrap();
    let file = top.path().join("package").join(package::SIGNATURE_FILE);
    let good = fs::read(&file).unwrap();
    survive(std::slice::from_ref(&good), usize::MAX, |it| {
        fs::write(&file, it).unwrap();
        package::check_signature(&at("package"), &public).is_ok()
    });
    fs::write(&file, good).unwrap();
    survive(&[public.into_bytes()], usize::MAX, |it| {
        package::check_signature(&at("package"), &text(&it)).is_ok()
    });

    let export = ["export", "builtin:milm-mini", "--to", "gguf", "-o", &at("m.gguf")];
    program().args(export).assert().success();
    let file = fs::read(at("m.gguf")).unwrap();
    survive(&[file], 1 << 17, |it| {
        let gguf = gguf::Gguf::parse("m.gguf", &Bytes::owned(it));
        gguf.is_ok_and(|it| gguf::Import::plan(&it, FloatType::F32).is_ok())
    });
}

#[test]
fn statistics_and_stored_references() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name).display().to_string();
    let calibrate = ["calibrate", "builtin:milm-mini", "--calibration-samples", "2"];
    let few = ["--calibration-tokens", "16", "--allow-rank-deficient", "-o"];
    program().args(calibrate).args(few).arg(at("s")).assert().success();
    let bytes = fs::read(at("s")).unwrap();
    let head = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    survive(&[bytes], head, |it| Statistics::open(Bytes::owned(it)).is_ok());
    let eval = ["eval", "builtin:milm-mini", "--text", "builtin:en", "--ctx", "16"];
    program().args(eval).args(["--windows", "1", "--save-reference", &at("r")]).assert().success();
    let bytes = fs::read(at("r")).unwrap();
    survive(&[bytes], 4096, |it| StoredReference::open("r", &Bytes::owned(it)).is_ok());
}

#[test]
fn onnx_graphs() {
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("onnx");
    let at = folder.to_str().unwrap();
    program().args(["export", "builtin:milm-mini", "--to", "onnx", "-o", at]).assert().success();
    let graph = folder.join(package::onnx::GRAPH_FILE);
    let bytes = fs::read(&graph).unwrap();
    let head = bytes.len();
    survive(&[bytes], head, |it| {
        fs::write(&graph, it).unwrap();
        package::open(Path::new(at).to_str().unwrap()).is_ok()
    });
}

#[test]
fn damage_is_the_same_for_a_number_and_another_for_the_next() {
    let mini = BUILTINS[0].files[0].1;
    assert_eq!(damaged(mini, 4096, 7), damaged(mini, 4096, 7));
    assert_ne!(damaged(mini, 4096, 7), damaged(mini, 4096, 8));
}
