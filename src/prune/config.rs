//! The `config.json` of a pruned model.
//!
//! Where all heads keep the same rotary pairs S, a narrow head is an ordinary head whose pair `i`
//! turns as pair `S_i` did. Of every n-th pair another base says so, which every engine knows;
//! else `longrope` divisors `f_i = base^(−2i/d) / frequency(S_i)` do, for engines that know that
//! kind of stretching. Pairs that differ by head need this project's `kept-pairs`.
use super::{BlockShape, Kept, PruneError};
use crate::model::{Block, KeptPairs, Mlp, ModelSpec, Rope, RopeScaling, family};
use serde_json::{Map, Value, json};

/// Keys that hold one entry per block.
const LISTS: [&str; 6] = [
    "layer_types",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
];

/// The `config.json` of a model that keeps `kept`, one entry per block, of the model that `config`
/// and `spec` describe. Keeping everything gives the same config.
pub fn pruned_config(config: &Value, spec: &ModelSpec, kept: &[Kept]) -> Result<Value, PruneError> {
    cut_config(config, spec, kept, true)
}

/// [`pruned_config`]; divisors even where another base would do, unless the pairs are `chosen`.
fn cut_config(
    config: &Value,
    spec: &ModelSpec,
    kept: &[Kept],
    chosen: bool,
) -> Result<Value, PruneError> {
    if kept.len() != spec.blocks.len() {
        return Err(PruneError::Blocks { expected: spec.blocks.len(), found: kept.len() });
    }
    for (b, (kept, block)) in kept.iter().zip(&spec.blocks).enumerate() {
        kept.check(b, block)?;
    }
    let each = kept.iter().zip(&spec.blocks);
    let blocks: Vec<Block> = each.map(|(kept, block)| kept.shape().block(block)).collect();
    if blocks == spec.blocks {
        return Ok(config.clone());
    }
    let mut new = spec.resized(config, &blocks)?;
    family::without_extra_layers(&mut new);
    match shared(spec, kept).and_then(|pairs| base(spec, pairs)).filter(|_| chosen) {
        Some(base) => set_base(&mut new, base),
        None => {
            if let Some(rope) = rope(config, spec, kept)? {
                new[rope_key(config)] = rope;
            }
        }
    }
    ModelSpec::from_config(&new)?;
    Ok(new)
}

/// The `config.json` of a model with these block sizes, as if each block kept its first units:
/// right in everything but the rotary divisors, which depend on the pairs; another base may do in
/// their place.
pub fn shaped_config(
    config: &Value,
    spec: &ModelSpec,
    shapes: &[BlockShape],
) -> Result<Value, PruneError> {
    if shapes.len() != spec.blocks.len() {
        return Err(PruneError::Blocks { expected: spec.blocks.len(), found: shapes.len() });
    }
    let kept: Vec<Kept> =
        spec.blocks.iter().zip(shapes).map(|(block, shape)| Kept::first(block, shape)).collect();
    for (block, (kept, shape)) in kept.iter().zip(shapes).enumerate() {
        if kept.shape() != *shape {
            let (unit, found) = ("sizes", format!("{shape:?}"));
            let expected = format!("{:?}", kept.shape());
            return Err(PruneError::Kept { block, unit, expected, found });
        }
    }
    cut_config(config, spec, &kept, false)
}

/// The `config.json` of a model of some of the blocks.
pub(super) fn shortened_config(config: &Value, spec: &ModelSpec, blocks: &[usize]) -> Value {
    let mut config = config.clone();
    let count = spec.blocks.len();
    config["num_hidden_layers"] = json!(blocks.len());
    let chosen = |list: &Value| -> Value {
        blocks.iter().map(|b| list.get(*b).cloned().unwrap_or(Value::Null)).collect()
    };
    for key in LISTS {
        if let Some(list) = config.get(key).filter(|it| it.is_array()) {
            config[key] = chosen(list);
        }
    }
    for key in ["rope_parameters", "rope_scaling"] {
        if let Some(pairs) = config.get(key).and_then(|nested| nested.get("pairs")) {
            config[key]["pairs"] = chosen(pairs);
        }
    }
    // Blocks from this one on see a window: as many of the kept ones lie below as before.
    let key = "max_window_layers";
    let windowed = |b: &usize| spec.blocks[*b].window.is_some();
    let mixed = (0..count).any(|b| windowed(&b)) && !(0..count).all(|b| windowed(&b));
    let border = config.get(key).map_or(mixed.then_some(0), Value::as_u64);
    if border.is_some_and(|border| border < count as u64) {
        let full = blocks.iter().take_while(|b| !windowed(b)).count();
        let below = blocks.iter().filter(|b| (**b as u64) < border.unwrap_or(0)).count();
        config[key] = json!(if mixed { full } else { below });
    }
    let dense = |b: usize| matches!(spec.blocks[b].mlp, Mlp::Dense { .. });
    if spec.blocks.iter().any(|it| matches!(it.mlp, Mlp::Experts { .. })) {
        let listed: Vec<usize> = (0..blocks.len()).filter(|i| dense(blocks[*i])).collect();
        if !listed.is_empty() || config.get("mlp_only_layers").is_some() {
            config["mlp_only_layers"] = json!(listed);
            config["decoder_sparse_step"] = json!(1);
        }
    }
    config
}

