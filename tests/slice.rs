//! A pruned model equals its parent with the cut units zeroed: every family, against the forward
//! pass that transformers confirms (golden.rs).
use crate::util;
use milm_compress::{
    forward::{self, Reference},
    linalg::Team,
    model::{Expert, Model, ModelSpec, Part, Role},
    prune::{self, GainRatios, Kept, PruneError, Values},
    tensor::RawTensor,
};
use ndarray::Array2;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Both sides are float32 sums of the same numbers in other orders: each lies within 1e-4 of the
/// exact logits, as the golden models show, and these small ones far closer.
const SAME: f32 = 2e-5;
/// What a wrong cut changes at least.
const OTHER: f32 = 1e-3;

fn parent(name: &str) -> Model {
    util::open(&util::golden().join(name))
}

fn prune_with(model: &Model, kept: &[Kept], ratios: GainRatios) -> Result<Model, PruneError> {
    let config = prune::pruned_config(&model.config, &model.spec, kept)?;
    let mut weights = model.weights.clone();
    for (block, kept) in kept.iter().enumerate() {
        weights.raw.extend(prune::slice_block(model, block, kept, ratios)?);
    }
    Ok(Model::new(config, weights).unwrap())
}

fn pruned(model: &Model, kept: &[Kept]) -> Model {
    prune_with(model, kept, GainRatios::default()).unwrap()
}

fn all(model: &Model) -> Vec<Kept> {
    model.spec.blocks.iter().map(Kept::all).collect()
}

fn logits(model: &Model) -> Array2<f32> {
    let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 11) % 128).collect();
    forward::logits(model, &Reference, &ids, &Team::new(1)).unwrap()
}

