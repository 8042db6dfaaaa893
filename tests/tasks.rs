//! Benchmarks as a user runs them: on the data and the model that the program carries.
use crate::cli::program;
use milm_compress::{
    eval::task::{Counted, Data as _, NeedleTask, Options, SAMPLE, Task as _},
    package,
};
use predicates::{prelude::PredicateBooleanExt as _, str::contains};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn eval(dir: &Path, args: &[&str]) -> assert_cmd::assert::Assert {
    program().current_dir(dir).arg("eval").args(args).assert()
}

fn sample(dir: &Path, more: &[&str]) -> assert_cmd::assert::Assert {
    eval(dir, &[&["builtin:milm-mini", "--tasks", "sample", "--task-window", "256"], more].concat())
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_sample_leaves_a_report_and_a_record_of_each_item() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path(), &["--json", "a.json"]).success().stdout(contains("hellaswag"));
    let report = json(dir.path().join("a.json"));
    assert_eq!((&report["schema"], &report["passed"]), (&1.into(), &true.into()));
    let records = fs::read_to_string(dir.path().join("a.jsonl")).unwrap();
    let records: Vec<Value> =
        records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tasks = report["tasks"].as_array().unwrap();
    assert!(tasks.len() >= 12);
    for task in tasks {
        let of: Vec<&Value> = records.iter().filter(|it| it["task"] == task["task"]).collect();
        assert_eq!(task["groups"][0]["items"].as_u64().unwrap() as usize, of.len());
        let metric = task["main_metric"].as_str().unwrap();
        assert!(of.iter().all(|it| it["metrics"][metric].is_f64()), "{task}");
    }
    // Existing results are kept.
    sample(dir.path(), &["--json", "a.json"]).code(2).stderr(contains("exists"));
    let missing = sample(dir.path(), &["--json", "no/a.json"]);
    missing.code(2).stderr(contains("folder is not there"));
}

#[test]
fn parts_join_to_the_bytes_of_one_run() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("parts")).unwrap();
    sample(dir.path(), &["--json", "whole.json"]).success();
    for part in 1..=3 {
        let (part, file) = (format!("{part}/3"), format!("parts/{part}.json"));
        sample(dir.path(), &["--shard", &part, "--json", &file, "--threads", "1"]).success();
    }
    eval(dir.path(), &["--merge", "parts", "--json", "joined.json"]).success();
    for form in ["json", "jsonl"] {
        let read = |name: &str| fs::read(dir.path().join(format!("{name}.{form}"))).unwrap();
        assert!(read("whole") == read("joined"), "{form}");
    }
    // Lacking one, or with one twice, nothing is made up.
    let lost = ["--merge", "parts/1.json", "parts/3.json"];
    eval(dir.path(), &lost).code(2).stderr(contains("part 2/3 is missing"));
    let twice = ["--merge", "parts", "parts/2.json"];
    eval(dir.path(), &twice).code(2).stderr(contains("part 2/3 is there twice"));
    eval(dir.path(), &["--merge", "whole.json"]).code(2).stderr(contains("a whole run"));
}

#[test]
fn an_interrupted_run_goes_on_from_its_cache() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str| sample(dir.path(), &["--cache", "cache", "--json", name]).success();
    run("a.json");
    let again = run("b.json");
    let told = String::from_utf8(again.get_output().stderr.clone()).unwrap();
    assert!(told.contains("arc-easy: 3 items, 3 remembered"), "{told}");
    // Killed while it wrote: the last line is half there, what followed is not.
    for file in fs::read_dir(dir.path().join("cache")).unwrap().map(Result::unwrap) {
        let bytes = fs::read(file.path()).unwrap();
        fs::write(file.path(), &bytes[..bytes.len() - 20]).unwrap();
    }
    let rest = run("c.json");
    let told = String::from_utf8(rest.get_output().stderr.clone()).unwrap();
    assert!(told.contains("arc-easy: 3 items, 2 remembered"), "{told}");
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    assert!(read("a.json") == read("b.json") && read("a.jsonl") == read("c.jsonl"));
}

/// Folders that differ in their weights alone are different models, where weights are no safetensors
/// too.
#[test]
fn a_cache_tells_models_apart_by_their_weights() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| program().current_dir(dir.path()).args(args).assert().success();
    for scheme in ["w4a16", "w8a16"] {
        let folder = format!("{scheme}-onnx");
        let made =
            ["quantize", "builtin:milm-mini", "--preset=fast", "--rotate=none", "-o", scheme];
        run(&[&made[..], &["--scheme", scheme]].concat());
        run(&["export", scheme, "--to=onnx", "--graph=float", "-o", &folder]);
    }
    let config = |name: &str| fs::read(dir.path().join(name).join("config.json")).unwrap();
    assert!(config("w4a16-onnx") == config("w8a16-onnx"));
    let told = |model: &str| {
        let args = [model, "--tasks", "sample", "--task-window", "256", "--cache", "cache"];
        let done = eval(dir.path(), &args).success();
        String::from_utf8(done.get_output().stderr.clone()).unwrap()
    };
    assert!(told("w4a16-onnx").contains("arc-easy: 3 items, 0 remembered"));
    assert!(told("w8a16-onnx").contains("arc-easy: 3 items, 0 remembered"));
    assert!(told("w4a16-onnx").contains("arc-easy: 3 items, 3 remembered"));
}

