//! `transform_config`: rotations that the forward pass does, where the standard has a word for
//! them.
//!
//! Its `hadamard` is Sylvester's matrix over √n, of orders that are powers of two; there it is ours.
//! Source: compressed-tensors 0.19, `transform/{transform_config, transform_scheme, transform_args}`.
use crate::model::{Model, Role};
use serde_json::{Map, Value, json};

/// The rotations that the standard can say; an empty map where there are none.
pub(super) fn transform_config(model: &Model) -> Value {
    let Some(transformed) = &model.spec.transformed else { return json!({}) };
    let mut groups = Map::new();
    let (down, attention) = (modules(model, Role::Down), attention(model));
    if transformed.down_input && down.iter().all(|(_, width)| width.is_power_of_two()) {
        let names: Vec<&str> = down.iter().map(|(name, _)| *name).collect();
        groups.insert("R4".into(), scheme(&[("input", &names)], None));
    }
    let mut widths = model.spec.blocks.iter().map(|block| block.head_dim);
    let width = widths.next().filter(|first| widths.all(|it| it == *first));
    if let Some(width) = width.filter(|it| transformed.keys && it.is_power_of_two()) {
        let places = [("q_attn", &*attention), ("k_cache", &*attention)];
        groups.insert("R3".into(), scheme(&places, Some(width)));
    }
    if groups.is_empty() { json!({}) } else { json!({ "config_groups": groups }) }
}

fn scheme(places: &[(&str, &[&str])], width: Option<usize>) -> Value {
    let apply = places.iter().map(|(location, targets)| {
        json!({ "targets": targets, "location": location, "inverse": false, "ignore": [] })
    });
    json!({
        "type": "hadamard", "apply": apply.collect::<Vec<_>>(), "randomize": false,
        "requires_grad": false, "head_dim": width, "precision": "torch.float32",
    })
}

/// Modules of a role, with the widths of their inputs.
fn modules(model: &Model, role: Role) -> Vec<(&str, usize)> {
    let tensors = model.spec.tensors.iter().filter(|it| it.role == role);
    tensors
        .filter_map(|it| {
            let width = *model.spec.shape(it).get(1)?;
            Some((it.name.strip_suffix(".weight")?, width))
        })
        .collect()
}

/// The modules that hold the projections of attention.
fn attention(model: &Model) -> Vec<&str> {
    let queries = modules(model, Role::Q).into_iter();
    queries.filter_map(|(name, _)| Some(name.rsplit_once('.')?.0)).collect()
}
