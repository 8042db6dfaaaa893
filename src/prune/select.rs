//! Which heads, rotary pairs, value channels and hidden units stay.
use super::{
    BlockShape, GainRatios, Kept, KeptHead, PruneError, ValueMethod, Values,
    refit::{Place, layer},
    score::{PairSite, Score, Site},
    values::value_maps,
};
use crate::{
    calibrate::{BlockStatistics, InputStatistics, Request},
    model::{Block, Expert, Model, ModelSpec, Part, Role},
};
use ndarray::{Array2, ArrayView2, Axis, s};
use std::collections::BTreeMap;

/// How units are chosen.
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    /// Scores units.
    pub score: &'a dyn Score,
    /// How V/O channels are cut.
    pub values: ValueMethod,
    /// The same rotary pairs in every head and block, which stock engines need.
    pub shared_pairs: bool,
    /// Seed of random scores.
    pub seed: u64,
}

/// The scores of a block's units; higher stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockScores {
    /// Key/value heads with their query heads, `[kv_heads]`.
    pub groups: Vec<f64>,
    /// Query heads, `[heads]`.
    pub heads: Vec<f64>,
    /// Rotary pairs, `[kv_heads · head_dim / 2]`.
    pub pairs: Vec<f64>,
    /// What stays of each key/value head's values, `[kv_heads]`.
    pub values: Vec<Values>,
    /// Hidden units.
    pub mlp: BTreeMap<Option<Expert>, Vec<f64>>,
    /// What losing a hidden unit does to the residual stream, as a share of the block's influence.
    pub costs: BTreeMap<Option<Expert>, Vec<f64>>,
    /// Energies of queries and keys per rotary pair before the gain of their norm, if they have
    /// one.
    pub norm_energies: Vec<Vec<f64>>,
}

