//! Nodes of gates and of mixtures of experts.
use super::{
    graph::Builder,
    layers::{linear, softmax},
    proto::AttributeProto,
    weights::Place,
};
use crate::{
    forward::Point,
    linalg::GELU,
    model::{Activation, Expert, Mlp, Role, Space, WeightError},
};

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
        // x / (1 + e⁻²ᵗ), as `gelu_mul` computes it.
        Activation::GeluTanh => {
            let [one, cubic] = GELU.map(|it| b.number(it));
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

/// Every expert over every token, weighted with what the router gives it: 0 for most.
pub(super) fn mixture(
    b: &mut Builder<'_>,
    x: &str,
    (index, mlp): (usize, &Mlp),
    activation: Activation,
) -> Result<String, WeightError> {
    let Mlp::Experts { count, per_token, shared, normalize, .. } = *mlp else {
        return Ok(x.to_owned());
    };
    let place = |expert| (Some(index), expert);
    let scores = b.linear(x, (place(None), Role::Router), "router")?;
    let scores = softmax(b, &scores, "router.shares");
    let last = || vec![AttributeProto::int("axis", -1)];
    let chosen = b.ints(&[per_token as i64]);
    let [values, places] = ["values", "places"].map(|it| format!("{}router.{it}", b.scope));
    b.push("TopK", &[&scores, &chosen], &[&values, &places], last());
    let mut values = values;
    if normalize {
        let axes = b.ints(&[-1]);
        let sum = b.node("ReduceSum", &[&values, &axes], "router.sum");
        values = b.node("Div", &[&values, &sum], "router.normed");
    }
    let zero = b.number(0.0);
    let zeros = b.node("Mul", &[&scores, &zero], "router.zeros");
    let weights =
        b.node_with("ScatterElements", &[&zeros, &places, &values], "router.weights", last());
    let mut sum: Option<String> = None;
    for expert in 0..count {
        let own = b.ints(&[expert as i64]);
        let label = format!("mlp.experts.{expert}");
        let weight = b.gather((&weights, -1), &own, &format!("{label}.weight"));
        let y = gated(b, (x, &label), place(Some(Expert::Routed(expert))), activation)?;
        let y = b.node("Mul", &[&y, &weight], &format!("{label}.share"));
        sum = Some(match sum {
            None => y,
            Some(sum) => b.node("Add", &[&sum, &y], &format!("{label}.sum")),
        });
    }
    let mut sum = sum.unwrap_or_else(|| x.to_owned());
    if shared.is_some() {
        let y = gated(b, (x, "mlp.shared"), place(Some(Expert::Shared)), activation)?;
        let open = b.linear(x, (place(None), Role::SharedGate), "mlp.shared.open")?;
        let open = b.node("Sigmoid", &[&open], "mlp.shared.weight");
        let y = b.node("Mul", &[&y, &open], "mlp.shared.share");
        sum = b.node("Add", &[&sum, &y], "mlp.sum");
    }
    Ok(sum)
}

/// An expert: `down(act(gate(x)) · up(x))`.
fn gated(
    b: &mut Builder<'_>,
    (x, at): (&str, &str),
    place: Place,
    activation: Activation,
) -> Result<String, WeightError> {
    let hidden = gate(b, (x, at), place, activation)?;
    linear(b, &hidden, (place, Role::Down), &format!("{at}.down"))
}