/// The key that holds the rotary settings, or that will.
fn rope_key(config: &Value) -> &'static str {
    let (new, old) = ("rope_parameters", "rope_scaling");
    let set = |key: &str| config.get(key).is_some_and(|value| !value.is_null());
    if set(new) || (config.get(new).is_some() && config.get(old).is_none()) { new } else { old }
}

/// Rotary settings of the pruned model; `None` where they stay as they are.
fn rope(config: &Value, spec: &ModelSpec, kept: &[Kept]) -> Result<Option<Value>, PruneError> {
    let (Some(old), Some(first)) = (spec.blocks.first(), kept.first()) else { return Ok(None) };
    let cut = 2 * first.kv_heads[0].pairs.len() < old.head_dim;
    if !cut && spec.rope.kept.is_none() {
        return Ok(None);
    }
    if matches!(spec.rope.scaling, RopeScaling::Dynamic { .. }) {
        return Err(PruneError::DynamicRope);
    }
    let nested = config.get(rope_key(config)).unwrap_or(&Value::Null);
    let mut rope = match shared(spec, kept) {
        Some(pairs) => longrope(&spec.rope, old.head_dim, pairs),
        None => kept_pairs(&spec.rope, nested, old.head_dim, kept),
    };
    if let Some(theta) = nested.get("rope_theta") {
        rope.insert("rope_theta".to_owned(), theta.clone());
    }
    Ok(Some(Value::Object(rope)))
}

/// The pairs that all heads keep, if they are the same.
fn shared<'k>(spec: &ModelSpec, kept: &'k [Kept]) -> Option<&'k [usize]> {
    let first = kept.first()?.kv_heads.first()?.pairs.as_slice();
    let mut heads = kept.iter().flat_map(|kept| &kept.kv_heads);
    let alike = spec.rope.kept.is_none() && heads.all(|head| head.pairs == first);
    alike.then_some(first)
}

/// The base `θ^(n·d'/d)` that makes pair `i` of heads `d'` wide turn as pair `pairs[i]` of heads `d`
/// wide, where these are every n-th one from the first on.
fn base(spec: &ModelSpec, pairs: &[usize]) -> Option<f64> {
    let (width, step) = (spec.blocks.first()?.head_dim, *pairs.get(1)?);
    let cut = 2 * pairs.len() < width;
    let even = pairs.iter().enumerate().all(|(i, pair)| *pair == i * step);
    let plain = matches!(spec.rope.scaling, RopeScaling::Default | RopeScaling::Linear { .. });
    let power = (2 * step * pairs.len()) as f64 / width as f64;
    (cut && even && plain).then(|| spec.rope.theta.powf(power))
}

/// Sets the base wherever a config names one.
fn set_base(config: &mut Value, base: f64) {
    let key = "rope_theta";
    for nested in ["rope_parameters", "rope_scaling"] {
        if let Some(theta) = config.get_mut(nested).and_then(|it| it.get_mut(key)) {
            *theta = base.into();
        }
    }
    if let Some(theta) = config.get_mut(key) {
        *theta = base.into();
    }
}

/// Divisors that make pair `i` of a narrow head turn as pair `pairs[i]` of the wide one.
fn longrope(rope: &Rope, head_dim: usize, pairs: &[usize]) -> Map<String, Value> {
    let original = match rope.scaling {
        RopeScaling::LongRope { original, .. } => original,
        _ => rope.max_positions,
    };
    let factors = |tokens: usize| -> Vec<f64> {
        let wide = rope.frequencies(head_dim, tokens);
        let width = 2.0 * pairs.len() as f64;
        let plain = |i: usize| rope.theta.powf(-2.0 * i as f64 / width);
        pairs.iter().enumerate().map(|(i, pair)| plain(i) / wide[*pair]).collect()
    };
    // Only a parent that changes its divisors beyond `original` has two lists.
    let settings = json!({
        "rope_type": "longrope",
        "short_factor": factors(1),
        "long_factor": factors(original + 1),
        "factor": 1.0,
        "attention_factor": rope.attention_factor(),
        "original_max_position_embeddings": original,
    });
    settings.as_object().cloned().unwrap_or_default()
}

/// Pairs by head of the widest ancestor's heads, and that ancestor's settings.
fn kept_pairs(rope: &Rope, nested: &Value, head_dim: usize, kept: &[Kept]) -> Map<String, Value> {
    let composed = |before: &KeptPairs| -> Vec<Vec<Vec<usize>>> {
        let block = |(b, kept): (usize, &Kept)| {
            let of = |kv_head: usize, pair: &usize| before.pairs[b][kv_head][*pair];
            kept.kv_heads
                .iter()
                .map(|head| head.pairs.iter().map(|pair| of(head.kv_head, pair)).collect())
                .collect()
        };
        kept.iter().enumerate().map(block).collect()
    };
    let own = |kept: &Kept| kept.kv_heads.iter().map(|head| head.pairs.clone()).collect();
    let (parent, head_dim, pairs) = match &rope.kept {
        Some(before) => (nested.get("parent"), before.head_dim, composed(before)),
        None => (Some(nested), head_dim, kept.iter().map(own).collect()),
    };
    let settings = json!({
        "rope_type": "kept-pairs",
        "original_head_dim": head_dim,
        "pairs": pairs,
        "parent": parent,
    });
    settings.as_object().cloned().unwrap_or_default()
}