/// Largest difference over the largest logit.
fn difference(a: &Model, b: &Model) -> f32 {
    let (a, b) = (logits(a), logits(b));
    let largest = b.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    a.iter().zip(&b).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

/// Rewrites a tensor, if the model has it; biases are single columns.
fn edit(
    model: &mut Model,
    (block, role, expert, part): (usize, Role, Option<Expert>, Part),
    change: impl FnOnce(&mut Array2<f32>),
) {
    let Some(spec) = model.spec.find(Some(block), role, expert, part) else { return };
    let name = spec.name.clone();
    let raw = &model.weights.raw[&name];
    let (rows, columns) = (raw.shape[0], raw.shape.get(1).copied().unwrap_or(1));
    let mut values = Array2::from_shape_vec((rows, columns), raw.to_f32().unwrap()).unwrap();
    change(&mut values);
    let raw = RawTensor::from_f32(raw.shape.clone(), &values.into_iter().collect::<Vec<_>>());
    model.weights.raw.insert(name, raw);
}

/// The parent with the consumers of everything that `kept` leaves out zeroed, and the queries and
/// keys of cut pairs.
fn masked(model: &Model, kept: &[Kept]) -> Model {
    let mut model = model.clone();
    for (b, kept) in kept.iter().enumerate() {
        let sizes = model.spec.blocks[b].clone();
        let (width, repeat) = (sizes.head_dim, sizes.kv_repeat());
        let (mut values, mut queries, mut keys) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for head in &kept.kv_heads {
            let Values::Channels(channels) = &head.values else { panic!("channels are masked") };
            let pairs = || head.pairs.iter().flat_map(|p| [*p, p + width / 2]);
            keys.extend(pairs().map(|c| head.kv_head * width + c));
            for query in &head.queries {
                let start = (head.kv_head * repeat + query) * width;
                values.extend(channels.iter().map(|c| start + c));
                queries.extend(pairs().map(|c| start + c));
            }
        }
        let zero_columns = |w: &mut Array2<f32>, kept: &BTreeSet<usize>| {
            for c in (0..w.ncols()).filter(|c| !kept.contains(c)) {
                w.column_mut(c).fill(0.0);
            }
        };
        edit(&mut model, (b, Role::O, None, Part::Weight), |w| zero_columns(w, &values));
        for (role, kept) in [(Role::Q, &queries), (Role::K, &keys)] {
            for part in [Part::Weight, Part::Bias] {
                edit(&mut model, (b, role, None, part), |w| {
                    for r in (0..w.nrows()).filter(|r| !kept.contains(r)) {
                        w.row_mut(r).fill(0.0);
                    }
                });
            }
        }
        for (expert, units) in &kept.mlp {
            let units = units.iter().copied().collect();
            edit(&mut model, (b, Role::Down, *expert, Part::Weight), |w| zero_columns(w, &units));
        }
    }
    model
}

/// Every third unit but one goes, others in each block.
fn cut_mlp(kept: &mut [Kept]) {
    for (b, kept) in kept.iter_mut().enumerate() {
        for units in kept.mlp.values_mut() {
            units.retain(|u| (u + b) % 3 != 1);
        }
    }
    // Widths are equal in all blocks and experts of one size.
    let least = |expert: bool| {
        move |k: &Kept| -> Option<usize> {
            k.mlp.iter().filter(|(e, _)| e.is_some() == expert).map(|(_, u)| u.len()).min()
        }
    };
    for expert in [false, true] {
        let width = kept.iter().filter_map(least(expert)).min().unwrap_or(0);
        for (of, units) in kept.iter_mut().flat_map(|k| &mut k.mlp) {
            if of.is_some() == expert && *of != Some(Expert::Shared) {
                units.truncate(width);
            }
        }
    }
}

/// Half of the pairs, the same in each head, and as many value channels, others in each head.
fn cut_pairs(kept: &mut [Kept], pairs: &[usize]) {
    for (b, kept) in kept.iter_mut().enumerate() {
        for (h, head) in kept.kv_heads.iter_mut().enumerate() {
            let Values::Channels(channels) = &head.values else { panic!("all are channels") };
            let width = channels.len();
            let mut chosen: Vec<usize> =
                (0..2 * pairs.len()).map(|i| (i * 5 + b + 2 * h) % width).collect();
            chosen.sort_unstable();
            chosen.dedup();
            let rest = (0..width).filter(|c| !chosen.contains(c)).collect::<Vec<_>>();
            chosen.extend(rest.into_iter().take(2 * pairs.len() - chosen.len()));
            chosen.sort_unstable();
            head.pairs = pairs.to_vec();
            head.values = Values::Channels(chosen);
        }
    }
}

#[test]
fn keeping_everything_is_the_identity() {
    for name in util::plain() {
        let model = parent(name);
        let same = pruned(&model, &all(&model));
        assert_eq!(same.config, model.config, "{name}");
        assert!(model.weights.raw.len() > 10);
        for (tensor, raw) in &model.weights.raw {
            let new = &same.weights.raw[tensor];
            assert!(new.dtype == raw.dtype && *new.bytes == *raw.bytes, "{name}: {tensor}");
        }
    }
}

#[test]
fn hidden_units_of_every_family_equal_zeroed_ones() {
    for name in util::plain() {
        let model = parent(name);
        let mut kept = all(&model);
        cut_mlp(&mut kept);
        let small = pruned(&model, &kept);
        assert!(small.spec.parameters() < model.spec.parameters(), "{name}");
        let found = difference(&small, &masked(&model, &kept));
        assert!(found < SAME, "{name}: {found}");
        // The twin: another unit in one place.
        for units in kept[1].mlp.values_mut() {
            let other = (0..=units.len()).find(|u| !units.contains(u)).unwrap();
            units[0] = other;
            units.sort_unstable();
        }
        let wrong = difference(&small, &masked(&model, &kept));
        assert!(wrong > 10.0 * SAME, "{name}: another unit changes {wrong} only");
    }
}

#[test]
fn whole_groups_and_query_heads_equal_zeroed_ones() {
    for name in util::plain() {
        let model = parent(name);
        let mut groups = all(&model);
        for (b, kept) in groups.iter_mut().enumerate() {
            kept.kv_heads.remove(b % 2);
        }
        let mut queries = all(&model);
        for (b, kept) in queries.iter_mut().enumerate() {
            for (h, head) in kept.kv_heads.iter_mut().enumerate() {
                if head.queries.len() > 1 {
                    head.queries = vec![(b + h) % 2];
                }
            }
        }
        for mut kept in [groups, queries] {
            let small = pruned(&model, &kept);
            let found = difference(&small, &masked(&model, &kept));
            assert!(found < SAME, "{name}: {found}");
            if kept[0].shape() == Kept::all(&model.spec.blocks[0]).shape() {
                continue; // no query heads to cut
            }
            let head = &mut kept[1].kv_heads[0];
            if head.queries.len() < model.spec.blocks[1].kv_repeat() {
                head.queries = vec![1 - head.queries[0]];
            } else {
                head.kv_head = usize::from(head.kv_head == 0);
                let order = &mut kept[1].kv_heads;
                order.sort_by_key(|head| head.kv_head);
                order.dedup_by_key(|head| head.kv_head);
            }
            let wrong = difference(&small, &masked(&model, &kept));
            assert!(wrong > OTHER, "{name}: another head changes {wrong} only");
        }
    }
}

#[test]
fn rotary_pairs_and_value_channels_equal_zeroed_ones() {
    for name in util::plain().filter(|name| !name.contains("qwen3")) {
        let model = parent(name);
        let mut kept = all(&model);
        cut_pairs(&mut kept, &[0, 2, 3, 6]);
        let small = pruned(&model, &kept);
        assert_eq!(small.spec.blocks[0].head_dim, 8, "{name}");
        let want = masked(&model, &kept);
        let found = difference(&small, &want);
        assert!(found < SAME, "{name}: {found}");
        let wrong = |what: &str, change: &dyn Fn(&mut Model)| {
            let mut twin = small.clone();
            change(&mut twin);
            let found = difference(&twin, &want);
            assert!(found > OTHER, "{name}: {what} changes {found} only");
        };
        wrong("f = 1", &|twin| {
            let key = if twin.config.get("rope_parameters").is_some() {
                "rope_parameters"
            } else {
                "rope_scaling"
            };
            for list in ["short_factor", "long_factor"] {
                twin.config[key][list] = json!([1.0, 1.0, 1.0, 1.0]);
            }
            *twin = Model::new(twin.config.clone(), twin.weights.clone()).unwrap();
        });
        wrong("the scale of a wider head", &|twin| {
            for b in 0..3 {
                for part in [Part::Weight, Part::Bias] {
                    edit(twin, (b, Role::Q, None, part), |w| {
                        w.mapv_inplace(|x| x * (model.spec.blocks[0].head_dim as f32 / 8.0).sqrt());
                    });
                }
            }
        });
    }
}

/// A cut of a cut: the second time the parent is `longrope`, or `kept-pairs`.
#[test]
fn cutting_twice_is_cutting_once() {
    for name in ["llama", "llama-rope-llama3", "qwen2"] {
        let model = parent(name);
        for per_head in [false, true] {
            let (mut first, mut second, mut once) = (all(&model), Vec::new(), all(&model));
            cut_pairs(&mut first, &[0, 1, 2, 3, 5, 7]);
            if per_head {
                first[0].kv_heads[1].pairs = vec![1, 2, 3, 4, 5, 6];
            }
            let middle = pruned(&model, &first);
            assert_eq!(middle.spec.rope.kept.is_some(), per_head);
            second.extend(all(&middle));
            for (kept, once) in second.iter_mut().zip(&mut once) {
                kept.kv_heads.remove(0);
                once.kv_heads.remove(0);
            }
            for (b, (kept, once)) in second.iter_mut().zip(&mut once).enumerate() {
                let (head, once) = (&mut kept.kv_heads[0], &mut once.kv_heads[0]);
                (head.pairs, head.values) = (vec![1, 3, 4], Values::Channels((3..9).collect()));
                let before = &first[b].kv_heads[1];
                once.pairs = head.pairs.iter().map(|p| before.pairs[*p]).collect();
                let Values::Channels(channels) = &before.values else { panic!("channels") };
                once.values = Values::Channels(channels[3..9].to_vec());
            }
            let small = pruned(&middle, &second);
            let found = difference(&small, &masked(&model, &once));
            assert!(found < SAME, "{name}, per head: {per_head}: {found}");
        }
    }
}

#[test]
fn pairs_by_head_run_here_and_are_refused_elsewhere() {
    for name in ["llama", "llama-mha", "llama-rope-yarn", "llama-rope-longrope", "qwen2"] {
        let model = parent(name);
        let mut kept = all(&model);
        cut_pairs(&mut kept, &[0, 2, 3, 6]);
        for (b, kept) in kept.iter_mut().enumerate() {
            for (h, head) in kept.kv_heads.iter_mut().enumerate() {
                head.pairs = vec![h % 2, 2 + b, 5, 6 + h % 2];
            }
        }
        let small = pruned(&model, &kept);
        let config = small.config.to_string();
        assert!(config.contains("kept-pairs") && config.contains("original_head_dim"), "{config}");
        let want = masked(&model, &kept);
        let found = difference(&small, &want);
        assert!(found < SAME, "{name}: {found}");
        // The twin: the tables of head 0 for every head.
        let mut twin = small.clone();
        for block in &mut twin.spec.rope.kept.as_mut().unwrap().pairs {
            let first = block[0].clone();
            block.fill(first);
        }
        assert!(difference(&twin, &want) > OTHER, "{name}");
    }
}

#[test]
fn the_engine_takes_the_tables_of_each_block_and_head() {
    let model = parent("llama");
    let mut kept = all(&model);
    cut_pairs(&mut kept, &[0, 2, 3, 6]);
    kept[1].kv_heads[1].pairs = vec![1, 4, 5, 7];
    let small = pruned(&model, &kept);
    let team = Team::new(1);
    let silent = milm_compress::progress::Silent;
    let mut engine =
        milm_compress::runtime::Engine::load(&small, &Reference, &team, &silent).unwrap();
    let ids: Vec<u32> = (0..20).map(|i| (i * 37 + 11) % 128).collect();
    let whole = forward::logits(&small, &Reference, &ids, &team).unwrap();
    engine.feed(&ids[..13]).unwrap();
    let last = engine.feed(&ids[13..]).unwrap();
    let largest = whole.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    let worst = whole.row(19).iter().zip(last).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst / largest < SAME, "{worst}");
}

