//! Widths for a target, and what they make of the model, before any work.
//!
//! Rule: attention loses `--balance` times the share of its width that the MLPs lose. Of all pairs
//! of widths on their grids that stay within the target, the one with the smallest
//! `unused parameters / target + 4 · |attention's cut − balance · MLPs' cut|` is taken: a rest that
//! no width of the MLPs can hold is rather left unused than taken from attention. A finer
//! `--multiple` leaves less.
use super::{
    AttnUnit, BlockShape, PruneError, Settings,
    config::{shaped_config, shortened_config},
    settings::{Target, setting},
    size::Size,
};
use crate::model::{Axis, Block, ConfigError, Expert, Model, ModelSpec, Space};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What will become of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Sizes of each block that is left.
    pub blocks: Vec<BlockShape>,
    /// Blocks that go.
    pub dropped_blocks: usize,
    /// What attention loses.
    pub attn_unit: AttnUnit,
    /// The model as it is.
    pub before: Size,
    /// The model as it will be.
    pub after: Size,
    /// What is worth knowing.
    pub notes: Vec<String>,
    /// Sizes of the blocks as they are.
    #[serde(skip)]
    pub original: Vec<BlockShape>,
    /// Architecture of the pruned model; its rotary divisors are not known yet.
    #[serde(skip)]
    pub spec: ModelSpec,
    /// `config.json` of the pruned model, with the same gap.
    #[serde(skip)]
    pub config: Value,
}

/// Decides what becomes of a model from its declaration alone; no weights are read.
pub fn plan(spec: &ModelSpec, config: &Value, settings: &Settings) -> Result<Plan, PruneError> {
    let target = settings.target()?;
    if let Some(norm) = spec.post_norm() {
        let (tensor, family) = (norm.name.clone(), spec.family);
        return Err(PruneError::PostNorm { tensor, family });
    }
    let original: Vec<BlockShape> = spec.blocks.iter().map(BlockShape::of).collect();
    let unit = unit(spec, settings);
    let grid = Grid::new(&original, unit, settings);
    let before = Size::of(spec, config);
    let goal = match target {
        Target::Params(params) => params,
        Target::Bytes(bytes) => bytes / before.bytes_per_parameter,
        Target::Keep(keep) => {
            before.ends + ((before.parameters - before.ends) as f64 * keep).floor() as u64
        }
        Target::Widths { attn, ffn } => {
            let blocks = grid.widths(attn, ffn)?;
            let config = shaped_config(config, spec, &blocks)?;
            return finish(spec, settings, (before, original), (blocks, config, unit));
        }
        Target::Layers(layers) => {
            let count = original.len();
            if layers >= count {
                let expected = format!("at most {} of the {count} layers", count - 1);
                let (name, found) = ("--drop-layers", layers.to_string());
                return Err(PruneError::Setting { name, found, expected });
            }
            // Which ones is measured later; here those before the last stand for them.
            let kept: Vec<usize> = (0..count - 1 - layers).chain([count - 1]).collect();
            let blocks = kept.iter().map(|b| original[*b].clone()).collect();
            let config = shortened_config(config, spec, &kept);
            return finish(spec, settings, (before, original), (blocks, config, unit));
        }
    };
    if goal >= before.parameters && !matches!(target, Target::Keep(_)) {
        return Err(PruneError::TooLarge { target: goal, parameters: before.parameters });
    }
    let costs = unit_costs(spec);
    let blocks = grid.solve(goal, (&before, &costs), |shapes| parameters(spec, config, shapes))?;
    let config = shaped_config(config, spec, &blocks)?;
    finish(spec, settings, (before, original), (blocks, config, unit))
}

/// What attention loses unless it is said.
fn unit(spec: &ModelSpec, settings: &Settings) -> AttnUnit {
    let normed = spec.blocks.iter().any(Block::has_head_norms);
    let default = if normed { AttnUnit::Groups } else { AttnUnit::Pairs };
    settings.attn_unit.unwrap_or(default)
}

