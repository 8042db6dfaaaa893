//! Mixtures of experts as nodes.
use super::{
    graph::Builder,
    layers::{gate, linear, softmax},
    proto::AttributeProto,
    weights::Place,
};
use crate::model::{Activation, Expert, Mlp, Role, WeightError};

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