/// A product of Householder reflections: full rank, orthogonal.
fn rotation(width: usize, seed: usize) -> Array2<f64> {
    let mut q = Array2::eye(width);
    for k in 0..3 {
        let v = ndarray::Array1::from_shape_fn(width, |i| {
            ((i * 7 + k * 13 + seed * 29 + 1) as f64 * 0.7).sin()
        });
        let v = v.insert_axis(ndarray::Axis(1));
        let reflection = Array2::eye(width) - v.dot(&v.t()) * (2.0 / v.mapv(|x| x * x).sum());
        q = reflection.dot(&q);
    }
    q
}

#[test]
fn a_map_of_values_and_its_inverse_leave_the_logits() {
    for name in util::plain() {
        let model = parent(name);
        let width = model.spec.blocks[0].head_dim;
        let map = |head: usize, b: usize| rotation(width, head + 5 * b);
        let mut kept = all(&model);
        for (b, kept) in kept.iter_mut().enumerate() {
            for head in &mut kept.kv_heads {
                let down = map(head.kv_head, b);
                head.values = Values::Map { up: down.t().to_owned(), down };
            }
        }
        let found = difference(&pruned(&model, &kept), &model);
        assert!(found < SAME, "{name}: {found}");
        // The twin: the way back of another head.
        let wrong = map(1, 1).t().to_owned();
        let first = kept[1].kv_heads.first_mut().unwrap();
        let Values::Map { up, .. } = &mut first.values else { panic!("a map") };
        *up = wrong;
        assert!(difference(&pruned(&model, &kept), &model) > OTHER, "{name}");
    }
}