#[test]
fn gates_on_tasks_decide_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let base = "base.json";
    sample(dir.path(), &["--limit", "1", "--json", base]).success();
    let gated =
        |gate: &str| sample(dir.path(), &["--limit", "1", "--reference", base, "--gate", gate]);
    gated("piqa >= 0").success().stdout(contains("passed"));
    gated("piqa >= 1.1").code(1).stdout(contains("FAILED"));
    // A model loses nothing against itself; that is too little to show much.
    gated("ceval loss <= 0").success().stdout(contains("0 lost, 0 won"));
    gated("ceval recovery >= 101%").code(1);
    gated("ceval/law:acc >= 0").success();
    for (gate, hint) in [
        ("nonsense >= 1", "not measured"),
        ("ceval loss >= 1", "is no gate"),
        ("kl <= 1", "not measured"),
        ("ceval/nothing >= 0", "not measured"),
    ] {
        gated(gate).code(2).stderr(contains(hint));
    }
    fs::write(dir.path().join("gates.txt"), "# nightly\npiqa >= 1.1  # never\n").unwrap();
    sample(dir.path(), &["--gates", "gates.txt", "--annotate"])
        .code(1)
        .stdout(contains("::error title=gate min-piqa failed::"));
    eval(dir.path(), &["--compare", base, base]).success().stdout(contains("hellaswag acc_norm"));
}

/// The demonstration model with a norm that is NaN.
fn without_numbers(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let opened = package::open("builtin:milm-mini").unwrap();
    for name in opened.folder.list().unwrap() {
        let bytes = opened.folder.read(&name).unwrap().unwrap();
        fs::write(folder.join(&name), &*bytes).unwrap();
    }
    let file = folder.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let at = {
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let norm = tensors.tensor("model.norm.weight").unwrap();
        norm.data().as_ptr() as usize - bytes.as_ptr() as usize
    };
    // NaN in bfloat16.
    bytes[at..at + 2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    fs::write(&file, bytes).unwrap();
}

#[test]
fn questions_that_gave_nan_are_kept_told_and_fail_every_gate() {
    let dir = tempfile::tempdir().unwrap();
    without_numbers(&dir.path().join("nan"));
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/eval/task/sample");
    let data = data.to_str().unwrap();
    let tasks = ["--tasks", "piqa,lambada,arc-easy", "--data", data];
    let run = |more: &[&str]| eval(dir.path(), &[&["nan"], &tasks[..], more].concat());
    let told = contains("questions gave NaN, counted as wrong");
    let cached = ["--cache", "cache", "--json"];
    let first = run(&[&cached[..], &["a.json"]].concat()).success().stdout(told.clone());
    let table = String::from_utf8(first.get_output().stdout.clone()).unwrap();
    let report = json(dir.path().join("a.json"));
    for task in report["tasks"].as_array().unwrap() {
        let (name, count) = (task["task"].as_str().unwrap(), &task["groups"][0]["items"]);
        assert_eq!(&task["undefined"], count, "{name}");
        let line = format!("{name}: {count} of {count} questions gave NaN");
        assert!(table.contains(&line), "{line}: {table}");
    }
    // The records are read back: from the cache, by a comparison, and as parts.
    let again = run(&[&cached[..], &["b.json"]].concat()).success();
    let notes = String::from_utf8(again.get_output().stderr.clone()).unwrap();
    assert!(notes.contains("arc-easy: 3 items, 3 remembered"), "{notes}");
    eval(dir.path(), &["--compare", "a.json", "b.json"]).success();
    fs::create_dir(dir.path().join("parts")).unwrap();
    for part in ["1", "2"] {
        let (file, part) = (format!("parts/{part}.json"), format!("{part}/2"));
        run(&["--shard", &part, "--json", &file]).success();
    }
    eval(dir.path(), &["--merge", "parts", "--json", "c.json"]).success().stdout(told);
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    assert!(read("a.json") == read("c.json") && read("a.jsonl") == read("c.jsonl"));
    // No gate passes, of this run or of what its parts are joined to.
    let failed = || contains("questions gave NaN, counted as wrong").and(contains("FAILED"));
    for gate in ["piqa >= 0", "lambada:perplexity <= 1e9"] {
        run(&["--gate", gate]).code(1).stdout(failed());
    }
    run(&["--gate", "piqa >= 0", "--junit", "e.xml"]).code(1);
    let xml = fs::read_to_string(dir.path().join("e.xml")).unwrap();
    assert!(xml.contains("measured 0; ") && xml.contains("questions gave NaN, counted"), "{xml}");
    run(&["--reference", "a.json", "--gate", "piqa loss <= 1"]).code(1).stdout(failed());
    let merged = ["--merge", "parts", "--gate", "piqa >= 0", "--json", "d.json"];
    eval(dir.path(), &merged).code(1).stdout(failed());
    let gate = &json(dir.path().join("d.json"))["gates"][0];
    assert!(gate["note"].as_str().unwrap().contains("questions gave NaN"), "{gate}");
}

/// Stored logits hold no answers: that is said before the text is measured.
#[test]
fn tasks_are_not_compared_with_stored_logits() {
    let dir = tempfile::tempdir().unwrap();
    let text = ["builtin:milm-mini", "--text", "builtin:en", "--ctx", "32", "--windows", "1"];
    eval(dir.path(), &[&text[..], &["--save-reference", "a.ref"]].concat()).success();
    let both = [&text[..], &["--reference", "a.ref", "--tasks", "sample"]].concat();
    eval(dir.path(), &both).code(2).stdout("").stderr(contains("the JSON of an earlier run"));
}

/// A suite brings its items, with or without the mark that some editors put before them.
#[test]
fn a_suite_by_its_path_needs_no_data() {
    let dir = tempfile::tempdir().unwrap();
    let suite = "name = \"own\"\nversion = 1\ndescription = \"One item\"\nmax-tokens = 4\n[[item]]\nid = \"sum\"\n\
                 category = \"generation\"\nsub = \"notice\"\nlanguage = \"en\"\nprompt = \"One and one is\"\n\
                 scorer = { kind = \"contains\", all = [\"two\"] }\n";
    for mark in ["", "\u{feff}"] {
        std::fs::write(dir.path().join("own.toml"), format!("{mark}{suite}")).unwrap();
        eval(dir.path(), &["builtin:milm-mini", "--tasks", "own.toml"])
            .success()
            .stdout(contains("own"));
    }
}

#[test]
fn judged_tasks_and_unknown_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ask =
        |tasks: &str| eval(dir.path(), &["builtin:milm-mini", "--tasks", tasks, "--data", "."]);
    ask("followbench-judge").code(2).stderr(contains("--judge"));
    ask("hellaswog").code(2).stderr(contains("hellaswag"));
    ask("hellaswag").code(2).stderr(contains("hellaswag_val.jsonl"));
    let none = program().args(["eval", "builtin:milm-mini", "--tasks", "piqa"]).assert();
    none.code(2).stderr(contains("MILM_DATA"));
}

