//! What a hostile folder or a full disk must not do: hang, crash, or speak for the program.
use crate::cli::program;
use milm_compress::checkpoint::BUILTINS;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

/// The carried model in a folder.
fn model(folder: &Path) -> String {
    let mini = BUILTINS.iter().find(|it| it.name == "milm-mini").unwrap();
    for (name, bytes) in mini.files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    folder.to_str().unwrap().to_owned()
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).timeout(Duration::from_mins(1)).output().unwrap()
}

/// The run ends with 2, and stderr holds all of `told`.
#[track_caller]
fn refused(arguments: &[&str], told: &[&str]) {
    let run = run(arguments);
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    for part in told {
        assert!(stderr.contains(part), "{arguments:?}: no `{part}` in {stderr}");
    }
}

#[cfg(unix)]
fn pipe(path: &Path) {
    let _ = fs::remove_file(path);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[cfg(unix)]
#[test]
fn a_pipe_in_a_model_folder_is_named_and_not_waited_for() {
    let top = tempfile::tempdir().unwrap();
    let out = top.path().join("out").display().to_string();
    for file in ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json"] {
        let folder = top.path().join(file.replace('.', "-"));
        fs::create_dir(&folder).unwrap();
        let model = model(&folder);
        pipe(&folder.join(file));
        let run = ["run", &model, "--prompt", "a", "--max-tokens", "1"];
        refused(&run, &[file, "a pipe, not a file", "hint: "]);
        let nearest = ["--rounding", "nearest", "--rotate", "none"];
        refused(&[&["quantize", &model, "-o", &out], &nearest[..]].concat(), &[file]);
        assert!(!Path::new(&out).exists());
    }
    let gguf = top.path().join("model.gguf");
    pipe(&gguf);
    refused(&["inspect", gguf.to_str().unwrap()], &["model.gguf"]);
    refused(&["import", gguf.to_str().unwrap(), "-o", &out], &["model.gguf"]);
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_for_a_flag_is_named_and_not_waited_for() {
    let top = tempfile::tempdir().unwrap();
    let at = top.path().join("pipe");
    pipe(&at);
    let out = top.path().join("out").display().to_string();
    let mini = "builtin:milm-mini";
    for (path, kind) in [(at.to_str().unwrap(), "a pipe"), ("/dev/zero", "a device")] {
        for arguments in [
            vec!["eval", mini, "--text", path],
            vec!["eval", mini, "--text", "builtin:en", "--gates", path],
            vec!["calibrate", mini, "--calibration", path, "-o", &out],
            vec!["quantize", mini, "--device", path, "-o", &out],
            vec!["compress", path, "-o", &out],
            vec!["verify", mini, "--key", path],
            vec!["prune", mini, "--keep", "0.8", "--statistics", path, "-o", &out],
            vec!["report", path, "-o", &out],
        ] {
            refused(&arguments, &[path, kind, "hint: "]);
        }
    }
}

#[test]
fn a_json_file_of_absurd_size_is_refused_by_its_size() {
    let top = tempfile::tempdir().unwrap();
    let model = model(top.path());
    for file in ["config.json", "generation_config.json", "tokenizer_config.json"] {
        // Sparse: nothing of it is on the disk, and nothing of it may come to memory.
        let whole = fs::read(top.path().join(file)).unwrap();
        fs::File::options()
            .write(true)
            .open(top.path().join(file))
            .unwrap()
            .set_len(3 << 30)
            .unwrap();
        let run = ["run", &model, "--prompt", "a", "--max-tokens", "1"];
        refused(&run, &[file, "3221225472 bytes", "at most 16777216", "hint: "]);
        fs::write(top.path().join(file), whole).unwrap();
    }
}

#[test]
fn absurd_numbers_are_refused_by_the_flag() {
    let mini = "builtin:milm-mini";
    let huge = u64::MAX.to_string();
    for number in ["100000000000", &huge] {
        refused(&["bench", mini, "--prefill", number], &["--prefill", "1024", "hint: "]);
        refused(&["bench", mini, "--decode", number], &["--decode", "1024"]);
        refused(&["bench", mini, "--context", number], &["--context", "1024"]);
        refused(&["eval", mini, "--text", "builtin:en", "--ctx", number], &["tokens"]);
        refused(&["inspect", mini, "--threads", number], &["--threads", "1024"]);
    }
    refused(&["inspect", mini, "--threads", "20000"], &["--threads", "1024"]);
    let text = ["run", mini, "--prompt", "Hi", "--max-tokens", &huge, "--json"];
    assert!(run(&text).status.success(), "it ends with the text or the context");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_stream_is_an_error_and_no_crash() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let program = || std::process::Command::new(env!("CARGO_BIN_EXE_milm-compress"));
    let mini = "builtin:milm-mini";
    for arguments in [
        vec!["completions", "bash"],
        vec!["completions", "zsh"],
        vec!["man"],
        vec!["--help"],
        vec!["inspect", mini],
        vec!["run", mini, "--prompt", "a", "--max-tokens", "2"],
    ] {
        let run = program().args(&arguments).stdout(full()).output().unwrap();
        assert_eq!(run.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&run.stderr).contains("No space left"), "{arguments:?}");
    }
    for (arguments, code) in [
        (vec!["inspect", "no-such-folder"], 2),
        (vec!["no-such-verb"], 2),
        (vec!["-vv", "run", mini, "--prompt", "a", "--max-tokens", "2"], 0),
    ] {
        let run = program().args(&arguments).stderr(full()).output().unwrap();
        assert_eq!(run.status.code(), Some(code), "{arguments:?}");
    }
}