fn parameters(spec: &ModelSpec, config: &Value, shapes: &[BlockShape]) -> Result<u64, ConfigError> {
    let blocks: Vec<_> = shapes.iter().zip(&spec.blocks).map(|(s, b)| s.block(b)).collect();
    // Head width is cut here without its divisors: they have no parameters.
    let mut plain = spec.resized(config, &blocks)?;
    for key in ["rope_scaling", "rope_parameters"] {
        plain[key] = Value::Null;
    }
    ModelSpec::from_config(&plain).map(|spec| spec.parameters())
}

fn finish(
    spec: &ModelSpec,
    settings: &Settings,
    (before, original): (Size, Vec<BlockShape>),
    (blocks, mut config, attn_unit): (Vec<BlockShape>, Value, AttnUnit),
) -> Result<Plan, PruneError> {
    let new = ModelSpec::from_config(&config)?;
    let after = Size::of(&new, &config);
    let mut notes = Vec::new();
    let narrower = new.blocks.iter().zip(&spec.blocks).any(|(n, o)| n.head_dim < o.head_dim);
    if narrower && spec.blocks.iter().any(Block::has_head_norms) {
        notes.push(
            "queries and keys are normalized over fewer channels: their gains are rescaled by the \
             mean squares that calibration sees, which is right on average only"
                .to_owned(),
        );
    }
    if narrower && settings.pairs == super::Pairs::PerHead {
        for key in ["rope_parameters", "rope_scaling"] {
            if config.get(key).is_some_and(Value::is_object) {
                config[key]["rope_type"] = "kept-pairs".into();
            }
        }
        notes.push("rotary pairs differ by head: only this project's runtime runs that".to_owned());
    }
    if settings.allocate {
        notes.push("--allocate spreads the MLP widths over the layers after scoring".to_owned());
    }
    let dropped_blocks = original.len() - blocks.len();
    Ok(Plan {
        blocks,
        dropped_blocks,
        attn_unit,
        before,
        after,
        notes,
        original,
        spec: new,
        config,
    })
}

impl Plan {
    /// The plan as it was carried out: widths that were allocated after scoring are known now.
    #[must_use]
    pub fn carried_out(self, pruned: &Model) -> Self {
        Self {
            blocks: pruned.spec.blocks.iter().map(BlockShape::of).collect(),
            after: Size::of(&pruned.spec, &pruned.config),
            spec: pruned.spec.clone(),
            config: pruned.config.clone(),
            ..self
        }
    }

    /// The widths after each of `shots` cuts, in equal steps; the last are the plan's. A plan that
    /// drops blocks cuts no widths.
    pub fn shots(&self, shots: usize) -> Vec<Vec<BlockShape>> {
        let shots = if self.dropped_blocks > 0 { 1 } else { shots.max(1) };
        let step = |shot: usize, old: usize, new: usize| old - (old - new.min(old)) * shot / shots;
        let block = |shot: usize, old: &BlockShape, new: &BlockShape| {
            let repeat = |shape: &BlockShape| shape.heads / shape.kv_heads.max(1);
            let kv_heads = step(shot, old.kv_heads, new.kv_heads);
            BlockShape {
                heads: kv_heads * step(shot, repeat(old), repeat(new)),
                kv_heads,
                head_dim: 2 * step(shot, old.head_dim / 2, new.head_dim / 2),
                mlp: new.mlp.iter().map(|(e, w)| (*e, step(shot, old.mlp[e], *w))).collect(),
            }
        };
        let of = |shot| {
            let pairs = self.original.iter().zip(&self.blocks);
            pairs.map(|(old, new)| block(shot, old, new)).collect()
        };
        (1..=shots).map(of).collect()
    }
}

/// Parameters of one hidden unit of an MLP.
type UnitCosts = BTreeMap<(usize, Option<Expert>), u64>;