/// What pipelines run ends with the three exit codes.
#[test]
fn pipelines_pass_fail_and_err() {
    if Command::new("bash").arg("--version").output().is_err() {
        return crate::util::skip("there is no bash");
    }
    let folder =
        Path::new(assert_cmd::cargo::cargo_bin!("milm-compress")).parent().unwrap().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(folder).chain(std::env::split_paths(&path));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci/try.sh");
    let done = assert_cmd::Command::new("bash")
        .arg(script)
        .env("PATH", std::env::join_paths(all).unwrap())
        .assert()
        .success();
    let told = String::from_utf8(done.get_output().stdout.clone()).unwrap();
    for code in 0..3 {
        assert!(told.contains(&format!("exit code {code}")), "{told}");
    }
}

/// A haystack is as long as asked in the model's own tokens, or a word shorter.
#[test]
fn haystacks_are_as_long_as_asked() {
    let opened = package::open("builtin:milm-mini").unwrap();
    let tokenizer = opened.tokenizer().unwrap();
    let data = Counted::new(&SAMPLE, tokenizer, false).unwrap();
    let options = Options { window: 1024, ..Options::default() };
    for (task, most) in [(NeedleTask::EN, 6), (NeedleTask::ZH, 6)] {
        let missing = |data: &dyn milm_compress::eval::task::Data| -> (Vec<i64>, usize) {
            let made = task.items(data, &options).unwrap();
            let of = made.items.iter().map(|item| {
                let length: i64 = item.id.split('/').next().unwrap().parse().unwrap();
                let text = item.requests[0].prompt().text(0);
                length - tokenizer.encode(&text, true).unwrap().len() as i64
            });
            (of.collect(), made.warnings.lines().count())
        };
        let (missed, warnings) = missing(&data);
        assert!(missed.len() == 10 && warnings == 0);
        assert!(missed.iter().all(|it| (0..=most).contains(it)), "{}: {missed:?}", task.name());
        let (estimated, warnings) = missing(&SAMPLE);
        assert_eq!(warnings, 1, "the twin: without a tokenizer");
        assert!(estimated.iter().all(|it| !(0..=most).contains(it)), "{estimated:?}");
    }
    assert!(data.tokens("two words").unwrap().is_some());
}
