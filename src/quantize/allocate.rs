//! Spreads a budget of bytes over weights: which scheme each gets.
//!
//! Weights that engines fuse share a scheme and are one [`Unit`]: query, key and value; gate and
//! up; all experts of a block. The result is a list of [`Rule`]s, so that
//! [`plan`](super::plan()) stays the one place that decides.
use super::{Embeddings, GroupFallback, Plan, QuantizeError, Rule, Settings, knapsack, plan};
use crate::{
    model::{Model, Role, TensorSpec},
    number,
    scheme::{Granularity, PRESETS, TensorScheme},
};
use std::collections::BTreeMap;

/// A budget that `plan` does not know of: over all tensors of the package, scales included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Bits per weight.
    Bits(f64),
    /// Bytes.
    Bytes(u64),
}

impl Budget {
    /// Bytes for a model of so many weights.
    pub fn bytes(self, weights: u64) -> u64 {
        match self {
            Self::Bits(bits) => (bits * weights as f64 / 8.0).floor() as u64,
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl Settings {
    /// Whether schemes are chosen within a budget.
    pub fn has_budget(&self) -> bool {
        self.avg_bits.is_some() || self.max_bytes.is_some()
    }

    /// The budget that schemes are chosen within, if there is one.
    pub fn budget(&self) -> Result<Option<Budget>, QuantizeError> {
        number::check(self)?;
        let wrong = |found: String, expected| Err(QuantizeError::Value { found, expected });
        if self.has_budget()
            && !GRIDS
                .iter()
                .any(|(name, _)| self.preset().is_ok_and(|it| it.weights.name() == *name))
        {
            let found = format!("a budget of bits or bytes with scheme {}", self.scheme);
            return wrong(
                found,
                "possible: a budget chooses among integers (--scheme w4a16); name the scheme in a rule",
            );
        }
        match (self.avg_bits, self.max_bytes) {
            (Some(bits), Some(bytes)) => {
                wrong(format!("avg-bits {bits}, max-bytes {bytes}"), "one budget, but two")
            }
            (bits, bytes) => {
                Ok(bits.map(Budget::Bits).or(bytes.map(|bytes| Budget::Bytes(bytes.0))))
            }
        }
    }
}

/// A scheme that a unit may get.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// As rules name it, e.g. `w4a16-g64`.
    pub scheme: String,
    /// Of each tensor of the unit, in its order.
    pub schemes: Vec<TensorScheme>,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Weights that get one scheme together.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// For people: `block 3: o`.
    pub name: String,
    /// Its block; none for embedding and head.
    pub block: Option<usize>,
    /// Their names.
    pub tensors: Vec<String>,
    /// Number of weights.
    pub weights: u64,
    /// What it may get, at least one.
    pub choices: Vec<Choice>,
}

/// What there is to allocate.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidates {
    /// In the order of the forward pass, embedding and head last.
    pub units: Vec<Unit>,
    /// Bytes of everything else.
    pub fixed: u64,
    /// Bytes in all that may be used.
    pub budget: u64,
    /// Weights of the whole model.
    pub weights: u64,
}

/// Grids that are tried, as rules name them; coarse ones first.
const GRIDS: [(&str, &str); 5] =
    [("int4", "channel"), ("int4", "g128"), ("int4", "g64"), ("int4", "g32"), ("int8", "channel")];

impl Candidates {
    /// The units of a model with what each may get, if the settings have a budget. A budget below
    /// the smallest package is refused.
    pub fn of(model: &Model, settings: &Settings) -> Result<Option<Self>, QuantizeError> {
        let Some(budget) = settings.budget()? else { return Ok(None) };
        let free = Settings { group_fallback: GroupFallback::Channel, ..settings.clone() };
        let base = plan(model, &free)?;
        let mut grids = Vec::new();
        for scheme in schemes(settings)? {
            let mut rules = vec![Rule { pattern: "re:.*".into(), scheme: scheme.clone() }];
            rules.extend(settings.rules.iter().cloned());
            grids.push((scheme, plan(model, &Settings { rules, ..free.clone() })?));
        }
        let units = units(model, settings, &base, &grids);
        let bytes = |names: &[String]| names.iter().map(|it| base.tensors[it].bytes).sum::<u64>();
        let fixed = base.bytes() - units.iter().map(|unit| bytes(&unit.tensors)).sum::<u64>();
        let weights = base.tensors.values().map(super::Planned::elements).sum();
        let candidates = Self { units, fixed, budget: budget.bytes(weights), weights };
        let smallest = candidates.smallest();
        if smallest > candidates.budget {
            let bits = |bytes: u64| bytes as f64 * 8.0 / weights.max(1) as f64;
            let (wanted, found) = (candidates.budget, smallest);
            let (wanted_bits, bits) = (bits(wanted), bits(found));
            return Err(QuantizeError::Budget { wanted, wanted_bits, smallest: found, bits });
        }
        Ok(Some(candidates))
    }

    /// Bytes of the smallest package.
    fn smallest(&self) -> u64 {
        let least = |unit: &Unit| unit.choices.iter().map(|it| it.bytes).min().unwrap_or(0);
        self.fixed + self.units.iter().map(least).sum::<u64>()
    }