fn unit_costs(spec: &ModelSpec) -> UnitCosts {
    let mut costs = UnitCosts::new();
    for tensor in &spec.tensors {
        let others = |axis: Option<Axis>| axis.map_or(1, |a| spec.dim(a.space) * a.repeat) as u64;
        let (place, cost) = match (tensor.output.space, tensor.input.map(|a| a.space)) {
            (Space::Mlp(b, e), _) => ((b, e), others(tensor.input)),
            (_, Some(Space::Mlp(b, e))) => ((b, e), others(Some(tensor.output))),
            _ => continue,
        };
        *costs.entry(place).or_default() += cost;
    }
    costs
}

/// The multiple that an MLP width is cut to unless it is said.
pub(super) fn default_multiple(width: usize) -> usize {
    match width {
        2048.. => 256,
        1024.. => 128,
        512.. => 64,
        _ => 32,
    }
}

/// The widths that blocks may have.
struct Grid<'a> {
    blocks: &'a [BlockShape],
    unit: AttnUnit,
    multiple: Option<usize>,
    balance: f64,
}

impl<'a> Grid<'a> {
    fn new(blocks: &'a [BlockShape], unit: AttnUnit, settings: &Settings) -> Self {
        // Without groups, heads are groups.
        let grouped = blocks.iter().any(|b| b.heads > b.kv_heads);
        let unit = if unit == AttnUnit::Heads && !grouped { AttnUnit::Groups } else { unit };
        let Settings { multiple, balance, .. } = *settings;
        Self { blocks, unit, multiple, balance }
    }

    /// Units of a block's attention that can go.
    fn attn_units(&self, block: &BlockShape) -> usize {
        match self.unit {
            AttnUnit::Pairs => block.head_dim / 2,
            AttnUnit::Heads => block.heads / block.kv_heads,
            AttnUnit::Groups => block.kv_heads,
        }
    }

    fn multiple(&self, width: usize) -> usize {
        self.multiple.unwrap_or_else(|| default_multiple(width))
    }

    /// Steps of the finest grid: of attention, of MLPs.
    fn steps(&self) -> (usize, usize) {
        let attn = self.blocks.iter().map(|block| self.attn_units(block)).max().unwrap_or(1);
        let widths = self.blocks.iter().flat_map(|block| block.mlp.values());
        let ffn = widths.map(|width| width / self.multiple(*width)).max().unwrap_or(1);
        (attn.max(1), ffn.max(1))
    }

    /// Blocks with `attn` of `steps.0` and `ffn` of `steps.1` parts of their widths, rounded down
    /// to their grids, at least one unit.
    fn at(&self, attn: usize, ffn: usize, steps: (usize, usize)) -> Vec<BlockShape> {
        let cut = |block: &BlockShape| {
            let mut new = block.clone();
            let part = (self.attn_units(block) * attn / steps.0).max(1);
            match self.unit {
                AttnUnit::Pairs => new.head_dim = 2 * part,
                AttnUnit::Heads => new.heads = block.kv_heads * part,
                AttnUnit::Groups => {
                    new.heads = block.heads / block.kv_heads * part;
                    new.kv_heads = part;
                }
            }
            for width in new.mlp.values_mut().filter(|_| ffn < steps.1) {
                let multiple = self.multiple(*width);
                if *width > multiple {
                    *width = (*width / multiple * ffn / steps.1).max(1) * multiple;
                }
            }
            new
        };
        self.blocks.iter().map(cut).collect()
    }

    /// Parameters that narrower MLPs save.
    fn saved(&self, costs: &UnitCosts, shapes: &[BlockShape]) -> u64 {
        let pairs = self.blocks.iter().zip(shapes).enumerate();
        let of = |(b, (old, new)): (usize, (&BlockShape, &BlockShape))| -> u64 {
            let cut = |(e, w): (&Option<Expert>, &usize)| (old.mlp[e] - w) as u64 * costs[&(b, *e)];
            new.mlp.iter().map(cut).sum()
        };
        pairs.map(of).sum()
    }