impl Choice<'_> {
    /// The statistics that scoring needs when blocks shrink to `shapes`.
    pub fn request(&self, spec: &ModelSpec, shapes: &[BlockShape]) -> Request {
        let any = |narrower: fn(&BlockShape, &Block) -> bool| {
            shapes.iter().zip(&spec.blocks).any(|(shape, block)| narrower(shape, block))
        };
        let narrow = any(|shape, block| shape.head_dim < block.head_dim);
        let fewer = any(|shape, block| shape.heads < block.heads);
        let selected = narrow && self.values == ValueMethod::Select;
        let mlp = any(|shape, block| shape.mlp != BlockShape::of(block).mlp);
        let mut request = Request { heads: narrow && !selected, ..Request::default() };
        if self.score.needs_covariance() {
            let wanted = [(Role::O, fewer || selected), (Role::Down, mlp)];
            request.covariance =
                wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(role, _)| role).collect();
        }
        request
    }

    /// Scores those units of a block of which not all stay, when it shrinks to `shape`.
    pub fn score(
        &self,
        model: &Model,
        block: usize,
        seen: &BlockStatistics,
        shape: &BlockShape,
    ) -> Result<BlockScores, PruneError> {
        let sizes = &model.spec.blocks[block];
        let (width, repeat) = (sizes.head_dim, sizes.kv_repeat());
        let mut scores = BlockScores::default();
        let (weight, _) = layer(model, (block, Role::O, None))?;
        let input = input(seen, (block, Role::O, None))?;
        let site = self.site(weight.view(), input, (block, 0));
        if shape.kv_heads < sizes.kv_heads {
            scores.groups = self.score.units(&site, width * repeat, shape.kv_heads)?;
        }
        if shape.heads * sizes.kv_heads < sizes.heads * shape.kv_heads {
            scores.heads = self.score.units(&site, width, shape.heads)?;
        }
        if shape.head_dim < width {
            scores.pairs = self.pairs(model, block, seen, input)?;
            scores.values = self.values(&site, sizes, seen, (block, shape.head_dim))?;
            scores.norm_energies = norm_energies(model, block, seen)?;
        }
        let before = BlockShape::of(sizes).mlp;
        for (expert, width) in shape.mlp.iter().filter(|(expert, width)| before[*expert] > **width)
        {
            let place = (block, Role::Down, *expert);
            let (down, _) = layer(model, place)?;
            let Ok(input) = self::input(seen, place) else {
                // An expert that no token was sent to: which of its units stay makes no
                // difference that could be measured.
                scores.mlp.insert(*expert, vec![0.0; before[expert]]);
                continue;
            };
            let salt = expert.map_or(1, |expert| match expert {
                Expert::Shared => 2,
                Expert::Routed(e) => 3 + e as u64,
            });
            let site = self.site(down.view(), input, (block, salt));
            scores.mlp.insert(*expert, self.score.units(&site, 1, *width)?);
            scores.costs.insert(*expert, costs(&down, input, seen.influence));
        }
        Ok(scores)
    }

    /// Scores of rotary pairs, `[kv_heads · head_dim / 2]`.
    fn pairs(
        &self,
        model: &Model,
        block: usize,
        seen: &BlockStatistics,
        input: &InputStatistics,
    ) -> Result<Vec<f64>, PruneError> {
        let sizes = &model.spec.blocks[block];
        let (width, repeat) = (sizes.head_dim, sizes.kv_repeat());
        let rows = |role| -> Result<Vec<f64>, PruneError> {
            let (weight, _) = layer(model, (block, role, None))?;
            let norms =
                weight.outer_iter().map(|row| row.iter().map(|w| f64::from(*w).powi(2)).sum());
            let norms: Vec<f64> = norms.collect();
            Ok(norms.chunks(width).flat_map(pair_sums).collect())
        };
        let grouped = |heads: &[f64], width: usize| -> Vec<f64> {
            (0..sizes.kv_heads).flat_map(|kv| sum_heads(heads, kv, (width, repeat))).collect()
        };
        let (query_rows, key_rows) = (rows(Role::Q)?, rows(Role::K)?);
        Ok(self.score.pairs(&PairSite {
            queries: &grouped(&seen.queries, width / 2),
            keys: &seen.keys,
            values: &grouped(&input.moments.sum_squares, width),
            query_rows: &grouped(&query_rows, width / 2),
            key_rows: &key_rows,
            pairs: width / 2,
            seed: self.seed_of((block, 0)),
        }))
    }

    /// What stays of the values of each key/value head.
    fn values(
        &self,
        site: &Site<'_>,
        sizes: &Block,
        seen: &BlockStatistics,
        (block, keep): (usize, usize),
    ) -> Result<Vec<Values>, PruneError> {
        let (width, repeat) = (sizes.head_dim, sizes.kv_repeat());
        if self.values == ValueMethod::Select {
            let channels = self.score.units(site, 1, keep * sizes.heads)?;
            let head = |kv| top(&sum_heads(&channels, kv, (width, repeat)), keep);
            return Ok((0..sizes.kv_heads).map(|kv| Values::Channels(head(kv))).collect());
        }
        let unseen = PruneError::Unseen { block, role: Role::O, expert: None };
        let moments = seen.heads.as_ref().ok_or(unseen)?;
        let tokens = (seen.tokens.max(1) * repeat as u64) as f64;
        (0..sizes.kv_heads)
            .map(|kv| {
                let heads = kv * repeat..(kv + 1) * repeat;
                let moment = moments.slice(s![heads.clone(), .., ..]).mapv(f64::from);
                let moment = moment.sum_axis(Axis(0)) / tokens;
                let columns = site.weight.slice(s![.., heads.start * width..heads.end * width]);
                let maps = value_maps(columns, moment.view(), keep)
                    .map_err(|source| PruneError::Values { block, kv_head: kv, source })?;
                Ok(Values::Map { down: maps.down, up: maps.up })
            })
            .collect()
    }

    fn site<'a>(
        &self,
        weight: ArrayView2<'a, f32>,
        input: &'a InputStatistics,
        place: (usize, u64),
    ) -> Site<'a> {
        let covariance = input.covariance.as_ref().map(|it| it.view());
        Site { weight, moments: &input.moments, covariance, seed: self.seed_of(place) }
    }

    /// Neighbouring seeds give unrelated streams, so that a sum will do.
    fn seed_of(&self, (block, salt): (usize, u64)) -> u64 {
        self.seed.wrapping_add((block as u64) << 32).wrapping_add(salt)
    }
}

