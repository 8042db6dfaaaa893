//! What is written: every way to cut, on every family.
use super::{Job, files, golden, with};
use crate::{cli::program, util};
use milm_compress::{
    forward::{self, Reference},
    linalg::Team,
    package,
    pipeline::Pruned,
    progress::Silent,
    prune::{AttnUnit, Pairs, Repair, Settings, ValueMethod, score::SCORES},
};
use serde_json::Value;
use std::{fs, path::Path};

const FAMILIES: [&str; 9] = [
    "llama",
    "llama-mha",
    "llama-tied-bias",
    "mistral-sliding",
    "mixtral",
    "qwen2",
    "qwen2-moe",
    "qwen3-moe",
    "qwen3-tied",
];

/// Prunes, verifies, opens and runs what was written.
pub(crate) fn prune(name: &str, settings: Settings, target: &Path) -> Pruned {
    let what = format!("{name}: {settings:?}");
    let opened = golden(name);
    let pruned = Job::new(&opened, settings).write(target);
    let pruned = pruned.unwrap_or_else(|error| panic!("{what}: {error}"));
    let folder = target.to_str().unwrap();
    let verified = package::verify(folder, &Team::new(1), &Silent).unwrap();
    assert!(verified.passed(), "{what}: {:?}", verified.problems);
    let small = package::open(folder).unwrap().model;
    assert_eq!(small.spec.parameters(), pruned.plan.after.parameters, "{what}");
    let logits = forward::logits(&small, &Reference, &super::ids(7, 40), &Team::new(1)).unwrap();
    assert!(logits.iter().all(|x| x.is_finite()), "{what}");
    for cost in &pruned.costs {
        for figures in [&cost.before_repair, &cost.after_repair] {
            let kl = figures.divergence.as_ref().unwrap().kl_mean.value;
            assert!(kl.is_finite() && kl >= 0.0, "{what}: {kl}");
        }
    }
    assert_eq!(pruned.costs.len(), 2, "{what}");
    pruned
}

/// Least squares can only lower the error that it minimizes: with the ridge,
/// E(W) + λ‖W − W₀‖² ≤ E(W₀). Sums are float32, quotients below 1e-6 rounding.
fn lower(pruned: &Pruned, what: &str) {
    assert!(!pruned.refits.is_empty(), "{what}");
    for refit in &pruned.refits {
        let (before, after) = (refit.error_before, refit.error_after);
        assert!(after <= before + 2e-6, "{what}, {}: {before} to {after}", refit.tensor);
    }
}

#[test]
fn every_family_is_cut_in_every_way() {
    let top = tempfile::tempdir().unwrap();
    for name in FAMILIES {
        let ways: [(&str, Settings); 6] = [
            ("keep", with(|it| it.keep = Some(0.6))),
            ("ffn", with(|it| it.ffn_width = Some(24))),
            (
                "groups",
                with(|it| (it.attn_width, it.attn_unit) = (Some(32), Some(AttnUnit::Groups))),
            ),
            ("pairs", with(|it| (it.attn_width, it.attn_unit) = (Some(32), Some(AttnUnit::Pairs)))),
            ("shots", with(|it| (it.keep, it.shots) = (Some(0.6), 2))),
            ("layers", with(|it| it.drop_layers = Some(1))),
        ];
        for (way, settings) in ways {
            let what = format!("{name}-{way}");
            let pruned = prune(name, settings, &top.path().join(&what));
            assert!(pruned.plan.after.parameters < pruned.plan.before.parameters, "{what}");
            if way == "layers" {
                assert_eq!((pruned.plan.dropped_blocks, pruned.refits.len()), (1, 0), "{what}");
            } else {
                lower(&pruned, &what);
            }
            let narrow = name.starts_with("qwen3") && way == "pairs";
            let told = pruned.plan.notes.iter().any(|note| note.contains("gains are rescaled"));
            assert_eq!(told, narrow, "{what}: {:?}", pruned.plan.notes);
        }
    }
}

