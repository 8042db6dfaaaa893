//! Statistics of activations: against the forward pass, against definitions, through a file.
use crate::{cli::program, util};
use milm_compress::{
    calibrate::{
        BlockStatistics, CalibrateError, DataFingerprint, Fingerprint, Request, Statistics,
        StatisticsWriter, Walk, min_max_grids, statistics_bytes,
    },
    forward::{Reference, walk},
    linalg::Team,
    model::{Expert, Mlp, Model, Part, Role},
    progress::Silent,
    tensor::{Bytes, RawTensor},
};
use predicates::prelude::*;
use std::{fs, path::Path};

fn all() -> Request {
    let covariance = [Role::Q, Role::O, Role::Gate, Role::Down].into();
    Request { covariance, heads: true, cross: false }
}

fn windows() -> Vec<Vec<u32>> {
    (0..3).map(|w| (0..24).map(|t| (t * 7 + w * 5 + t * w) % 61).collect()).collect()
}

fn observe(model: &Model, windows: &[Vec<u32>], threads: usize) -> Vec<BlockStatistics> {
    let team = Team::new(threads);
    let mut walk = Walk::new(model, &Reference, windows, (&team, &Silent)).unwrap();
    let request = all();
    (0..model.spec.blocks.len()).map(|_| walk.observe(&request).unwrap()).collect()
}

#[test]
fn the_streams_are_those_of_the_forward_pass_within_bfloat16() {
    let model = util::open(&util::golden().join("llama-mha"));
    let team = Team::new(2);
    let exact = walk(&model, &Reference, &windows(), &team, &Silent).unwrap();
    let mut walk = Walk::new(&model, &Reference, &windows(), (&team, &Silent)).unwrap();
    for _ in &model.spec.blocks {
        walk.observe(&Request::default()).unwrap();
    }
    let blocks = model.spec.blocks.len();
    for (w, exact) in exact.iter().enumerate() {
        let got = walk.states().load(w);
        let norm = |x: &ndarray::Array2<f32>| x.iter().map(|x| x * x).sum::<f32>().sqrt();
        // Each rounding moves the stream by at most 2⁻⁹ of its size; a block may pass such a
        // change on enlarged, by less than 4 in these models.
        let bound = (blocks + 1) as f32 * 4.0 / 512.0;
        let off = norm(&(&got - exact)) / norm(exact);
        assert!(off > 0.0 && off < bound, "{off} of {bound}");
    }
}

#[test]
fn activations_that_are_no_numbers_name_the_layer_that_made_them() {
    let team = Team::new(1);
    for name in ["llama-mha", "qwen2-moe"] {
        let sound = util::open(&util::golden().join(name));
        assert_eq!(observe(&sound, &windows(), 1).len(), sound.spec.blocks.len());
        let weights = sound.spec.tensors.iter().filter(|it| it.part == Part::Weight);
        let within = weights.filter(|it| it.block == Some(1) || it.role == Role::Embed);
        for tensor in within.filter(|it| it.expert.is_none() && it.role != Role::SharedGate) {
            let mut model = sound.clone();
            let raw = model.weights.raw.get_mut(&tensor.name).unwrap();
            let damaged = vec![f32::NAN; raw.to_f32().unwrap().len()];
            *raw = RawTensor::from_f32(raw.shape.clone(), &damaged);
            let mut walk = Walk::new(&model, &Reference, &windows(), (&team, &Silent)).unwrap();
            let observed = (0..2).find_map(|_| walk.observe(&Request::default()).err());
            let ranges = min_max_grids(&model, &windows(), 8, (&team, &Silent)).unwrap_err();
            let block = tensor.block.unwrap_or(0);
            for told in [observed.unwrap().to_string(), ranges.to_string()] {
                assert!(told.contains(&format!("block {block}, window 0")), "{told}");
                let of_router = tensor.role == Role::Router && told.contains("experts");
                assert!(told.contains(&format!("`{}`", tensor.name)) || of_router, "{told}");
            }
        }
    }
}

