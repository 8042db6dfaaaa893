//! Pruned models in stock engines: transformers and llama.cpp compute what we compute.
//!
//! `MILM_SMOLLM2_DIR` names a folder that holds `smollm2-bf16`; without it the carried model is
//! pruned.
use crate::{
    cli::program,
    gguf::export::{in_llama_cpp, largest, logits, write},
    prune::{cut::prune, ids, with},
    util::engines,
};
use milm_compress::{
    forward::Reference,
    linalg::Team,
    model::Model,
    package::{
        self, Declared,
        gguf::{ExportOptions, accepts},
    },
    progress::Silent,
    prune::AttnUnit,
    runtime::{Engine, GenerateSettings, generate},
    scheme::Schemes,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const SAID: &str = "The capital of France is a city where many people live and work.";
const GREEDY: usize = 24;

/// Ids and logits of each folder in transformers.
fn in_transformers(
    python: &Path,
    folders: &[PathBuf],
    flags: &[&str],
) -> Vec<(Vec<u32>, Vec<f32>)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/transformers_logits.py");
    let out = |folder: &Path| folder.with_extension("f32");
    let paths = folders.iter().flat_map(|folder| [folder.clone(), out(folder)]);
    let ran = Command::new(python).arg(script).args(flags).args(paths).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let lines = String::from_utf8(ran.stdout).unwrap();
    let each = lines.lines().zip(folders).map(|(line, folder)| {
        let bytes = fs::read(out(folder)).unwrap();
        let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        (serde_json::from_str(line).unwrap(), values)
    });
    each.collect()
}

/// The model that the environment names.
fn parent() -> PathBuf {
    std::env::var_os("MILM_SMOLLM2_DIR").map_or_else(
        || PathBuf::from("builtin:milm-mini"),
        |folder| PathBuf::from(folder).join("smollm2-bf16"),
    )
}

fn pruned(target: &Path, flags: &[&str]) {
    let mut command = program();
    command.arg("prune").arg(parent()).arg("-o").arg(target).args(flags);
    command.args(["--keep=0.8", "--balance=1", "--measure-windows=1"]);
    command.assert().success();
}

/// The prompt's ids, and these with our greedy continuation.
fn greedy(folder: &Path) -> (Vec<u32>, Vec<u32>) {
    let opened = package::open(folder.to_str().unwrap()).unwrap();
    let tokenizer = opened.tokenizer().unwrap();
    let prompt = tokenizer.encode(SAID, true).unwrap();
    let team = Team::new(2);
    let mut engine = Engine::load(&opened.model, &Reference, &team, &Silent).unwrap();
    let wanted = GenerateSettings { max_tokens: GREEDY, ..GenerateSettings::default() };
    let done = generate(&mut engine, tokenizer, &prompt, &wanted, &mut |_| true).unwrap();
    println!("{}:{}", folder.display(), done.text);
    let all = prompt.iter().copied().chain(done.ids).collect();
    (prompt, all)
}