#[test]
fn normalized_heads_go_whole_unless_it_is_said() {
    let top = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| top.path().join(name));
    let widths = |unit| with(|it| (it.attn_width, it.attn_unit) = (Some(32), unit));
    let groups = prune("qwen3-tied", widths(None), &a);
    let pairs = prune("qwen3-tied", widths(Some(AttnUnit::Pairs)), &b);
    let shape = |it: &Pruned| (it.plan.blocks[0].kv_heads, it.plan.blocks[0].head_dim);
    assert_eq!((shape(&groups), shape(&pairs)), ((1, 16), (2, 8)));
}

#[test]
fn every_score_by_name() {
    let top = tempfile::tempdir().unwrap();
    let mut chosen = Vec::new();
    for score in SCORES {
        for repair in [Repair::None, Repair::LeastSquares] {
            for values in [ValueMethod::Svd, ValueMethod::Select] {
                let settings = with(|it| {
                    (it.keep, it.score) = (Some(0.6), score.name().to_owned());
                    (it.repair, it.values) = (repair, values);
                });
                let target = top.path().join(format!("{}-{repair:?}-{values:?}", score.name()));
                let pruned = prune("llama", settings, &target);
                assert_eq!(pruned.refits.is_empty(), repair == Repair::None);
                if (repair, values) == (Repair::None, ValueMethod::Select) {
                    chosen.push(files(&target)["model.safetensors"].clone());
                }
            }
        }
    }
    // The twin: names stand for different scores.
    let all = chosen.len();
    chosen.sort();
    chosen.dedup();
    assert!(chosen.len() >= all - 1, "{} of {all} scores choose differently", chosen.len());
}

#[test]
fn nothing_cut_is_the_identity() {
    let top = tempfile::tempdir().unwrap();
    for name in FAMILIES {
        let target = top.path().join(name);
        let whole = with(|it| (it.keep, it.repair) = (Some(1.0), Repair::None));
        let pruned = prune(name, whole, &target);
        assert_eq!(pruned.plan.after, pruned.plan.before, "{name}");
        let (old, new) = (golden(name).model, util::open(&target));
        assert_eq!(old.config, new.config, "{name}");
        for (tensor, raw) in &old.weights.raw {
            let is = &new.weights.raw[tensor];
            assert!(is.dtype == raw.dtype && *is.bytes == *raw.bytes, "{name}: {tensor}");
        }
        for cost in &pruned.costs {
            let kl = cost.after_repair.divergence.as_ref().unwrap().kl_mean.value;
            assert!(kl < 1e-12, "{name}: {kl}");
        }
    }
}

#[test]
fn widths_per_block_keep_the_total() {
    let top = tempfile::tempdir().unwrap();
    let [even, spread] = ["even", "spread"].map(|name| top.path().join(name));
    let settings = |allocate| with(|it| (it.ffn_width, it.allocate) = (Some(48), allocate));
    let plain = prune("llama", settings(false), &even);
    let opened = golden("llama");
    let pruned = Job::new(&opened, settings(true)).write(&spread).unwrap();
    let model = util::open(&spread);
    assert_eq!(model.spec.parameters(), plain.plan.after.parameters);
    let widths: Vec<u64> = model.config["intermediate_size"].as_array().map_or_else(
        || panic!("equal widths: {}", model.config["intermediate_size"]),
        |list| list.iter().filter_map(Value::as_u64).collect(),
    );
    assert_eq!((widths.iter().sum::<u64>(), widths.len()), (3 * 48, 3), "{widths:?}");
    let told = pruned.plan.blocks.iter().map(|block| block.mlp[&None] as u64);
    assert_eq!(told.collect::<Vec<_>>(), widths, "the report tells the widths as they became");
}

#[test]
fn heads_with_pairs_of_their_own() {
    let top = tempfile::tempdir().unwrap();
    let [shared, own] = ["shared", "own"].map(|name| top.path().join(name));
    let settings = |pairs| with(|it| (it.attn_width, it.pairs) = (Some(32), pairs));
    let of = |target: &Path| util::open(target).config["rope_scaling"]["rope_type"].clone();
    let plain = prune("llama", settings(Pairs::Shared), &shared);
    let kept = prune("llama", settings(Pairs::PerHead), &own);
    assert_eq!((of(&shared), of(&own)), ("longrope".into(), "kept-pairs".into()));
    assert_eq!(plain.plan.after, kept.plan.after);
    assert!(kept.plan.notes.iter().any(|note| note.contains("only this project's runtime")));
}