#[test]
fn products_with_itself_are_the_covariance_and_with_another_model_are_not() {
    let model = util::open(&util::golden().join("llama-mha"));
    let other = {
        let mut other = model.clone();
        let name = "model.layers.0.mlp.down_proj.weight";
        let raw = other.weights.raw.get_mut(name).unwrap();
        let twice: Vec<f32> = raw.to_f32().unwrap().iter().map(|w| 2.0 * w).collect();
        *raw = milm_compress::tensor::RawTensor::from_f32(raw.shape.clone(), &twice);
        other
    };
    let team = Team::new(2);
    let request = Request { cross: true, ..all() };
    let seen = |reference: &Model| {
        let mut walk = Walk::new(&model, &Reference, &windows(), (&team, &Silent))
            .unwrap()
            .beside(reference, &windows())
            .unwrap();
        (0..2).map(|_| walk.observe(&request).unwrap()).collect::<Vec<_>>()
    };
    let (same, different) = (seen(&model), seen(&other));
    for (key, input) in &same[1].inputs {
        let (cross, covariance) = (input.cross.as_ref(), input.covariance.as_ref().unwrap());
        let cross = cross.unwrap();
        for ((i, j), c) in covariance.indexed_iter().filter(|((i, j), _)| i <= j) {
            // The same products, summed in tiles of another order at most.
            let size = (input.moments.sum_squares[i] * input.moments.sum_squares[j]).sqrt();
            let bound = 72.0 * 2_f64.powi(-23) * size;
            assert!(f64::from((c - cross[[i, j]]).abs()) <= bound, "{key:?} {i} {j}");
        }
        let moved = different[1].inputs[key].cross.as_ref().unwrap();
        assert!((moved - cross).iter().any(|d| d.abs() > 1e-2 * cross[[0, 0]].abs()), "{key:?}");
        assert_eq!(different[0].inputs[key].covariance, same[0].inputs[key].covariance);
    }
}

#[test]
fn threads_do_not_change_a_bit_but_the_text_does() {
    for folder in ["llama-mha", "qwen2-moe"] {
        let model = util::open(&util::golden().join(folder));
        let one = observe(&model, &windows(), 1);
        assert_eq!(one, observe(&model, &windows(), 2), "{folder}");
        assert_ne!(one, observe(&model, &windows()[..2], 1), "{folder}");
    }
}

#[test]
fn what_is_summed_over_channels_agrees() {
    let model = util::open(&util::golden().join("llama-mha"));
    for (b, block) in observe(&model, &windows(), 2).iter().enumerate() {
        let tokens = 72;
        assert_eq!(block.tokens, tokens);
        assert!(block.influence > 0.0 && block.influence < 2.0, "{}", block.influence);
        for ((role, _), input) in &block.inputs {
            assert_eq!(input.moments.tokens, tokens, "{role:?}");
            let covariance = input.covariance.as_ref().unwrap();
            for (i, squares) in input.moments.sum_squares.iter().enumerate() {
                let diagonal = f64::from(covariance[[i, i]]);
                // A float32 sum of n products of one sign is off by n · 2⁻²⁴ of itself at most.
                let bound = tokens as f64 * 2_f64.powi(-24) * squares + 1e-30;
                assert!((diagonal - squares).abs() <= bound, "block {b} {role:?} {i}");
            }
        }
        let heads = block.heads.as_ref().unwrap();
        let o = &block.inputs[&(Role::O, None)].moments.sum_squares;
        let width = heads.dim().1;
        for (i, squares) in o.iter().enumerate() {
            let diagonal = f64::from(heads[[i / width, i % width, i % width]]);
            let bound = tokens as f64 * 2_f64.powi(-24) * squares + 1e-30;
            assert!((diagonal - squares).abs() <= bound, "head channel {i}");
        }
    }
}

#[test]
fn experts_share_the_tokens() {
    let model = util::open(&util::golden().join("qwen2-moe"));
    let Mlp::Experts { per_token, .. } = model.spec.blocks[0].mlp else { panic!("experts") };
    for block in observe(&model, &windows(), 2) {
        let sent = |role: Role| {
            let of = block.inputs.iter();
            of.filter(|((it, expert), _)| *it == role && matches!(expert, Some(Expert::Routed(_))))
                .map(|(_, input)| input.moments.tokens)
                .sum::<u64>()
        };
        assert_eq!(sent(Role::Gate), 72 * per_token as u64);
        assert_eq!(sent(Role::Down), 72 * per_token as u64);
        assert_eq!(block.inputs[&(Role::Down, Some(Expert::Shared))].moments.tokens, 72);
    }
}

fn fingerprint(seed: u64, request: &Request) -> Fingerprint {
    let data = DataFingerprint {
        sources: vec![],
        ids_sha256: "ab".into(),
        samples: 3,
        tokens: 24,
        seed,
        self_generated: false,
    };
    Fingerprint::new(("m", "cd"), "ef", &data, request)
}