/// A map that picks channels is the channels, mixed with heads that keep theirs as such.
#[test]
fn a_map_that_picks_channels_is_those_channels() {
    for name in ["llama-tied-bias", "qwen2", "llama-wide-heads"] {
        let model = parent(name);
        let mut kept = all(&model);
        cut_pairs(&mut kept, &[0, 2, 3, 6]);
        let small = pruned(&model, &kept);
        for kept in &mut kept {
            let head = &mut kept.kv_heads[1];
            let Values::Channels(channels) = &head.values else { panic!("channels") };
            let width = model.spec.blocks[0].head_dim;
            let mut down = Array2::zeros((channels.len(), width));
            for (i, c) in channels.iter().enumerate() {
                down[[i, *c]] = 1.0;
            }
            head.values = Values::Map { up: down.t().to_owned(), down };
        }
        let mapped = pruned(&model, &kept);
        for (tensor, raw) in &small.weights.raw {
            let same = mapped.weights.raw[tensor].to_f32() == raw.to_f32();
            assert!(same, "{name}: {tensor}");
        }
    }
}

#[test]
fn gains_of_queries_and_keys_take_scale_and_ratio() {
    let model = parent("qwen3-tied");
    let mut kept = all(&model);
    cut_pairs(&mut kept, &[0, 2, 3, 6]);
    let small = prune_with(&model, &kept, GainRatios { q: 3.0, k: 0.25 }).unwrap();
    let gain = |model: &Model, role| {
        let spec = model.spec.find(Some(1), role, None, Part::Weight).unwrap();
        model.weights.raw[&spec.name].to_f32().unwrap()
    };
    for (role, factor) in [(Role::QNorm, 3.0 * 0.5_f32.sqrt()), (Role::KNorm, 0.25)] {
        let (old, new) = (gain(&model, role), gain(&small, role));
        for (new, channel) in new.iter().zip([0, 2, 3, 6, 8, 10, 11, 14]) {
            assert!((new - old[channel] * factor).abs() < 1e-6, "{role:?}");
        }
    }
    let q = |model: &Model| gain(model, Role::Q);
    assert_eq!(q(&small)[..64], q(&model)[..64], "rows of a normed projection are not scaled");
}