    /// The choice of each unit that makes the sum of `losses` (`[units][choices]`) least within
    /// the budget.
    ///
    /// # Panics
    /// When there is no loss for some choice.
    pub fn choose(&self, losses: &[Vec<f64>]) -> Vec<usize> {
        let items: Vec<Vec<knapsack::Item>> = self
            .units
            .iter()
            .zip(losses)
            .map(|(unit, losses)| {
                let item =
                    |(i, it): (usize, &Choice)| knapsack::Item { bytes: it.bytes, loss: losses[i] };
                unit.choices.iter().enumerate().map(item).collect()
            })
            .collect();
        knapsack::choose(&items, self.budget.saturating_sub(self.fixed))
    }

    /// Rules that say what was chosen; rules of the settings go behind them.
    pub fn rules(&self, chosen: &[usize]) -> Vec<Rule> {
        let of = |(unit, choice): (&Unit, &usize)| {
            let scheme = unit.choices[*choice].scheme.clone();
            let rule = move |name: &String| Rule { pattern: name.clone(), scheme: scheme.clone() };
            unit.tensors.iter().map(rule).collect::<Vec<_>>()
        };
        self.units.iter().zip(chosen).flat_map(of).collect()
    }

    /// Bytes of the whole package with these choices.
    pub fn bytes(&self, chosen: &[usize]) -> u64 {
        let units = self.units.iter().zip(chosen);
        self.fixed + units.map(|(unit, choice)| unit.choices[*choice].bytes).sum::<u64>()
    }
}

/// Names of the schemes that weights may get: the activations are those that the settings name,
/// and a group size that is given holds for all int4 weights.
fn schemes(settings: &Settings) -> Result<Vec<String>, QuantizeError> {
    let activations = settings.preset()?.activations;
    let preset = |name| {
        let fits = |it: &&crate::scheme::Preset| {
            it.weights.name() == name && it.activations == activations
        };
        PRESETS.iter().find(fits).map(|it| it.name)
    };
    let wanted = settings.group_size.map(|size| match size {
        super::GroupSize::Channel => "channel".to_owned(),
        super::GroupSize::Of(size) => format!("g{size}"),
    });
    let grids = GRIDS.iter().filter(|(name, grid)| {
        *name == "int8" || wanted.as_ref().is_none_or(|wanted| wanted == grid)
    });
    Ok(grids.filter_map(|(name, grid)| Some(format!("{}-{grid}", preset(*name)?))).collect())
}

/// The unit that a weight belongs to, within its block.
fn unit_of(spec: &TensorSpec) -> Option<&'static str> {
    Some(match (spec.role, spec.expert) {
        (Role::Q | Role::K | Role::V, _) => "queries, keys, values",
        (Role::O, _) => "attention output",
        (Role::Gate | Role::Up | Role::Down, Some(_)) => "experts",
        (Role::Gate | Role::Up, None) => "gate and up",
        (Role::Down, None) => "down",
        (Role::Embed, _) => "embedding",
        (Role::Head, _) => "head",
        _ => return None,
    })
}

fn units(model: &Model, settings: &Settings, base: &Plan, grids: &[(String, Plan)]) -> Vec<Unit> {
    let scheme = |plan: &Plan, name: &str| plan.tensors.get(name).and_then(|it| it.scheme);
    // A rule that was given says the same in every plan.
    let ruled = |name: &str| {
        let mut all = grids.iter().map(|(_, plan)| scheme(plan, name));
        let first = all.next();
        all.all(|it| Some(it) == first)
    };
    let mut found: Vec<(Option<usize>, &str, Vec<String>)> = Vec::new();
    let mut index: BTreeMap<(Option<usize>, &str), usize> = BTreeMap::new();
    for spec in &model.spec.tensors {
        let Some(unit) = unit_of(spec).filter(|_| scheme(base, &spec.name).is_some()) else {
            continue;
        };
        let kept = spec.block.is_none() && settings.embeddings() == Embeddings::Float;
        if kept || ruled(&spec.name) {
            continue;
        }
        let at = *index.entry((spec.block, unit)).or_insert_with(|| {
            found.push((spec.block, unit, Vec::new()));
            found.len() - 1
        });
        found[at].2.push(spec.name.clone());
    }
    // Blocks first, in order.
    found.sort_by_key(|(block, ..)| block.unwrap_or(usize::MAX));
    let unit = |(block, unit, tensors): (Option<usize>, &str, Vec<String>)| {
        let choices = grids.iter().filter_map(|(name, plan)| {
            let all = tensors.iter().map(|it| scheme(plan, it)).collect::<Option<Vec<_>>>()?;
            // A group size that does not divide the columns fell back to rows.
            let channel = |it: &TensorScheme| it.weights.granularity() == Granularity::Channel;
            let fits = name.ends_with("channel") || !all.iter().any(channel);
            let bytes = tensors.iter().map(|it| plan.tensors[it].bytes).sum();
            fits.then(|| Choice { scheme: name.clone(), schemes: all, bytes })
        });
        let choices: Vec<Choice> = choices.collect();
        let weights = tensors.iter().map(|it| base.tensors[it].elements()).sum();
        let name = block.map_or(unit.to_owned(), |block| format!("block {block}: {unit}"));
        (!choices.is_empty()).then_some(Unit { name, block, tensors, weights, choices })
    };
    found.into_iter().filter_map(unit).collect()
}