    fn solve(
        &self,
        goal: u64,
        (before, costs): (&Size, &UnitCosts),
        parameters: impl Fn(&[BlockShape]) -> Result<u64, ConfigError>,
    ) -> Result<Vec<BlockShape>, PruneError> {
        let steps = self.steps();
        let smallest = parameters(&self.at(1, 1, steps))?;
        if smallest > goal {
            return Err(PruneError::TooSmall { target: goal, ends: before.ends, smallest });
        }
        let mut best: Option<(f64, Vec<BlockShape>)> = None;
        for attn in 1..=steps.0 {
            let whole = parameters(&self.at(attn, steps.1, steps))?;
            let parameters = |shapes: &[BlockShape]| whole - self.saved(costs, shapes);
            // More hidden units are more parameters: the last that fit are found by halving.
            let (mut low, mut high) = (0, steps.1);
            while low < high {
                let middle = (low + high).div_ceil(2);
                let fits = parameters(&self.at(attn, middle, steps)) <= goal;
                (low, high) = if fits { (middle, high) } else { (low, middle - 1) };
            }
            for ffn in (1..=low).rev().take(4) {
                let shapes = self.at(attn, ffn, steps);
                let unused = (goal - parameters(&shapes).min(goal)) as f64 / goal as f64;
                let cut = |kept: usize, whole: usize| 1.0 - kept as f64 / whole as f64;
                let off = cut(attn, steps.0) - self.balance * cut(ffn, steps.1);
                let cost = unused + 4.0 * off.abs();
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, shapes));
                }
            }
        }
        best.map(|(_, shapes)| shapes).ok_or(PruneError::TooSmall {
            target: goal,
            ends: before.ends,
            smallest,
        })
    }

    /// Blocks with widths that are given; the others stay.
    fn widths(
        &self,
        attn: Option<usize>,
        ffn: Option<usize>,
    ) -> Result<Vec<BlockShape>, PruneError> {
        let mut blocks = self.blocks.to_vec();
        for block in &mut blocks {
            if let Some(width) = attn {
                self.attn(block, width)?;
            }
            if let Some(width) = ffn {
                self.ffn(block, width)?;
            }
        }
        if blocks == self.blocks {
            return Err(setting("width", "the model's widths", "a smaller width"));
        }
        Ok(blocks)
    }

    fn attn(&self, block: &mut BlockShape, width: usize) -> Result<(), PruneError> {
        let whole = block.heads * block.head_dim;
        let (units, what) = (
            self.attn_units(block),
            match self.unit {
                AttnUnit::Pairs => "an even width of each head",
                AttnUnit::Heads => "equally many query heads of each group",
                AttnUnit::Groups => "whole key/value heads with their query heads",
            },
        );
        let step = whole / units;
        if width > whole || !width.is_multiple_of(step) {
            let expected = format!("a multiple of {step} ({what}) up to {whole}");
            let (name, found) = ("--attn-width", width.to_string());
            return Err(PruneError::Setting { name, found, expected });
        }
        let one = [block.clone()];
        let grid = Grid { blocks: &one, ..*self };
        let steps = grid.steps();
        *block = grid.at(width / step, steps.1, (units, steps.1)).remove(0);
        Ok(())
    }

    /// Other MLPs than the dense one or the routed experts keep the same share.
    fn ffn(&self, block: &mut BlockShape, width: usize) -> Result<(), PruneError> {
        let main = |expert: Option<Expert>| !matches!(expert, Some(Expert::Shared));
        let Some(whole) = block.mlp.iter().find(|(e, _)| main(**e)).map(|(_, w)| *w) else {
            return Ok(());
        };
        let multiple = self.multiple(whole);
        if width > whole || !(width.is_multiple_of(multiple) || width == whole) {
            let expected = format!("a multiple of {multiple} up to {whole} (--multiple)");
            let (name, found) = ("--ffn-width", width.to_string());
            return Err(PruneError::Setting { name, found, expected });
        }
        for (expert, old) in &mut block.mlp {
            let multiple = self.multiple(*old);
            *old = if main(*expert) {
                width
            } else if width < whole && *old > multiple {
                (*old * width / whole / multiple).max(1) * multiple
            } else {
                *old
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checkpoint::synth::Shape, tensor::FloatType};
    use serde_json::json;

    fn planned(config: &Value, change: impl FnOnce(&mut Settings)) -> Result<Plan, PruneError> {
        let mut settings = Settings::default();
        change(&mut settings);
        plan(&ModelSpec::from_config(config).unwrap(), config, &settings)
    }

    fn milm(name: &str) -> Value {
        Shape::find(name).unwrap().config(FloatType::Bf16)
    }

    fn widths(plan: &Plan) -> (usize, usize) {
        let block = &plan.blocks[0];
        assert!(plan.blocks.iter().all(|it| it == block));
        (block.heads * block.head_dim, *block.mlp.values().next().unwrap())
    }

    /// 2·65536·3584 + 3584 + 40·(2·3584 + 4·3584·1792 + 3·3584·4608): both halves, exactly.
    #[test]
    fn six_billion_become_three_and_a_half() {
        let target = Some(3_500_000_000.into());
        let even = |s: &mut Settings| (s.target_params, s.balance) = (target, 1.0);
        let plan = planned(&milm("milm2-6b"), even).unwrap();
        assert_eq!(widths(&plan), (1792, 4608));
        assert_eq!(plan.after.parameters, 3_479_465_472);
        assert_eq!(plan.after.bytes, 2 * 3_479_465_472);
        assert_eq!(plan.before.kv_bytes_per_token, 2 * 40 * 28 * 128 * 2);
        assert_eq!(plan.after.kv_bytes_per_token, 40 * 28 * 128 * 2);
        // 2·(3479465472 − 65536·3584 − 81·3584) + 4·40·1792·2048
        assert_eq!(plan.after.flops_per_token, 7_075_790_848);
        assert_eq!(plan.spec.parameters(), 3_479_465_472);
        assert_eq!(plan.after.by_role.values().sum::<u64>(), plan.after.parameters);
        // Left to itself, the plan takes everything from the MLPs.
        let plan = planned(&milm("milm2-6b"), |s| s.target_params = target).unwrap();
        assert_eq!(widths(&plan), (3584, 2048));
    }

    #[test]
    fn every_kind_of_target_is_kept() {
        for name in ["tiny", "milm2-0.7b", "milm2-4b", "milm2-0.7b-x8"] {
            let config = milm(name);
            let spec = ModelSpec::from_config(&config).unwrap();
            let whole = spec.parameters();
            for unit in [AttnUnit::Pairs, AttnUnit::Heads, AttnUnit::Groups] {
                for percent in [55_u64, 70, 90] {
                    let goal = whole * percent / 100;
                    let of = |s: &mut Settings| {
                        (s.target_params, s.attn_unit) = (Some(goal.into()), Some(unit));
                    };
                    let plan = planned(&config, of).unwrap();
                    let found = plan.after.parameters;
                    assert!(found <= goal && found * 10 > goal * 8, "{name} {unit:?}: {found}");
                }
            }
            let bytes = planned(&config, |s| s.target_bytes = Some(whole.into())).unwrap();
            assert!(bytes.after.bytes <= whole);
            let keep = planned(&config, |s| s.keep = Some(0.6)).unwrap();
            let share = |p: &Plan| {
                let rest = |s: &Size| (s.parameters - s.ends) as f64;
                rest(&p.after) / rest(&p.before)
            };
            assert!(share(&keep) <= 0.6 && share(&keep) > 0.5, "{name}: {}", share(&keep));
        }
    }

    #[test]
    fn widths_are_taken_as_they_are_given() {
        let config = milm("milm2-6b");
        let of = |s: &mut Settings| (s.attn_width, s.ffn_width) = (Some(1792), Some(4608));
        assert_eq!(widths(&planned(&config, of).unwrap()), (1792, 4608));
        let ffn = planned(&config, |s| s.ffn_width = Some(4608)).unwrap();
        assert_eq!(widths(&ffn), (3584, 4608));
        for (attn, ffn, told) in [
            (Some(1800), None, "a multiple of 56"),
            (Some(7168), None, "up to 3584"),
            (None, Some(4600), "a multiple of 256"),
            (None, Some(9472), "up to 9216"),
        ] {
            let of = |s: &mut Settings| (s.attn_width, s.ffn_width) = (attn, ffn);
            let error = planned(&config, of).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let of = |s: &mut Settings| (s.ffn_width, s.multiple) = (Some(4600), Some(8));
        assert_eq!(widths(&planned(&config, of).unwrap()).1, 4600);
        // 12 query heads over 4 groups: a query head of each group is 4 · 128 wide.
        let of = |width: usize| {
            move |s: &mut Settings| {
                (s.attn_width, s.attn_unit) = (Some(width), Some(AttnUnit::Heads));
            }
        };
        let small = milm("milm2-0.7b");
        let plan = planned(&small, of(1024)).unwrap();
        assert_eq!((plan.blocks[0].heads, plan.blocks[0].kv_heads), (8, 4));
        assert!(planned(&small, of(1152)).unwrap_err().to_string().contains("512"));
    }

    #[test]
    fn unreachable_targets_tell_what_is_there() {
        let config = milm("tiny");
        let of = |n: u64| move |s: &mut Settings| s.target_params = Some(n.into());
        let parameters = ModelSpec::from_config(&config).unwrap().parameters();
        let error = planned(&config, of(parameters)).unwrap_err().to_string();
        assert!(error.contains("is not below the model's"), "{error}");
        let error = planned(&config, of(1000)).unwrap_err();
        let PruneError::TooSmall { smallest, ends, .. } = error else { panic!("{error}") };
        assert_eq!(ends, 2 * 512 * 128 + 128);
        // Heads of width 2: q, o 128·8 each, k, v 128·4 each; MLP 3·128·32; two norms of 128.
        assert_eq!(smallest, ends + 2 * (3072 + 12288 + 256));
        assert_eq!(planned(&config, of(smallest)).unwrap().after.parameters, smallest);
        let error = planned(&config, |s| s.drop_layers = Some(2)).unwrap_err().to_string();
        assert!(error.contains("at most 1 of the 2 layers"), "{error}");
    }

    #[test]
    fn shots_end_at_the_plan() {
        let plan = planned(&milm("milm2-6b"), |s| {
            (s.attn_width, s.ffn_width) = (Some(1792), Some(4608));
        });
        let plan = plan.unwrap();
        let shots = plan.shots(8);
        assert_eq!((shots.len(), &shots[7]), (8, &plan.blocks));
        let first = &shots[0][0];
        assert_eq!((first.head_dim, first.mlp[&None]), (120, 9216 - 576));
        assert_eq!(plan.shots(1), [plan.blocks]);
        let plan = planned(&milm("milm2-6b"), |s| s.drop_layers = Some(10)).unwrap();
        assert_eq!((plan.blocks.len(), plan.dropped_blocks), (30, 10));
        assert_eq!(plan.before.parameters - plan.after.parameters, 10 * 150_477_824);
    }

    #[test]
    fn normed_queries_lose_whole_groups_unless_told_otherwise() {
        let mut config = milm("milm2-4b");
        config["architectures"] = json!(["Qwen3ForCausalLM"]);
        config["model_type"] = json!("qwen3");
        let groups = planned(&config, |s| (s.keep, s.balance) = (Some(0.5), 1.0)).unwrap();
        assert_eq!(groups.attn_unit, AttnUnit::Groups);
        assert!(groups.blocks[0].kv_heads < 8 && groups.notes.is_empty());
        let of = |s: &mut Settings| {
            (s.keep, s.balance, s.attn_unit) = (Some(0.5), 1.0, Some(AttnUnit::Pairs));
        };
        assert!(planned(&config, of).unwrap().notes[0].contains("gains"));
    }
}