#[test]
fn sixteen_bit_weights_are_rounded_once() {
    use half::bf16;
    let mut model = parent("llama");
    for raw in model.weights.raw.values_mut() {
        let values = raw.to_f32().unwrap();
        let mut bytes = Vec::new();
        milm_compress::tensor::FloatType::Bf16.encode(&values, &mut bytes);
        raw.dtype = milm_compress::tensor::Dtype::BF16;
        raw.bytes = milm_compress::tensor::Bytes::owned(bytes);
    }
    let mut kept = all(&model);
    cut_pairs(&mut kept, &[0, 2, 3, 6]);
    let tensors = prune::slice_block(&model, 0, &kept[0], GainRatios::default()).unwrap();
    let name = &model.spec.find(Some(0), Role::Q, None, Part::Weight).unwrap().name;
    let (old, new) = (model.weights.raw[name].to_f32().unwrap(), &tensors[name]);
    assert_eq!(new.dtype, milm_compress::tensor::Dtype::BF16);
    let new = new.to_f32().unwrap();
    for (i, row) in [0_usize, 2, 3, 6, 8, 10, 11, 14].into_iter().enumerate() {
        for c in 0..64 {
            let want = bf16::from_f64(f64::from(old[row * 64 + c]) * 0.5_f64.sqrt()).to_f32();
            assert!((new[i * 64 + c] - want).abs() <= f32::EPSILON * want.abs());
        }
    }
}