fn list(ids: &[u32]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn top(values: &[f32]) -> f32 {
    values.iter().fold(0.0_f32, |most, value| most.max(value.abs()))
}

/// Largest difference of log-probabilities among the ten likeliest tokens of each position.
fn likeliest(ours: &[f32], theirs: &[f32], vocab: usize) -> f64 {
    let mut worst = 0.0_f64;
    for (ours, theirs) in ours.chunks(vocab).zip(theirs.chunks(vocab)) {
        let sum = |it: &[f32]| it.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        let (a, b) = (sum(ours), sum(theirs));
        let mut order: Vec<usize> = (0..vocab).collect();
        order.sort_by(|i, j| ours[*j].total_cmp(&ours[*i]));
        for token in &order[..10] {
            let (ours, theirs) = (f64::from(ours[*token]) - a, f64::from(theirs[*token]) - b);
            worst = worst.max((ours - theirs).abs());
        }
    }
    worst
}

/// The same model with the frequencies of its parent's first pairs is another one: what the engines are
/// compared by sees it.
fn with_other_frequencies(model: &Model) -> Model {
    let mut other = model.clone();
    let parent = package::open(parent().to_str().unwrap()).unwrap().model.spec.rope;
    (other.spec.rope.theta, other.spec.rope.scaling) = (parent.theta, parent.scaling);
    other
}

/// One model in both engines.
#[test]
fn stock_engines_run_a_pruned_model() {
    let Some(python) = engines() else { return };
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    pruned(&shared, &["--calibration-samples=32"]);
    let model = crate::util::open(&shared);
    // Heads that kept their first pairs turn as their parent's by another base.
    let parent = package::open(parent().to_str().unwrap()).unwrap().model;
    assert!(model.spec.blocks[0].head_dim < parent.spec.blocks[0].head_dim, "{}", model.config);
    assert!(model.config["rope_theta"] != parent.config["rope_theta"], "{}", model.config);
    by_transformers(&python, &shared, &model);
    by_llama_cpp(&python, &shared, &model);
    let allocated = folder.path().join("allocated");
    pruned(&allocated, &["--allocate", "--calibration-samples=8"]);
    let model = crate::util::open(&allocated);
    assert!(model.config["intermediate_size"].is_array(), "{}", model.config);
    by_llama_cpp(&python, &allocated, &model);
}

/// Float32 on both sides: what differs is the order of sums.
fn by_transformers(python: &Path, target: &Path, model: &Model) {
    let (prompt, ours) = greedy(target);
    let flags = ["--ids", &list(&prompt), "--greedy", &GREEDY.to_string()];
    let (theirs, got) = in_transformers(python, &[target.to_owned()], &flags).remove(0);
    assert_eq!(theirs, ours, "the same text");
    let want = logits(model, &ours);
    let (found, most) = (largest(&got, &want), top(&want));
    println!("transformers: {found} of {most}");
    assert!(found < 1e-3 * most, "{found} of {most}");
    let wrong = largest(&got, &logits(&with_other_frequencies(model), &ours));
    assert!(wrong > 1e-2 * most, "other frequencies change {wrong} of {most} only");
}

/// With float32 weights only the order of sums differs. With float16 weights llama.cpp rounds the
/// inputs of every layer by up to 2⁻¹¹ of each, and what that does grows with the depth: 0.0025 in
/// eight blocks, 0.07 and 0.19 in thirty of models that pruning made less sure. No bound follows
/// from the format alone; half a nat tells a wrong file from a rounded one.
fn by_llama_cpp(python: &Path, target: &Path, model: &Model) {
    let name = target.file_name().unwrap().to_str().unwrap();
    let (prompt, ours) = greedy(target);
    let (want, vocab) = (logits(model, &ours), model.spec.vocab);
    let input = ["--text", SAID, "--greedy", &GREEDY.to_string()];
    let (theirs, got) = in_llama_cpp(python, &exported(target, "f32"), &input);
    assert_eq!(theirs[..prompt.len()], prompt, "{name}: the same tokens");
    assert_eq!(theirs, ours, "{name}: the same text");
    let (found, most) = (likeliest(&want, &got, vocab), largest(&got, &want));
    println!("llama.cpp, {name}, f32: {found} among the likeliest, {most} of {}", top(&want));
    assert!(found < 0.002, "{name}: {found}");
    let other = likeliest(&logits(&with_other_frequencies(model), &ours), &got, vocab);
    assert!(other > 0.1, "{name}: other frequencies change {other} only");
    let (_, got) = in_llama_cpp(python, &exported(target, "f16"), &["--ids", &list(&ours)]);
    let (found, most) = (likeliest(&want, &got, vocab), largest(&got, &want));
    println!("llama.cpp, {name}, f16: {found} among the likeliest, {most} of {}", top(&want));
    assert!(found < 0.5, "{name}: {found}");
}

/// Every family that is said to load, in the way that is said to.
#[test]
fn transformers_runs_every_family() {
    let Some(python) = engines() else { return };
    let top_folder = tempfile::tempdir().unwrap();
    let mut folders = Vec::new();
    for name in
        ["llama", "mistral-sliding", "mixtral", "qwen2", "qwen2-moe", "qwen3-moe", "qwen3-tied"]
    {
        for unit in [AttnUnit::Pairs, AttnUnit::Heads, AttnUnit::Groups] {
            let target = top_folder.path().join(format!("{name}-{unit:?}"));
            let settings = with(|it| (it.keep, it.attn_unit) = (Some(0.6), Some(unit)));
            let pruned = prune(name, settings, &target);
            assert!(pruned.plan.after.parameters < pruned.plan.before.parameters);
            let model = crate::util::open(&target);
            let fits = package::engines(Declared {
                spec: &model.spec,
                config: &model.config,
                schemes: &Schemes::new(),
            });
            match &fits.iter().find(|fit| fit.engine == "transformers").unwrap().loads {
                Ok(()) => folders.push(target),
                Err(reason) => println!("{name} {unit:?}: {reason}"),
            }
        }
    }
    let said = ids(5, 24);
    let results = in_transformers(&python, &folders, &["--ids", &list(&said)]);
    assert_eq!(results.len(), folders.len());
    for (folder, (_, got)) in folders.iter().zip(results) {
        let want = logits(&crate::util::open(folder), &said);
        let (found, most) = (largest(&got, &want), top(&want));
        println!("{}: {found} of {most}", folder.file_name().unwrap().to_str().unwrap());
        assert!(found < 1e-3 * most, "{}: {found} of {most}", folder.display());
    }
}

fn exported(folder: &Path, dtype: &str) -> PathBuf {
    let file = folder.with_extension(format!("{dtype}.gguf"));
    let mut command = program();
    command.arg("export").arg(folder).args(["--to", "gguf", "--dtype", dtype, "-o"]).arg(&file);
    command.assert().success();
    file
}

/// What is said of llama.cpp before the work is what the export does after it, and what goes out
/// is computed alike.
#[test]
fn llama_cpp_takes_what_the_plan_says() {
    let folder = tempfile::tempdir().unwrap();
    let python = engines();
    for name in ["llama", "llama-tied-bias", "mistral-sliding", "qwen2", "qwen3-tied", "mixtral"] {
        for unit in [AttnUnit::Pairs, AttnUnit::Heads, AttnUnit::Groups] {
            let what = format!("{name}-{unit:?}");
            let target = folder.path().join(&what);
            let settings = with(|it| (it.keep, it.attn_unit) = (Some(0.6), Some(unit)));
            prune(name, settings, &target);
            let model = crate::util::open(&target);
            let fits = package::engines(Declared {
                spec: &model.spec,
                config: &model.config,
                schemes: &Schemes::new(),
            });
            let fit = fits.iter().find(|fit| fit.engine == "llama.cpp").unwrap();
            assert_eq!(fit.loads.is_ok(), accepts(&model.spec).is_ok(), "{what}: {:?}", fit.loads);
            let Some(python) = python.as_ref().filter(|_| fit.loads.is_ok()) else { continue };
            let file = target.with_extension("gguf");
            write(&model, &file, ExportOptions::default()).unwrap();
            let said = ids(5, 12);
            let (_, got) = in_llama_cpp(python, &file, &["--ids", &list(&said)]);
            let found = largest(&got, &logits(&model, &said));
            println!("{what}: {found}");
            assert!(found < 1e-3, "{what}: {found}");
        }
    }
}