#[test]
fn a_file_gives_back_what_was_collected() {
    for folder in ["llama-mha", "qwen2-moe"] {
        let model = util::open(&util::golden().join(folder));
        let seen = observe(&model, &windows(), 2);
        let mut writer =
            StatisticsWriter::new(Vec::new(), &fingerprint(1, &all()), &model.spec).unwrap();
        for block in &seen {
            writer.block(block).unwrap();
        }
        let file = writer.finish().unwrap();
        assert!(file.len() as u64 > statistics_bytes(&model.spec, &all()));
        let statistics = Statistics::open(Bytes::owned(file.clone())).unwrap();
        statistics.check_shapes(&model.spec).unwrap();
        for (b, seen) in seen.iter().enumerate() {
            let mut seen = seen.clone();
            // The file holds upper triangles and gives whole matrices.
            for input in seen.inputs.values_mut() {
                let Some(whole) = input.covariance.as_mut() else { continue };
                for i in 0..whole.nrows() {
                    for j in 0..i {
                        whole[[i, j]] = whole[[j, i]];
                    }
                }
            }
            for mut head in seen.heads.as_mut().unwrap().outer_iter_mut() {
                for i in 0..head.nrows() {
                    for j in 0..i {
                        head[[i, j]] = head[[j, i]];
                    }
                }
            }
            assert_eq!(statistics.block(b).unwrap(), seen, "{folder} block {b}");
        }
        for keep in [0, 9, 200, file.len() - 1] {
            assert!(Statistics::open(Bytes::owned(file[..keep].to_vec())).is_err());
        }
        assert!(statistics.block(99).is_err());
    }
}

#[test]
fn stale_statistics_are_refused_with_the_difference() {
    let model = util::open(&util::golden().join("llama-mha"));
    let few = Request { covariance: [Role::Down].into(), ..Request::default() };
    let mut writer = StatisticsWriter::new(Vec::new(), &fingerprint(1, &few), &model.spec).unwrap();
    let team = Team::new(1);
    let mut walk = Walk::new(&model, &Reference, &windows(), (&team, &Silent)).unwrap();
    for _ in &model.spec.blocks {
        writer.block(&walk.observe(&few).unwrap()).unwrap();
    }
    let statistics = Statistics::open(Bytes::owned(writer.finish().unwrap())).unwrap();
    statistics.check(&fingerprint(1, &few)).unwrap();
    statistics.check(&fingerprint(1, &Request::default())).unwrap();
    let told = |here: &Fingerprint| match statistics.check(here).unwrap_err() {
        CalibrateError::Stale { what, stored, here } => format!("{what} {stored} {here}"),
        other => panic!("{other}"),
    };
    assert_eq!(told(&fingerprint(2, &few)), "seed 1 2");
    assert!(told(&fingerprint(1, &all())).contains("less than is needed"));
    let mut other = fingerprint(1, &few);
    other.model_sha256 = "ce".into();
    assert_eq!(told(&other), "model hash cd ce");
}

fn calibrate(output: &Path, more: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = program();
    command.args(["calibrate", "builtin:milm-mini", "--force"]);
    command.args(["--calibration-samples", "4", "--calibration-tokens", "64"]);
    command.arg("-o").arg(output).args(more).assert()
}

#[test]
fn the_verb_writes_the_same_file_at_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let none = ["--covariance", "none", "--threads"];
    let run = |name: &str, more: &[&str]| {
        calibrate(&path(name), &[&none[..], more].concat()).success();
        fs::read(path(name)).unwrap()
    };
    let one = run("a", &["1"]);
    assert_eq!(one, run("b", &["2"]));
    assert_ne!(one, run("c", &["1", "--seed", "1"]));
    assert_ne!(one, run("d", &["1", "--self-generate"]));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "nothing else is left");
    Statistics::open(Bytes::owned(one)).unwrap();
}

#[test]
fn too_few_tokens_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a");
    let one = ["--calibration-samples", "1", "--calibration-tokens", "2"];
    let refuse = |more: &[&str]| {
        let mut command = program();
        command.args(["calibrate", "builtin:milm-mini", "-o"]).arg(&file);
        command.args(one).args(more).assert()
    };
    refuse(&[]).code(2).stderr(predicate::str::contains("--allow-rank-deficient"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    refuse(&["--allow-rank-deficient"]).success().stderr(predicate::str::contains("warning"));
    assert!(file.is_file());
}