const CALIBRATION: [&str; 2] = ["--calibration-samples=16", "--calibration-tokens=128"];

fn mini(target: &Path, more: &[&str]) -> Value {
    let mut command = program();
    command.args(["prune", "builtin:milm-mini", "-o"]).arg(target).args(CALIBRATION).args(more);
    command.assert().success();
    serde_json::from_slice(&fs::read(target.join("prune.json")).unwrap()).unwrap()
}

/// On a trained model, and on text that it was not fitted to: the refit helps.
#[test]
fn least_squares_helps_on_held_out_text() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let report = mini(&target, &["--keep=0.7", "--balance=1"]);
    let refits = report["refits"].as_array().unwrap();
    assert_eq!(refits.len(), 16, "two of each block");
    for refit in refits {
        let of = |key: &str| refit[key].as_f64().unwrap();
        assert!(of("error_after") <= of("error_before") + 2e-6, "{refit}");
    }
    let kl =
        |part: &str| report["costs"][0][part]["divergence"]["kl_mean"]["value"].as_f64().unwrap();
    let (before, after) = (kl("before_repair"), kl("after_repair"));
    assert!(after < before, "{before} to {after}");
    let mut run = program();
    run.args([
        "run",
        target.to_str().unwrap(),
        "--prompt",
        "Once upon a time",
        "--max-tokens",
        "4",
    ]);
    assert!(!run.assert().success().get_output().stdout.is_empty());
}

/// Scores come from the same sums, whether they were stored or not.
#[test]
fn stored_statistics_choose_the_same_units() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("mini.statistics");
    let calibrate = |more: &[&str], file: &Path| {
        let mut command = program();
        command.args(["calibrate", "builtin:milm-mini", "-o"]).arg(file).args(more);
        command.args(CALIBRATION).assert().success();
    };
    calibrate(&[], &file);
    let statistics = format!("--statistics={}", file.display());
    for (name, flags) in [
        ("plain", ["--keep=0.8", "--balance=1", "--repair=none", "--score=transact"]),
        ("obs", ["--keep=0.6", "--balance=1", "--repair=none", "--score=obs"]),
        ("shots", ["--keep=0.6", "--balance=1", "--repair=none", "--shots=2"]),
    ] {
        let [walked, stored] =
            ["walked", "stored"].map(|it| top.path().join(format!("{name}-{it}")));
        mini(&walked, &flags);
        mini(&stored, &[&flags[..], &[&statistics]].concat());
        let [walked, stored] = [walked, stored].map(|it| files(&it));
        assert!(walked["config.json"] == stored["config.json"], "{name}");
        assert!(walked["model.safetensors"] == stored["model.safetensors"], "{name}");
    }
    let repaired = mini(&top.path().join("repaired"), &["--keep=0.8", &statistics]);
    assert_eq!(repaired["refits"].as_array().unwrap().len(), 16);

    // The twins: statistics of another draw or without covariances are not taken.
    let [other, bare] = ["other", "bare"].map(|name| top.path().join(name));
    calibrate(&["--seed=1"], &other);
    calibrate(&["--covariance=none"], &bare);
    for (file, told) in
        [(other, ["stale statistics", "seed"]), (bare, ["no statistics of the input of O", "hint"])]
    {
        let target = top.path().join("no");
        let mut command = program();
        command.args(["prune", "builtin:milm-mini", "--keep=0.8", "-o"]).arg(&target);
        command.args(CALIBRATION).arg("--statistics").arg(&file);
        let text = String::from_utf8(command.assert().code(2).get_output().stderr.clone()).unwrap();
        assert!(told.iter().all(|part| text.contains(part)), "{text}");
        assert!(!target.exists() && !target.with_extension("partial").exists());
    }
}
