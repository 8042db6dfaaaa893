//! Layers that blocks and experts have in common, as nodes.
use super::{graph::Builder, proto::AttributeProto, weights::Place};
use crate::{
    forward::Point,
    model::{Activation, Part, Role, Space, TensorSpec, WeightError},
};

pub(super) fn need<'a>(
    b: &Builder<'a>,
    place: Place,
    role: Role,
) -> Result<&'a TensorSpec, WeightError> {
    let missing = || WeightError::Missing { name: format!("{role:?}").to_lowercase() };
    b.find(place, role, Part::Weight).ok_or_else(missing)
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

pub(super) fn softmax(b: &mut Builder<'_>, x: &str, label: &str) -> String {
    let shares = b.node_with("Softmax", &[x], label, vec![AttributeProto::int("axis", -1)]);
    b.ranged(&shares, (0.0, 1.0));
    shares
}

/// `act(gate(x)) · up(x)`, and the rotation behind that, if the model has one.
pub(super) fn gate(
    b: &mut Builder<'_>,
    (x, at): (&str, &str),
    place: Place,
    activation: Activation,
) -> Result<String, WeightError> {
    let named = |end: &str| format!("{at}.{end}");
    let key = |point: Point| point.key(place.0, place.1);
    let gate = linear(b, x, (place, Role::Gate), &named("gate"))?;
    let up = linear(b, x, (place, Role::Up), &named("up"))?;
    let opened = opened(b, &gate, activation, &named);
    let opened = b.point(opened, &key(Point::Silu));
    let mut hidden = b.node("Mul", &[&opened, &up], &named("hidden"));
    if b.model.spec.transformed.as_ref().is_some_and(|it| it.down_input) {
        let width = b.model.spec.dim(Space::Mlp(place.0.unwrap_or(0), place.1));
        hidden = b.hadamard(&hidden, width, &named("rotated"));
    }
    Ok(b.point(hidden, &key(Point::Hidden)))
}

/// What opens a gate.
fn opened(
    b: &mut Builder<'_>,
    gate: &str,
    activation: Activation,
    named: &dyn Fn(&str) -> String,
) -> String {
    match activation {
        Activation::Silu => {
            let open = b.node("Sigmoid", &[gate], &named("sigmoid"));
            b.ranged(&open, (0.0, 1.0));
            b.node("Mul", &[gate, &open], &named("silu"))
        }
        // x / (1 + e⁻²ᵗ) with t = √(2/π) · (x + 0.044715 x³).
        Activation::GeluTanh => {
            let (one, cubic) = (b.number(1.595_769_1), b.number(0.071_354_814));
            let square = b.node("Mul", &[gate, gate], &named("gelu.square"));
            let slope = b.node("Mul", &[&square, &cubic], &named("gelu.cubic"));
            let slope = b.node("Add", &[&slope, &one], &named("gelu.slope"));
            let twice = b.node("Mul", &[&slope, gate], &named("gelu.twice"));
            let open = b.node("Sigmoid", &[&twice], &named("gelu.sigmoid"));
            b.ranged(&open, (0.0, 1.0));
            b.node("Mul", &[gate, &open], &named("gelu"))
        }
    }
}