#[test]
fn blocks_may_differ_and_say_so_by_lists() {
    let model = parent("llama");
    let mut kept = all(&model);
    kept[0].mlp.get_mut(&None).unwrap().truncate(32);
    kept[2].kv_heads.remove(0);
    let small = pruned(&model, &kept);
    assert_eq!(small.config["intermediate_size"], json!([32, 96, 96]));
    assert_eq!(small.config["num_attention_heads"], json!([4, 4, 2]));
    assert_eq!(small.config["num_key_value_heads"], json!([2, 2, 1]));
    assert!(difference(&small, &masked(&model, &kept)) < SAME);
    for (key, value, told) in [
        ("intermediate_size", json!([32, 96]), "a list of 3"),
        ("intermediate_size", json!([32, 96, 0]), "intermediate_size[2]"),
        ("num_attention_heads", json!([4, "4", 2]), "num_attention_heads[1]"),
        ("num_key_value_heads", json!([2, 2, 3]), "num_key_value_heads"),
        ("head_dim", Value::Null, "head_dim"),
        ("head_dim", json!([16, 16, 16]), "head_dim"),
    ] {
        let mut config = small.config.clone();
        config[key] = value;
        let error = ModelSpec::from_config(&config).unwrap_err().to_string();
        assert!(error.contains(told), "{key}: {error}");
    }
}

#[test]
fn kept_pairs_that_do_not_fit_are_refused() {
    let model = parent("llama");
    let mut kept = all(&model);
    cut_pairs(&mut kept, &[0, 2, 3, 6]);
    kept[1].kv_heads[1].pairs = vec![1, 4, 5, 7];
    let small = pruned(&model, &kept);
    for (key, value) in [
        ("pairs", Value::Null),
        ("pairs", json!([[[0, 1, 2, 3]]])),
        ("pairs", json!([[[0, 1, 2, 8], [0, 1, 2, 3]], [], []])),
        ("pairs", json!("all")),
        ("original_head_dim", json!(6)),
        ("original_head_dim", json!(15)),
    ] {
        let mut config = small.config.clone();
        config["rope_scaling"][key] = value;
        let error = ModelSpec::from_config(&config).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{key}: {error}");
    }
}

#[test]
fn what_no_config_can_say_is_refused() {
    let model = parent("llama");
    let mut config = model.config.clone();
    config["rope_scaling"] = json!({"rope_type": "dynamic", "factor": 2.0});
    let dynamic = Model::new(config, model.weights.clone()).unwrap();
    let mut kept = all(&model);
    cut_pairs(&mut kept, &[0, 2, 3, 6]);
    let error = prune_with(&dynamic, &kept, GainRatios::default()).unwrap_err();
    assert!(error.to_string().contains("hint: cut whole heads"), "{error}");
    let normed = parent("qwen3-tied");
    kept[0].kv_heads[1].pairs = vec![1, 4, 5, 7];
    let error = prune_with(&normed, &kept, GainRatios::default()).unwrap_err();
    assert!(matches!(error, PruneError::PairsOfNorm { block: 0 }));
    let quantized = util::open(&util::golden().join("compressed-tensors"));
    let error = prune_with(&quantized, &all(&quantized), GainRatios::default()).unwrap_err();
    assert!(error.to_string().contains("is quantized already"), "{error}");
}

