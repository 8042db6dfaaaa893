//! Hostile files: the program ends with 2 and says why, in bounded time and memory.
//!
//! Inputs here trip the program's own bounds. None makes a library panic, overflow or hang.
use crate::cli::program;
use milm_compress::{
    checkpoint::BUILTINS,
    text::{
        Message, TextError, TextFiles, Tokenizer,
        apart::{Bounds, Guard},
    },
};
use serde_json::{Value, json};
use std::{fs, path::Path};

fn carried(name: &str) -> &'static str {
    let mini = BUILTINS.iter().find(|it| it.name == "milm-mini").unwrap();
    std::str::from_utf8(mini.files.iter().find(|(file, _)| *file == name).unwrap().1).unwrap()
}

fn guard(bounds: Bounds) -> Guard {
    Guard::new(env!("CARGO_BIN_EXE_milm-compress").into(), bounds)
}

const TEMPLATE: &str = "{{ bos_token }}{% for it in messages %}<{{ it.role }}>{{ it.content | trim }}\n{% endfor %}\
    {% if add_generation_prompt %}<assistant>{% endif %}{% if date %}{{ date }}{% endif %}";

fn files(template: &str) -> TextFiles<'_> {
    TextFiles {
        tokenizer: carried("tokenizer.json").as_bytes(),
        tokenizer_config: Some(carried("tokenizer_config.json")),
        generation_config: Some(carried("generation_config.json")),
        chat_template: Some(template),
        ..TextFiles::default()
    }
}

/// The carried model in a folder, with a file replaced.
fn model_with(folder: &Path, file: &str, content: &str) -> String {
    let mini = BUILTINS.iter().find(|it| it.name == "milm-mini").unwrap();
    for (name, bytes) in mini.files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    fs::write(folder.join(file), content).unwrap();
    folder.to_str().unwrap().to_owned()
}

#[test]
fn a_helper_gives_the_same_ids_texts_and_chats() {
    let here = Tokenizer::new(&files(TEMPLATE)).unwrap();
    let apart = Tokenizer::guarded(&files(TEMPLATE), &guard(Bounds::default())).unwrap();
    assert_eq!(
        (here.bos(), here.eos(), here.vocab_size()),
        (apart.bos(), apart.eos(), apart.vocab_size())
    );
    for text in ["", "Hello, world", "模型 é\u{1f600}\n\ttwo", &"The sea is calm. ".repeat(5000)]
    {
        for special in [false, true] {
            let ids = here.encode(text, special).unwrap();
            assert_eq!(apart.encode(text, special).unwrap(), ids);
            assert_eq!(apart.decode(&ids, special).unwrap(), here.decode(&ids, special).unwrap());
        }
    }
    for id in [0, 5, 4095, 4096, u32::MAX] {
        assert_eq!(apart.id_to_token(id), here.id_to_token(id));
    }
    let messages = [Message::new("user", " hi\u{202e} "), Message::new("assistant", "1e5")];
    let more = json!({ "date": 1.5 }).as_object().unwrap().clone();
    let [mine, other] = [&here, &apart]
        .map(|it| it.chat_template().unwrap().render_with(&messages, true, &more).unwrap());
    assert_eq!(mine, other);
    assert!(mine.contains("<user>hi") && mine.ends_with("<assistant>1.5"), "{mine}");
}

#[test]
fn a_call_over_the_bound_of_time_is_stopped_and_named_and_so_is_what_follows() {
    // Two hundred long lists, sorted: some seconds, and few instructions.
    let slow = "{% for i in range(200) %}{% set x = range(99999) | map('string') | sort | join %}{% endfor %}";
    let short = guard(Bounds { milliseconds: 300, ..Bounds::default() });
    let tokenizer = Tokenizer::guarded(&files(slow), &short).unwrap();
    let template = tokenizer.chat_template().unwrap();
    for _ in 0..2 {
        let error = template.render::<Message>(&[], true).unwrap_err();
        assert!(matches!(error, TextError::Stopped { .. }), "{error}");
        let told = error.to_string();
        assert!(told.contains("chat template") && told.contains("longer than 1 seconds"), "{told}");
    }
    assert!(tokenizer.encode("a", false).is_err(), "one process works on both");
}

#[cfg(target_os = "linux")]
#[test]
fn a_call_over_the_bound_of_memory_is_stopped_and_named() {
    let small = guard(Bounds { memory: 1 << 20, ..Bounds::default() });
    let error = Tokenizer::guarded(&files(TEMPLATE), &small).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("memory"), "{error}");
    // The twin: with the bounds of the program it is read.
    Tokenizer::guarded(&files(TEMPLATE), &guard(Bounds::default())).unwrap();
}

#[test]
fn a_helper_that_is_not_there_is_an_error_and_the_files_are_not_read_here() {
    let none = Guard::new("/no/such/program".into(), Bounds::default());
    let error = Tokenizer::guarded(&files(TEMPLATE), &none).unwrap_err().to_string();
    assert!(error.contains("helper") && error.contains("hint: "), "{error}");
}

#[test]
fn a_tokenizer_beyond_bounds_ends_the_program_with_2_and_names_file_and_part() {
    let top = tempfile::tempdir().unwrap();
    let mut tokenizer: Value = serde_json::from_str(carried("tokenizer.json")).unwrap();
    let lower = json!({ "type": "Lowercase" });
    tokenizer["normalizer"] =
        (0..40).fold(lower, |inner, _| json!({ "type": "Sequence", "normalizers": [inner] }));
    let model = model_with(top.path(), "tokenizer.json", &tokenizer.to_string());
    let out = top.path().join("out").display().to_string();
    for arguments in [
        vec!["run", &model, "--prompt", "a", "--max-tokens", "1"],
        vec!["eval", &model, "--text", "builtin:en"],
        vec!["calibrate", &model, "-o", &out],
        vec!["export", &model, "--to", "gguf", "-o", &out],
    ] {
        let run = program().args(&arguments).output().unwrap();
        let told = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains("tokenizer.json") && told.contains("`normalizer`"), "{told}");
        assert!(told.contains("hint: ") && !told.contains("panicked"), "{told}");
        assert!(!Path::new(&out).exists());
    }
}

#[test]
fn a_template_that_runs_too_long_ends_the_program_with_2() {
    let top = tempfile::tempdir().unwrap();
    let long = "{% for i in range(90000) %}{% for j in range(90000) %}{% set x = j %}{% endfor %}{% endfor %}";
    let model = model_with(top.path(), "chat_template.jinja", long);
    let run = program().args(["run", &model, "--chat"]).write_stdin("hi\n").output().unwrap();
    let told = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(2), "{told}");
    assert!(told.contains("chat template") && told.contains("2 million instructions"), "{told}");
}
