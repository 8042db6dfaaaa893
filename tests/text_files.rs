//! Folders whose text files are as people have them: what the program makes of them.
use crate::cli::program;
use milm_compress::{
    checkpoint::BUILTINS,
    text::{TextFiles, Tokenizer},
};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Output};

/// The carried model in a folder, with some files written over.
fn model(files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mini = BUILTINS.iter().find(|it| it.name == "milm-mini").unwrap();
    for (name, bytes) in mini.files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    for (name, content) in files {
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    program().current_dir(folder).args(arguments).output().unwrap()
}

#[track_caller]
fn done(folder: &Path, arguments: &[&str]) -> Output {
    let run = run(folder, arguments);
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{arguments:?}: {stderr}");
    run
}

/// The run ends with 2, and stderr holds all of `told`.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str], told: &[&str]) {
    let run = run(folder, arguments);
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{arguments:?}: {stderr}");
    for part in told.iter().chain(&["\nhint: "]) {
        assert!(stderr.contains(part), "{arguments:?}: no `{part}` in {stderr}");
    }
}

/// The tokens that an evaluation of a file has seen.
#[track_caller]
fn evaluated(folder: &Path, text: &str) -> Vec<u32> {
    let stored = folder.join("stored.safetensors");
    let wide = ["--protocol", "strided", "--ctx", "1024"];
    let store = ["--save-reference", "stored.safetensors", "--force"];
    done(folder, &[&["eval", ".", "--text", text][..], &wide, &store].concat());
    let tokens = crate::util::tensors(&stored).remove("tokens").unwrap();
    tokens.bytes.chunks_exact(4).map(|id| u32::from_le_bytes(id.try_into().unwrap())).collect()
}

fn plain(folder: &Path, text: &str) -> Vec<u32> {
    let tokenizer = fs::read(folder.join("tokenizer.json")).unwrap();
    let files = TextFiles { tokenizer: &tokenizer, ..TextFiles::default() };
    Tokenizer::new(&files).unwrap().encode(text, false).unwrap()
}

const BOS: &str = "<|endoftext|>";

/// A model whose tokenizer adds BOS, and whose template writes it.
fn with_bos() -> tempfile::TempDir {
    let template =
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}";
    let config = json!({
        "bos_token": BOS, "eos_token": BOS, "add_bos_token": true, "chat_template": template,
    });
    let folder = model(&[("tokenizer_config.json", config)]);
    let chats = (0..3).map(|i| {
        let messages = [json!({"role": "user", "content": format!("Hello number {i}")})];
        json!({ "messages": messages }).to_string() + "\n"
    });
    fs::write(folder.path().join("chats.jsonl"), chats.collect::<String>()).unwrap();
    fs::write(folder.path().join("plain.jsonl"), "{\"text\":\"Hello\"}\n").unwrap();
    folder
}

#[test]
fn a_chat_begins_with_one_bos_in_evaluation_and_calibration() {
    let folder = with_bos();
    let chat = plain(folder.path(), &format!("{BOS}[user]Hello number 0\n"));
    let seen = evaluated(folder.path(), "chats.jsonl");
    assert_eq!(seen[..chat.len() - 1], chat[..chat.len() - 1], "the last joins line feeds");
    assert_eq!(seen.iter().filter(|id| **id == 0).count(), 3, "each chat has its own: {seen:?}");
    // The twin: a plain text has the one that the tokenizer adds.
    let text = [&[0], &plain(folder.path(), "Hello")[..]].concat();
    assert_eq!(evaluated(folder.path(), "plain.jsonl"), text);
    // One window of all three chats, known by the hash of its ids.
    let chats =
        (0..3).flat_map(|i| plain(folder.path(), &format!("{BOS}[user]Hello number {i}\n")));
    let ids: Vec<u8> = chats.flat_map(u32::to_le_bytes).collect();
    let length = (ids.len() / 4).to_string();
    let out = ["--covariance", "none", "--allow-rank-deficient", "-o", "c.stat", "--json"];
    let windows = ["--calibration-samples", "1", "--calibration-tokens", &length];
    let from = ["calibrate", ".", "--calibration", "chats.jsonl"];
    let told = done(folder.path(), &[&from[..], &windows, &out].concat());
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains(&milm_compress::tensor::sha256(&ids)), "{told}");
}

#[test]
fn templates_get_no_tools_as_none_and_the_tools_of_a_record() {
    let template = "{%- if tools is not none %}TOOLS {{ tools | tojson }}\r\n{% endif %}\
                    {% for m in messages %}<{{ m.role }}>{{ m.content }}\r\n{% endfor %}";
    let folder = model(&[("chat_template.jinja", template.into())]);
    let messages = json!([{"role": "user", "content": "a\r\nb"}]);
    let said = "<user>a\r\nb\n";
    for (record, want) in [
        (json!({ "messages": messages }), said.to_owned()),
        (json!({ "messages": messages, "tools": null }), said.to_owned()),
        (
            json!({ "messages": messages, "tools": [{"name": "weather"}] }),
            format!("TOOLS [{{\"name\": \"weather\"}}]\n{said}"),
        ),
    ] {
        fs::write(folder.path().join("chat.jsonl"), record.to_string()).unwrap();
        assert_eq!(evaluated(folder.path(), "chat.jsonl"), plain(folder.path(), &want), "{want}");
    }
    let record = json!({ "messages": messages, "tools": "[]" });
    fs::write(folder.path().join("chat.jsonl"), record.to_string()).unwrap();
    refused(folder.path(), &["eval", ".", "--text", "chat.jsonl"], &["line 1", "`tools`"]);
}