#[test]
fn dropped_blocks_take_their_tensors_along() {
    for name in util::plain() {
        let model = parent(name);
        let same = prune::keep_blocks(&model, &[0, 1, 2]).unwrap();
        assert_eq!(same.config, model.config);
        // A block whose output projections are zero adds nothing to the stream.
        let mut idle = model.clone();
        let experts: Vec<Option<Expert>> =
            Kept::all(&model.spec.blocks[1]).mlp.into_keys().collect();
        edit(&mut idle, (1, Role::O, None, Part::Weight), |w| w.fill(0.0));
        edit(&mut idle, (1, Role::O, None, Part::Bias), |w| w.fill(0.0));
        for expert in experts {
            edit(&mut idle, (1, Role::Down, expert, Part::Weight), |w| w.fill(0.0));
            edit(&mut idle, (1, Role::Down, expert, Part::Bias), |w| w.fill(0.0));
        }
        let short = prune::keep_blocks(&model, &[0, 2]).unwrap();
        assert_eq!(short.spec.blocks.len(), 2);
        let found = difference(&short, &idle);
        assert!(found < SAME, "{name}: {found}");
        assert!(difference(&short, &model) > OTHER, "{name}");
        assert!(prune::keep_blocks(&model, &[2, 0]).is_err());
        assert!(prune::keep_blocks(&model, &[]).is_err());
    }
}

#[test]
fn tensors_that_are_carried_along_go_with_their_block() {
    let mut model = parent("llama");
    for b in 0..3 {
        let name = format!("model.layers.{b}.self_attn.extra");
        model.weights.raw.insert(name, RawTensor::from_f32(vec![1], &[b as f32]));
    }
    model.weights.raw.insert("other".into(), RawTensor::from_f32(vec![1], &[9.0]));
    let mut kept = all(&model);
    kept[0].mlp.get_mut(&None).unwrap().truncate(32);
    let model = pruned(&model, &kept);
    let short = prune::keep_blocks(&model, &[1, 2]).unwrap();
    assert_eq!(
        short.extras(),
        ["model.layers.0.self_attn.extra", "model.layers.1.self_attn.extra", "other"]
    );
    let first = &short.weights.raw["model.layers.0.self_attn.extra"];
    assert_eq!(first.to_f32().unwrap(), [1.0]);
    assert_eq!(short.config["intermediate_size"], json!([96, 96]));
}

#[test]
fn windows_of_upper_blocks_follow_them() {
    let model = parent("qwen2");
    let mut config = model.config.clone();
    config["use_sliding_window"] = json!(true);
    config["sliding_window"] = json!(7);
    config["layer_types"] = Value::Null;
    config["max_window_layers"] = json!(1);
    let model = Model::new(config, model.weights).unwrap();
    let windows = |model: &Model| -> Vec<Option<usize>> {
        model.spec.blocks.iter().map(|b| b.window).collect()
    };
    assert_eq!(windows(&model), [None, Some(7), Some(7)]);
    let keep = |blocks: &[usize]| windows(&prune::keep_blocks(&model, blocks).unwrap());
    assert_eq!(keep(&[0, 2]), [None, Some(7)]);
    assert_eq!(keep(&[1, 2]), [Some(7), Some(7)]);
    assert_eq!(keep(&[0]), [None]);
}

/// Every n-th pair from the first on: another base says it, in a config that every engine reads.
#[test]
fn even_pairs_are_another_base() {
    for name in ["llama", "llama-rope-linear", "qwen2"] {
        let model = parent(name);
        for pairs in [[0, 1, 2, 3], [0, 2, 4, 6]] {
            let mut kept = all(&model);
            cut_pairs(&mut kept, &pairs);
            let small = pruned(&model, &kept);
            assert!(!small.config.to_string().contains("longrope"), "{name}: {}", small.config);
            let want = masked(&model, &kept);
            let found = difference(&small, &want);
            assert!(found < SAME, "{name}, {pairs:?}: {found}");
            // The twin: a base that is far off.
            let mut twin = small.clone();
            twin.spec.rope.theta = model.spec.rope.theta.powi(2);
            let found = difference(&twin, &want);
            assert!(found > OTHER, "{name}, {pairs:?}: {found}");
        }
    }
    for (name, pairs) in [("llama", [1, 2, 3, 4]), ("llama-rope-llama3", [0, 1, 2, 3])] {
        let model = parent(name);
        let mut kept = all(&model);
        cut_pairs(&mut kept, &pairs);
        assert!(pruned(&model, &kept).config.to_string().contains("longrope"), "{name}");
    }
}
