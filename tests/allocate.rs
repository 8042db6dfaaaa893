//! Schemes within a budget.
use crate::{cli::program, util};
use milm_compress::{
    eval::row_divergences,
    forward::{Reference, logits},
    linalg::Team,
    model::{Model, Tensors},
    package,
    pipeline::{Allocate, Allocation, PipelineError},
    progress::Silent,
    quantize::{
        Candidates, Method, QuantizeError, Rule, Settings, ShardSize, TargetEngine, plan, rtn::Rtn,
    },
    tensor::RawTensor,
};
use std::{collections::BTreeSet, fs};

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings { engine: Some(TargetEngine::Milm), ..Settings::default() };
    change(&mut settings);
    settings
}

fn of(settings: &Settings) -> Result<Option<Candidates>, QuantizeError> {
    Candidates::of(&package::open("builtin:milm-mini").unwrap().model, settings)
}

#[test]
fn the_smallest_package_is_named_and_can_be_had() {
    assert!(of(&Settings::default()).unwrap().is_none(), "no budget, nothing to allocate");
    let error = of(&settings(|it| it.avg_bits = Some(3.0))).unwrap_err();
    let QuantizeError::Budget { smallest, wanted, .. } = error else { panic!("{error}") };
    assert!(wanted < smallest);
    let exact = of(&settings(|it| it.max_bytes = Some(ShardSize(smallest))));
    let exact = exact.unwrap().unwrap();
    let losses: Vec<Vec<f64>> =
        exact.units.iter().map(|unit| vec![1.0; unit.choices.len()]).collect();
    assert_eq!(exact.bytes(&exact.choose(&losses)), smallest);
    let below = ShardSize(smallest - 1);
    assert!(of(&settings(|it| it.max_bytes = Some(below))).is_err());
}

/// Sizes come from the plan with the rules, and rules that are given hold.
#[test]
fn rules_give_the_promised_bytes() {
    let model = package::open("builtin:milm-mini").unwrap().model;
    let given = "re:model.layers.1\\..*=w8a16".parse::<Rule>().unwrap();
    let wanted = settings(|it| {
        it.avg_bits = Some(5.5);
        it.rules = vec![given];
    });
    let candidates = Candidates::of(&model, &wanted).unwrap().unwrap();
    // Four units in each of 7 blocks, the embedding; block 1 is said.
    assert_eq!(candidates.units.len(), 4 * 7 + 1);
    let losses: Vec<Vec<f64>> = (0..candidates.units.len())
        .map(|u| {
            let choices = candidates.units[u].choices.len();
            (0..choices).map(|c| (choices - c) as f64 * (u % 5) as f64).collect()
        })
        .collect();
    let chosen = candidates.choose(&losses);
    let mut rules = candidates.rules(&chosen);
    rules.extend(wanted.rules.iter().cloned());
    let plan = plan(&model, &Settings { rules, ..wanted }).unwrap();
    assert_eq!(plan.bytes(), candidates.bytes(&chosen));
    assert!(plan.bits_per_weight() <= 5.5 && plan.bits_per_weight() > 5.4);
}

fn windows() -> Vec<Vec<u32>> {
    (0..2).map(|w| (0..24).map(|t| (t * 7 + w * 5 + t * w) % 61).collect()).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "the form that allocation asks for")]
fn block(model: &Model, block: usize) -> Result<Tensors, PipelineError> {
    let inside = model.spec.tensors.iter().filter(|it| it.block == Some(block));
    Ok(inside.map(|it| (it.name.clone(), model.weights.raw[&it.name].clone())).collect())
}

fn allocated(model: &Model, candidates: &Candidates, threads: usize) -> Allocation {
    let allocate = Allocate {
        outline: model,
        block: &|at| block(model, at),
        candidates,
        method: Method::Mse,
        adaptive: false,
        windows: &windows(),
        team: &Team::new(threads),
        progress: &Silent,
    };
    allocate.run().unwrap()
}