#[test]
fn an_end_that_only_the_model_s_configuration_names_ends_texts_and_is_exported() {
    // Whatever the model would write first is the end of its text here.
    let first = model(&[]);
    let next = ["run", ".", "--prompt", "Once upon a time", "--max-tokens", "4", "--json"];
    let told =
        |folder: &Path| -> Value { serde_json::from_slice(&done(folder, &next).stdout).unwrap() };
    let ids: Vec<u32> = serde_json::from_value(told(first.path())["ids"].clone()).unwrap();
    let config = fs::read(first.path().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["eos_token_id"] = json!(ids[2]);
    let none = json!({});
    let files = [("config.json", config), ("tokenizer_config.json", none)];
    let folder = model(&files);
    fs::remove_file(folder.path().join("generation_config.json")).unwrap();
    let stopped = told(folder.path());
    assert_eq!((&stopped["ids"], &stopped["stop_reason"]), (&json!(ids[..3]), &json!("eos")));
    done(folder.path(), &["export", ".", "--to", "gguf", "-o", "m.gguf"]);
    done(folder.path(), &["import", "m.gguf", "-o", "back"]);
    let back = fs::read(folder.path().join("back/generation_config.json")).unwrap();
    let back: Value = serde_json::from_slice(&back).unwrap();
    assert!(back["eos_token_id"].to_string().contains(&ids[2].to_string()), "{back}");
}

#[test]
fn a_token_beyond_the_embedding_is_an_error_only_where_it_occurs() {
    let mini = model(&[]);
    let tokenizer = fs::read(mini.path().join("tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_slice(&tokenizer).unwrap();
    tokenizer["added_tokens"].as_array_mut().unwrap().push(json!({
        "id": 4096, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    }));
    let config = json!({"bos_token": BOS, "eos_token": BOS, "pad_token": "[PAD]"});
    let folder = model(&[("tokenizer.json", tokenizer), ("tokenizer_config.json", config)]);
    let small = ["eval", ".", "--ctx", "64", "--windows", "1", "--text"];
    done(folder.path(), &[&small[..], &["builtin:en"]].concat());
    done(folder.path(), &["export", ".", "--to", "gguf", "-o", "m.gguf"]);
    fs::write(folder.path().join("a.txt"), "a [PAD] b".repeat(99)).unwrap();
    let told = ["`[PAD]`", "4096", "tokenizer.json"];
    refused(folder.path(), &[&small[..], &["a.txt"]].concat(), &told);
}

#[test]
fn settings_of_generation_matter_where_they_are_needed_only() {
    for (settings, told) in [
        ("{\"top_k\": -1}", "`top_k`"),
        ("{\"top_k\": 50.5}", "`top_k`"),
        ("{\"temperature\": 0.7,}", "trailing comma"),
        ("{\"eos_token_id\": \"x\"}", "`eos_token_id`"),
    ] {
        let folder = model(&[("generation_config.json", settings.into())]);
        let small = ["eval", ".", "--ctx", "64", "--windows", "1", "--text", "builtin:en"];
        done(folder.path(), &small);
        let run = ["run", ".", "--prompt", "a", "--max-tokens", "1"];
        refused(folder.path(), &run, &["generation_config.json", told]);
    }
    let folder =
        model(&[("generation_config.json", "{\"top_k\": -1, \"bos_token_id\": [0]}".into())]);
    done(folder.path(), &["run", ".", "--prompt", "a", "--max-tokens", "1", "--top-k", "3"]);
}

#[test]
fn a_json_file_is_a_list_of_texts_or_refused() {
    let folder = model(&[("a.json", json!(["Hello", {"text": "there"}]))]);
    let want = plain(folder.path(), "Hello\n\nthere");
    assert_eq!(evaluated(folder.path(), "a.json"), want);
    fs::write(folder.path().join("b.json"), "{\"data\": []}").unwrap();
    refused(folder.path(), &["eval", ".", "--text", "b.json"], &["b.json", "`data`"]);
}

#[test]
fn another_form_of_a_tokenizer_has_a_hint_to_convert_it() {
    let folder = model(&[("tokenizer.model", "x".into())]);
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let told = ["no tokenizer.json", "`tokenizer.model`", "save_pretrained"];
    refused(folder.path(), &["eval", ".", "--text", "builtin:en"], &told);
}