/// What losing each hidden unit does to the residual stream: its share of Σ x² · ‖w‖² over the
/// block's units, of the block's influence. The stream's own energy is no measure: on a few tokens
/// it is thousands of times that of the others, in the middle blocks alone.
fn costs(down: &Array2<f32>, input: &InputStatistics, influence: f64) -> Vec<f64> {
    let mut columns = vec![0.0; down.ncols()];
    for row in down.outer_iter() {
        columns.iter_mut().zip(row).for_each(|(sum, w)| *sum += f64::from(*w).powi(2));
    }
    let each = columns.iter().zip(&input.moments.sum_squares);
    let energies: Vec<f64> = each.map(|(column, squares)| column * squares).collect();
    let all = energies.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    energies.iter().map(|energy| influence * energy / all).collect()
}

/// Energies of queries and keys per rotary pair before the gain of their norm, over all heads,
/// `[2][head_dim / 2]`; nothing in models that do not normalize them. The two channels of a pair
/// have gains of their own, of which the mean square is taken: what turned in between cannot be
/// told apart.
fn norm_energies(
    model: &Model,
    block: usize,
    seen: &BlockStatistics,
) -> Result<Vec<Vec<f64>>, PruneError> {
    let sizes = &model.spec.blocks[block];
    if !sizes.has_head_norms() {
        return Ok(Vec::new());
    }
    let pairs = sizes.head_dim / 2;
    let side = |(role, energies): (Role, &[f64])| {
        let spec = model.spec.find(Some(block), role, None, Part::Weight);
        let spec = spec.ok_or(PruneError::Absent { block, role })?;
        let gain = model.weights.get(&spec.name)?.to_f32();
        let squares: Vec<f64> = gain.iter().map(|g| f64::from(*g).powi(2)).collect();
        let mut sums = vec![0.0; pairs];
        for head in energies.chunks(pairs) {
            sums.iter_mut().zip(head).for_each(|(sum, energy)| *sum += energy);
        }
        let gains = pair_sums(&squares);
        Ok(sums.iter().zip(gains).map(|(sum, gain)| sum / (gain / 2.0).max(1e-12)).collect())
    };
    [(Role::QNorm, &*seen.queries), (Role::KNorm, &*seen.keys)].into_iter().map(side).collect()
}

/// Sums of channels i and i + d/2 of a head, `[head_dim / 2]`.
fn pair_sums(head: &[f64]) -> Vec<f64> {
    let (first, second) = head.split_at(head.len() / 2);
    first.iter().zip(second).map(|(a, b)| a + b).collect()
}

/// Indices of the `count` highest scores, ascending; of equal ones the first.
fn top(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// Sums channel scores over the query heads of key/value head `kv`, `[head_dim]`.
fn sum_heads(channels: &[f64], kv: usize, (width, repeat): (usize, usize)) -> Vec<f64> {
    let group = &channels[kv * repeat * width..(kv + 1) * repeat * width];
    let mut sums = vec![0.0; width];
    for head in group.chunks_exact(width) {
        for (sum, channel) in sums.iter_mut().zip(head) {
            *sum += channel;
        }
    }
    sums
}

impl Choice<'_> {
    /// What stays of each block: as many units as the shapes say, those with the highest scores.
    pub fn choose(
        &self,
        spec: &ModelSpec,
        shapes: &[BlockShape],
        scores: &[BlockScores],
    ) -> Vec<Kept> {
        let heads: Vec<Vec<(usize, Vec<usize>)>> = spec
            .blocks
            .iter()
            .zip(shapes)
            .zip(scores)
            .map(|((sizes, shape), scores)| kept_heads(sizes, shape, scores))
            .collect();
        let shared = self.shared_pairs.then(|| shared_pairs(spec, shapes, scores, &heads));
        let blocks = heads.into_iter().zip(shapes).zip(scores).zip(&spec.blocks);
        blocks
            .map(|(((heads, shape), scores), sizes)| {
                let whole = shape.head_dim == sizes.head_dim;
                let pairs = |kv: usize| match &shared {
                    _ if whole => (0..sizes.head_dim / 2).collect(),
                    Some(shared) => shared.clone(),
                    None => top(of_head(&scores.pairs, kv, sizes), shape.head_dim / 2),
                };
                let values = |kv: usize| {
                    if whole {
                        Values::Channels((0..sizes.head_dim).collect())
                    } else {
                        scores.values[kv].clone()
                    }
                };
                let kept = |(kv_head, queries)| KeptHead {
                    kv_head,
                    queries,
                    pairs: pairs(kv_head),
                    values: values(kv_head),
                };
                let units = |(expert, width): (&Option<Expert>, &usize)| {
                    let all = || (0..*width).collect();
                    let units = scores.mlp.get(expert).map_or_else(all, |it| top(it, *width));
                    (*expert, units)
                };
                let mlp = shape.mlp.iter().map(units).collect();
                Kept { kv_heads: heads.into_iter().map(kept).collect(), mlp }
            })
            .collect()
    }
}