/// The loss of a unit is the divergence of the whole model with this unit rounded, and its other
/// choices follow the error of the outputs.
#[test]
fn losses_are_those_of_the_model_with_one_unit_rounded() {
    let team = Team::new(2);
    for name in ["llama-mha", "qwen3-tied", "qwen2-moe"] {
        let model = util::open(&util::golden().join(name));
        let candidates = Candidates::of(&model, &settings(|it| it.avg_bits = Some(12.0)));
        let candidates = candidates.unwrap().unwrap();
        let allocation = allocated(&model, &candidates, 2);
        assert_eq!(allocation, allocated(&model, &candidates, 1), "{name}: threads");
        for (unit, told) in candidates.units.iter().zip(&allocation.units) {
            let at = unit.choices.iter().position(|it| it.scheme == told.measured).unwrap();
            let mut changed = model.clone();
            for (tensor, scheme) in unit.tensors.iter().zip(&unit.choices[at].schemes) {
                let raw = &model.weights.raw[tensor];
                let method = Method::Mse;
                let grid = Rtn { grid: scheme.weights, scale_type: scheme.scale_type, method };
                let shape = [raw.shape[0], raw.shape[1]];
                let values = grid.tensor(&raw.to_f32().unwrap(), shape).dequantize();
                let values = RawTensor::from_f32(raw.shape.clone(), &values);
                changed.weights.raw.insert(tensor.clone(), values);
            }
            let all = windows().into_iter().flat_map(|ids| {
                let of = |model| logits(model, &Reference, &ids, &team).unwrap();
                row_divergences(&of(&model), &of(&changed), &team)
            });
            let all: Vec<f64> = all.collect();
            let want = all.iter().sum::<f64>() / all.len() as f64;
            let got = told.choices[at].loss;
            assert!(
                want > 0.0 && (got / want - 1.0).abs() < 1e-6,
                "{name} {}: {got} {want}",
                unit.name
            );
            let int8 = told.choices.last().unwrap();
            assert!(int8.scheme == "w8a16-channel" && int8.loss < got / 20.0, "{int8:?} of {got}");
        }
    }
}

/// More bytes never lose more, and layers that engines fuse share a scheme.
#[test]
fn a_larger_budget_loses_less() {
    let model = util::open(&util::golden().join("mixtral"));
    let mut before = f64::INFINITY;
    let mut schemes = BTreeSet::new();
    for bits in [6.5, 7.0, 8.0, 9.0] {
        let wanted = settings(|it| it.avg_bits = Some(bits));
        let candidates = Candidates::of(&model, &wanted).unwrap().unwrap();
        let allocation = allocated(&model, &candidates, 2);
        assert!(allocation.bytes <= allocation.budget && allocation.loss < before);
        before = allocation.loss;
        let rules = [allocation.rules(&candidates), wanted.rules.clone()].concat();
        let plan = plan(&model, &Settings { rules, ..wanted }).unwrap();
        assert_eq!(plan.bytes(), allocation.bytes);
        for unit in &candidates.units {
            let of: BTreeSet<String> = unit
                .tensors
                .iter()
                .map(|it| plan.tensors[it].scheme.unwrap().weights.to_string())
                .collect();
            assert_eq!(of.len(), 1, "{}", unit.name);
            schemes.extend(of);
        }
    }
    assert!(schemes.len() > 2, "{schemes:?}");
}

#[test]
fn the_program_keeps_to_the_budget() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let run = |more: &[&str]| {
        let mut command = program();
        command.args(["quantize", "builtin:milm-mini", "--for=milm", "--calibration-samples=16"]);
        command.args(["--calibration-tokens=128", "-o"]).arg(&target).args(more).assert()
    };
    let told = run(&["--max-bytes", "2500000"]).success().get_output().stdout.clone();
    assert!(String::from_utf8(told).unwrap().contains("budget of 2.50 MB"));
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(target.join("quantize.json")).unwrap()).unwrap();
    let bytes = report["allocation"]["bytes"].as_u64().unwrap();
    let opened = package::open(target.to_str().unwrap()).unwrap();
    let stored: usize = opened.model.weights.raw.values().map(|it| it.bytes.len()).sum();
    assert_eq!(stored as u64, bytes);
    assert!(bytes <= 2_500_000 && bytes > 2_400_000, "{bytes}");
    let refused = run(&["--force", "--avg-bits", "2"]).failure().get_output().stderr.clone();
    assert!(String::from_utf8(refused).unwrap().contains("the smallest has"));
}
