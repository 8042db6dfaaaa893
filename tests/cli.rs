//! The program as a user runs it: exit codes, streams, messages, nothing half-written.
use crate::util;
use assert_cmd::Command;
use clap::CommandFactory as _;
use predicates::prelude::*;
use std::fs;

pub(crate) fn program() -> Command {
    let mut command = Command::cargo_bin("milm-compress").unwrap();
    command.env("NO_COLOR", "1");
    command
}

#[test]
fn every_verb_has_help_with_an_example() {
    let help = program().arg("--help").output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    let verbs: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| !matches!(*verb, "help" | "completions"))
        .collect();
    assert!(verbs.len() >= 2, "{text}");
    for verb in verbs {
        let example = format!("milm-compress {verb} ");
        program()
            .args([verb, "--help"])
            .assert()
            .success()
            .stdout(predicate::str::contains("Examples:").and(predicate::str::contains(example)));
    }
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    program().args(["logits", "--nonsense"]).assert().code(2);
}

/// Before a model is looked for. src/cli/numbers.rs has every number.
#[test]
fn numbers_out_of_range_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = dir.path().join("r.toml");
    let step = "[[step]]\ndo = \"quantize\"\ndamping = -1\n";
    fs::write(&recipe, step).unwrap();
    let recipe = recipe.to_str().unwrap();
    let compress = ["compress", recipe, "--model", "no-such-model", "-o", "no-such-output"];
    let set = [&compress[..], &["--set", "quantize.damping=0", "--set", "quantize.sweeps=-2"]];
    for (line, told) in [
        (&["quantize", "no-such-model", "--dry-run", "--damping=-1"][..], ["--damping", "'-1'"]),
        (&["prune", "no-such-model", "--dry-run", "--keep=nan"], ["--keep", "'nan'"]),
        (&["bench", "no-such-model", "--decode=0"], ["--decode", "'0'"]),
        (&compress, ["`quantize`: `damping`: ", "`-1`"]),
        (&set.concat(), ["`quantize`: `sweeps`: ", "`-2`"]),
    ] {
        let told = told.map(predicate::str::contains);
        let [name, found] = told;
        let range = predicate::str::contains("expected a");
        program().args(line).assert().code(2).stderr(name.and(found).and(range));
    }
    // What is in range is not held up: now the model is missing.
    let missing = predicate::str::contains("no-such-model");
    let line = ["quantize", "no-such-model", "--dry-run", "--damping=0"];
    program().args(line).assert().code(2).stderr(missing);
}

#[test]
fn a_missing_model_is_named() {
    let missing = predicate::str::contains("no-such-folder");
    program().args(["bench", "no-such-folder"]).assert().code(2).stderr(missing);
}

#[test]
fn an_unknown_architecture_is_named_with_the_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    let config = util::golden().join("llama-mha/config.json");
    let text = fs::read_to_string(config).unwrap();
    let text = text.replace("LlamaForCausalLM", "MambaForCausalLM");
    fs::write(dir.path().join("config.json"), text).unwrap();
    fs::copy(
        util::golden().join("llama-mha/model.safetensors"),
        dir.path().join("model.safetensors"),
    )
    .unwrap();
    program().args(["bench", dir.path().to_str().unwrap()]).assert().code(2).stderr(
        predicate::str::contains("MambaForCausalLM").and(predicate::str::contains("LlamaFor")),
    );
}

#[test]
fn logits_are_written_as_float32_and_never_over_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("logits.safetensors");
    let run = |more: &[&str]| {
        let mut command = program();
        command.args(["logits", "builtin:milm-mini", "--ids", "5,9,2", "-o"]).arg(&out).args(more);
        command.assert()
    };
    run(&["--threads", "1"]).success();
    let first = fs::read(&out).unwrap();
    let logits = &util::tensors(&out)["logits"];
    assert_eq!((logits.shape.as_slice(), logits.dtype), (&[3, 4096][..], safetensors::Dtype::F32));
    run(&[]).code(2).stderr(predicate::str::contains("--force"));
    run(&["--force", "--threads", "3"]).success();
    assert_eq!(fs::read(&out).unwrap(), first, "same bytes at any number of threads");
    run(&["--force", "--ids", "4096"]).code(2).stderr(predicate::str::contains("4096"));
    assert_eq!(fs::read(&out).unwrap(), first, "an error changes nothing");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "and leaves nothing");
}

#[test]
fn export_writes_one_file_and_never_over_another() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("mini.gguf");
    let run = |more: &[&str]| {
        let mut command = program();
        command.args(["export", "builtin:milm-mini", "--to", "gguf", "-o"]).arg(&out).args(more);
        command.assert()
    };
    run(&[]).success().stderr(predicate::str::contains("architecture llama"));
    let first = fs::read(&out).unwrap();
    run(&["--dtype", "f32"]).code(2).stderr(predicate::str::contains("--force"));
    assert!(fs::read(&out).unwrap() == first, "an error changes nothing");
    run(&["--force", "--dtype", "f32"]).success();
    assert!(fs::read(&out).unwrap().len() > first.len());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// `eval` and `bench` measure what `run` computes, and `run` computes in the package's integers.
#[test]
fn what_is_run_is_what_is_measured() {
    let mut definition = milm_compress::cli::Cli::command();
    definition.build();
    for (verb, backend) in
        [("run", "kernels"), ("bench", "kernels"), ("eval", "kernels"), ("logits", "reference")]
    {
        let flags = definition.find_subcommand(verb).unwrap().get_arguments();
        let flag = flags.into_iter().find(|it| it.get_long() == Some("backend")).unwrap();
        assert_eq!(flag.get_default_values(), [backend], "{verb}");
    }
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("package");
    let quantize = ["quantize", "builtin:milm-mini", "--preset", "fast", "--scheme", "w4a8"];
    program().args(quantize).arg("-o").arg(&package).assert().success();
    let text = |more: &[&str]| {
        let mut command = program();
        command.arg("run").arg(&package).args(["--prompt", "It was", "--temperature", "1"]);
        command.args(["--max-tokens", "100"]);
        String::from_utf8(command.args(more).output().unwrap().stdout).unwrap()
    };
    assert_eq!(text(&[]), text(&["--backend", "kernels"]));
    assert_ne!(text(&[]), text(&["--backend", "reference"]), "int8 activations show");
}

#[test]
fn bench_gives_json_that_a_machine_reads() {
    let output = program()
        .args(["bench", "builtin:milm-mini", "--prefill", "8", "--decode", "4"])
        .args(["--repeats", "2", "--json", "-"])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], 1);
    for part in ["prefill_tokens_per_second", "decode_tokens_per_second"] {
        let of = |key: &str| report[part][key].as_f64().unwrap();
        assert!(0.0 < of("min") && of("min") <= of("median") && of("median") <= of("max"));
    }
}

#[test]
fn completions_and_the_manual_are_printed() {
    let complete = predicate::str::contains("milm-compress");
    program().args(["completions", "bash"]).assert().success().stdout(complete.clone());
    program().arg("man").assert().success().stdout(complete);
}