/// The part of per-pair scores that belongs to a key/value head.
fn of_head<'a>(pairs: &'a [f64], kv: usize, sizes: &Block) -> &'a [f64] {
    let count = sizes.head_dim / 2;
    &pairs[kv * count..(kv + 1) * count]
}

/// The key/value heads that stay, each with the same number of its query heads.
fn kept_heads(sizes: &Block, shape: &BlockShape, scores: &BlockScores) -> Vec<(usize, Vec<usize>)> {
    let repeat = sizes.kv_repeat();
    let queries = |kv: usize| match scores.heads.get(kv * repeat..(kv + 1) * repeat) {
        Some(heads) => (kv, top(heads, shape.heads / shape.kv_heads.max(1))),
        None => (kv, (0..repeat).collect()),
    };
    let groups = if scores.groups.is_empty() {
        (0..sizes.kv_heads).collect()
    } else {
        top(&scores.groups, shape.kv_heads)
    };
    groups.into_iter().map(queries).collect()
}

/// The rotary pairs that stay in every head of every block: those with the largest sum of their
/// shares of the score, so that each head weighs the same.
fn shared_pairs(
    spec: &ModelSpec,
    shapes: &[BlockShape],
    scores: &[BlockScores],
    heads: &[Vec<(usize, Vec<usize>)>],
) -> Vec<usize> {
    let Some(shape) = shapes.first() else { return Vec::new() };
    let mut sums = vec![0.0; spec.blocks[0].head_dim / 2];
    for ((sizes, scores), heads) in spec.blocks.iter().zip(scores).zip(heads) {
        for (kv, _) in heads.iter().filter(|_| !scores.pairs.is_empty()) {
            let pairs = of_head(&scores.pairs, *kv, sizes);
            let total: f64 = pairs.iter().sum();
            for (sum, pair) in sums.iter_mut().zip(pairs).filter(|_| total > 0.0) {
                *sum += pair / total;
            }
        }
    }
    top(&sums, shape.head_dim / 2)
}

/// Statistics of the input of a layer.
fn input(
    seen: &BlockStatistics,
    (block, role, expert): Place,
) -> Result<&InputStatistics, PruneError> {
    seen.inputs.get(&(role, expert)).ok_or(PruneError::Unseen { block, role, expert })
}

impl BlockScores {
    /// What the gains of normalized queries and keys are multiplied by when these pairs stay:
    /// √(E x² over the kept channels ÷ E x² over all), since the norm will divide by the former.
    pub fn gain_ratios(&self, kept: &Kept) -> GainRatios {
        let pairs = kept.kv_heads.first().map_or(&[][..], |head| &head.pairs);
        let ratio = |energies: &Vec<f64>| {
            let mean = |values: &mut dyn Iterator<Item = f64>| {
                let (mut sum, mut count) = (0.0, 0.0);
                values.for_each(|value| (sum, count) = (sum + value, count + 1.0));
                sum / f64::max(count, 1.0)
            };
            let all = mean(&mut energies.iter().copied());
            let some = mean(&mut pairs.iter().map(|pair| energies[*pair]));
            if all > 0.0 && some > 0.0 { (some / all).sqrt() } else { 1.0 }
        };
        let side = |index: usize| self.norm_energies.get(index).map_or(1.0, ratio);
        GainRatios { q: side(0), k: side(1) }
    }
}
