//! Nodes that ops have in common.
use super::{graph::Builder, proto::AttributeProto, weights::Place};
use crate::{
    forward::Point,
    model::{Role, WeightError},
};

/// What nodes of a norm or a linear layer of a block are called.
pub(super) fn label(role: Role) -> &'static str {
    match role {
        Role::AttnNorm => "attn.norm",
        Role::Q => "attn.q",
        Role::K => "attn.k",
        Role::V => "attn.v",
        Role::O => "attn.o",
        Role::PostAttnNorm => "attn.post.norm",
        Role::MlpNorm => "mlp.norm",
        Role::Down => "mlp.down",
        Role::PostMlpNorm => "mlp.post.norm",
        role => role.name(),
    }
}

/// A value on the grid of the point behind a layer, if there is one.
pub(super) fn behind(b: &mut Builder<'_>, x: String, role: Role, place: Place) -> String {
    match Point::behind(role) {
        Some(point) => b.point(x, &point.key(place.0, place.1)),
        None => x,
    }
}

/// A linear layer of a block.
pub(super) fn linear(
    b: &mut Builder<'_>,
    x: &str,
    (place, role): (Place, Role),
    label: &str,
) -> Result<String, WeightError> {
    let y = b.linear(x, (place, role), label)?;
    Ok(behind(b, y, role, place))
}

/// The shares of the last axis.
pub(super) fn softmax(b: &mut Builder<'_>, x: &str, label: &str) -> String {
    let shares = b.node_with("Softmax", &[x], label, vec![AttributeProto::int("axis", -1)]);
    b.ranged(&shares, (0.0, 1.0));
    shares
}