/// A word that forges a line of a log and moves the cursor, as a package could hold it.
const EVIL: &str = "x\n::error::evil\r\u{1b}[2J\u{202e}y";

/// Neither stream obeys [`EVIL`].
#[track_caller]
fn harmless(arguments: &[&str]) -> String {
    let run = run(arguments);
    let all = [run.stdout, run.stderr].map(|it| String::from_utf8(it).unwrap()).concat();
    assert!(!all.contains("panicked"), "{arguments:?}: {all}");
    check_text(&all, &format!("{arguments:?}"));
    all
}

#[track_caller]
fn check_text(text: &str, of: &str) {
    for line in text.lines() {
        assert!(!line.trim_start().starts_with("::error::evil"), "{of}: {text:?}");
    }
    for bad in ['\r', '\u{1b}', '\u{202e}'] {
        assert!(!text.contains(bad), "{of}: {text:?}");
    }
}

/// A safetensors file with one more tensor.
fn with_tensor(file: &Path, name: &str) {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    let range = [data.len(), data.len() + 4];
    header[name] = json!({ "dtype": "F32", "shape": [1], "data_offsets": range });
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    let whole = [&length[..], header.as_bytes(), data, &[0; 4]].concat();
    fs::write(file, whole).unwrap();
}

#[test]
fn names_of_a_checkpoint_cannot_forge_a_line_of_a_log() {
    let top = tempfile::tempdir().unwrap();
    let model = model(top.path());
    let out = top.path().join("out").display().to_string();
    with_tensor(&top.path().join("model.safetensors"), EVIL);
    let shown = harmless(&["inspect", &model]);
    assert!(shown.contains("x\\n::error::evil\\r\\u{1b}[2J"), "{shown}");
    harmless(&["inspect", &model, "--json"]);
    harmless(&["-v", "quantize", &model, "--rounding", "nearest", "--rotate", "none", "-o", &out]);
    harmless(&["inspect", &out]);
    harmless(&["verify", &out, "--deep"]);
    harmless(&["sbom", &out]);
    check_text(&fs::read_to_string(Path::new(&out).join("README.md")).unwrap(), "the card");
    harmless(&["export", &model, "--to", "gguf", "-o", &format!("{out}.gguf")]);

    let mut config: Value =
        serde_json::from_slice(&fs::read(top.path().join("config.json")).unwrap()).unwrap();
    for (key, value) in [
        ("architectures", json!([EVIL])),
        ("hidden_act", json!(EVIL)),
        ("rope_scaling", json!({ "rope_type": EVIL, "factor": 2.0 })),
        ("num_attention_heads", json!(EVIL)),
        ("quantization_config", json!({ "quant_method": EVIL, "format": EVIL })),
    ] {
        let before = config[key].take();
        config[key] = value;
        fs::write(top.path().join("config.json"), config.to_string()).unwrap();
        let shown = harmless(&["inspect", &model]);
        assert!(shown.starts_with("error: "), "{key}: {shown}");
        config[key] = before;
    }
}

#[test]
fn words_of_text_files_cannot_forge_a_line_of_a_log() {
    let top = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| -> String {
        let path: PathBuf = top.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let mini = "builtin:milm-mini";
    let quoted = Value::from(EVIL).to_string();
    let recipe = write("r.toml", &format!("[[step]]\ndo = \"quantize\"\n{quoted} = 1\n"));
    harmless(&["compress", &recipe, "-o", "out"]);
    let recipe = write("s.toml", "[[step]]\ndo = \"x\n::error::evil\"\n");
    harmless(&["compress", &recipe, "-o", "out"]);
    let device = write("d.toml", &format!("name = {quoted}\n{quoted} = 2\n"));
    harmless(&["quantize", mini, "--device", &device, "-o", "out"]);
    let chats = json!({ "messages": [{ "role": EVIL, "content": EVIL }] });
    let chats = write("c.jsonl", &chats.to_string());
    harmless(&["eval", mini, "--text", &chats]);
    let records = write("t.jsonl", &json!({ EVIL: EVIL }).to_string());
    harmless(&["eval", mini, "--text", &records]);
    let gates = write("g.txt", EVIL);
    harmless(&["eval", mini, "--text", "builtin:en", "--gates", &gates]);
    let report = write("e.json", &json!({ "ppl": EVIL, "tool": EVIL }).to_string());
    harmless(&["report", &report, "-o", "out.html"]);
    // A template's own words.
    let folder = top.path().join("model");
    fs::create_dir(&folder).unwrap();
    let model = model(&folder);
    fs::write(folder.join("chat_template.jinja"), format!("{{{{ raise_exception({quoted}) }}}}"))
        .unwrap();
    let chat = program().args(["run", &model, "--chat"]).write_stdin("hi\n").output().unwrap();
    let told = String::from_utf8(chat.stderr).unwrap();
    assert!(told.contains("refuses"), "{told}");
    check_text(&told, "a template's exception");
}

#[test]
fn a_malformed_signature_or_key_is_an_error_that_names_it() {
    let top = tempfile::tempdir().unwrap();
    let package = top.path().join("package").display().to_string();
    let key = top.path().join("k").display().to_string();
    let nearest = ["quantize", "builtin:milm-mini", "--rounding", "nearest", "--rotate", "none"];
    program().args(nearest).args(["-o", &package]).assert().success();
    program().args(["sign", "--new-key", &key]).assert().success();
    program().args(["sign", &package, "--key", &format!("{key}.key")]).assert().success();
    let file = Path::new(&package).join("milm.json.minisig");
    let public = format!("{key}.pub");
    let good = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    // The last line, of 88 characters, cut to whole groups of four; and what is no signature at all.
    let cut = format!("{}\n{}\n{}\n{}\n", lines[0], lines[1], lines[2], &lines[3][..40]);
    let short = format!("{}\n{}\n{}\n{}\n", lines[0], &lines[1][..96], lines[2], lines[3]);
    for bad in [cut.as_str(), &short, "", "a\nb\nc\nd\n", &good.replace('=', "A")] {
        fs::write(&file, bad).unwrap();
        refused(&["verify", &package, "--key", &public], &["milm.json.minisig", "hint: "]);
    }
    fs::write(&file, &good).unwrap();
    program().args(["verify", &package, "--key", &public]).assert().success();
    for bad in ["", "a", "a\nb", "untrusted comment: x\nAAAA\n"] {
        fs::write(&public, bad).unwrap();
        refused(&["verify", &package, "--key", &public], &["public key", "hint: "]);
    }
}
