//! The forward pass as nodes: one for all families, from the sizes and switches of the model.
use super::{
    graph::Builder,
    positions::{Positions, Turns},
    proto::{AttributeProto, DataType, Dim, ShapeProto, TensorType, TypeProto, ValueInfo},
    weights::Place,
};
use crate::{
    forward::Point,
    model::{Block, Expert, Mlp, Part, Role, TensorSpec, WeightError},
};

/// Inputs and outputs of the graph.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) inputs: Vec<ValueInfo>,
    pub(super) outputs: Vec<ValueInfo>,
}

/// A value with named or fixed axes.
fn value(name: &str, kind: DataType, axes: &[&str]) -> ValueInfo {
    let dim = |axis: &&str| match axis.parse() {
        Ok(length) => Dim { value: Some(length), name: None },
        Err(_) => Dim { value: None, name: Some((*axis).to_owned()) },
    };
    let shape = ShapeProto { dim: axes.iter().map(dim).collect() };
    let tensor = TensorType { element: Some(kind.id()), shape: Some(shape) };
    ValueInfo { name: Some(name.to_owned()), kind: Some(TypeProto { tensor: Some(tensor) }) }
}

/// Builds the whole decoder.
pub(super) fn build(b: &mut Builder<'_>) -> Result<Ends, WeightError> {
    let mut ends = Ends::default();
    for (name, length) in
        [("input_ids", "tokens"), ("attention_mask", "total"), ("position_ids", "tokens")]
    {
        ends.inputs.push(value(name, DataType::Int64, &["batch", length]));
    }
    let mut positions = Positions::new(b);
    let embed = need(b, (None, None), Role::Embed)?;
    let x = b.lookup(embed, "input_ids", "embedding");
    let mut x = b.point(x, &Point::Embedding.key(None, None));
    for index in 0..b.model.spec.blocks.len() {
        b.scope = format!("layers.{index}.");
        let turns = positions.turns(b, index);
        let mask = positions.mask(b, b.model.spec.blocks[index].window);
        x = block(b, (&x, index), (&turns, &mask), &mut ends)?;
    }
    b.scope.clear();
    let gain = need(b, (None, None), Role::FinalNorm)?;
    let mut x = b.norm(&x, gain, "norm");
    if b.model.spec.has_head_correction() {
        x = b.linear(&x, ((None, None), Role::HeadInput), "head.input")?;
    }
    let x = b.point(x, &Point::FinalNorm.key(None, None));
    let role = b.model.spec.head().map_or(Role::Head, |head| head.role);
    let y = b.linear(&x, ((None, None), role), "head")?;
    let y = b.point(y, &Point::Head.key(None, None));
    b.push("Identity", &[&y], &["logits"], Vec::new());
    let vocab = b.model.spec.vocab.to_string();
    ends.outputs.insert(0, value("logits", DataType::Float, &["batch", "tokens", &vocab]));
    Ok(ends)
}

fn need<'a>(b: &Builder<'a>, place: Place, role: Role) -> Result<&'a TensorSpec, WeightError> {
    let missing = || WeightError::Missing { name: format!("{role:?}").to_lowercase() };
    b.find(place, role, Part::Weight).ok_or_else(missing)
}

/// `x ← x + attention(norm(x)); x ← x + mlp(norm(x))`.
fn block(
    b: &mut Builder<'_>,
    (x, index): (&str, usize),
    context: (&Turns, &str),
    ends: &mut Ends,
) -> Result<String, WeightError> {
    let place = (Some(index), None);
    let key = |point: Point| point.key(Some(index), None);
    let gain = need(b, place, Role::AttnNorm)?;
    let normed = b.norm(x, gain, "attn.norm");
    let normed = b.point(normed, &key(Point::AttentionNorm));
    let y = attention(b, (&normed, index), context, ends)?;
    let x = b.node("Add", &[x, &y], "attn.stream");
    let gain = need(b, place, Role::MlpNorm)?;
    let normed = b.norm(&x, gain, "mlp.norm");
    let normed = b.point(normed, &key(Point::MlpNorm));
    let y = match b.model.spec.blocks[index].mlp.clone() {
        Mlp::Dense { width } => gated(b, &normed, place, width)?,
        experts @ Mlp::Experts { .. } => mixture(b, &normed, index, &experts)?,
    };
    let x = b.node("Add", &[&x, &y], "stream");
    Ok(b.point(x, &key(Point::Block)))
}

/// `O(attention(x))` over the tokens of the cache and the new ones. Heads that share keys and values
/// stand as rows of one product, so that nothing is repeated.
fn attention(
    b: &mut Builder<'_>,
    (x, index): (&str, usize),
    (turns, mask): (&Turns, &str),
    ends: &mut Ends,
) -> Result<String, WeightError> {
    let sizes = b.model.spec.blocks[index].clone();
    let Block { heads, kv_heads, head_dim, .. } = sizes;
    let (heads, kv_heads, width) = (heads as i64, kv_heads as i64, head_dim as i64);
    let key = |point: Point| point.key(Some(index), None);
    let mut sides = Vec::new();
    for (role, point, count, label) in [
        (Role::Q, Point::Q, heads, "attn.q"),
        (Role::K, Point::K, kv_heads, "attn.k"),
        (Role::V, Point::V, kv_heads, "attn.v"),
    ] {
        let y = b.linear(x, ((Some(index), None), role), label)?;
        let y = b.point(y, &key(point));
        let mut y = b.reshape(&y, &[0, 0, count, width], &format!("{label}.heads"));
        let norm = match role {
            Role::Q => Some(Role::QNorm),
            Role::K => Some(Role::KNorm),
            _ => None,
        };
        if let Some(norm) = norm.filter(|_| sizes.qk_norm) {
            let gain = need(b, (Some(index), None), norm)?;
            y = b.norm(&y, gain, &format!("{label}.norm"));
        }
        let y = b.transpose(&y, &[0, 2, 1, 3], &format!("{label}.tokens"));
        sides.push(match role {
            Role::Q => turned(b, &y, (&turns.queries, head_dim), label),
            Role::K => turned(b, &y, (&turns.keys, head_dim), label),
            _ => y,
        });
    }
    let keys = cached(b, (&sides[1], "key"), (index, &sizes), ends);
    let values = cached(b, (&sides[2], "value"), (index, &sizes), ends);
    let queries = b.reshape(&sides[0], &[0, kv_heads, -1, width], "attn.queries");
    let keys = b.transpose(&keys, &[0, 1, 3, 2], "attn.keys");
    let scores = b.node("MatMul", &[&queries, &keys], "attn.products");
    let scores = b.reshape(&scores, &[0, heads, -1, 0], "attn.products.heads");
    let scale = b.number(1.0 / (width as f32).sqrt());
    let scores = b.node("Mul", &[&scores, &scale], "attn.scores");
    let scores = b.node("Add", &[&scores, mask], "attn.masked");
    let weights = softmax(b, &scores, "attn.weights");
    let weights = b.reshape(&weights, &[0, kv_heads, -1, 0], "attn.weights.groups");
    let mixed = b.node("MatMul", &[&weights, &values], "attn.sums");
    let mixed = b.reshape(&mixed, &[0, heads, -1, width], "attn.sums.heads");
    let mixed = b.transpose(&mixed, &[0, 2, 1, 3], "attn.sums.tokens");
    let mixed = b.reshape(&mixed, &[0, 0, heads * width], "attn.mixed");
    let mixed = b.point(mixed, &key(Point::Mixed));
    let y = b.linear(&mixed, ((Some(index), None), Role::O), "attn.o")?;
    Ok(b.point(y, &key(Point::O)))
}

fn softmax(b: &mut Builder<'_>, x: &str, label: &str) -> String {
    let shares = b.node_with("Softmax", &[x], label, vec![AttributeProto::int("axis", -1)]);
    b.ranged(&shares, (0.0, 1.0));
    shares
}

/// Pairs `(x[i], x[i + width / 2])` turned by their angles, and the rotation behind that, if the
/// model has one.
fn turned(
    b: &mut Builder<'_>,
    x: &str,
    ([cos, sin], width): (&[String; 2], usize),
    label: &str,
) -> String {
    let named = |end: &str| format!("{label}.{end}");
    let half = width as i64 / 2;
    let parts = [named("first"), named("second")].map(|it| format!("{}{it}", b.scope));
    let split = b.ints(&[half, half]);
    let axis = |value| vec![AttributeProto::int("axis", value)];
    b.push("Split", &[x, &split], &[&parts[0], &parts[1]], axis(-1));
    let [first, second] = parts;
    let kept = b.node("Mul", &[&first, cos], &named("first.cos"));
    let moved = b.node("Mul", &[&second, sin], &named("second.sin"));
    let left = b.node("Sub", &[&kept, &moved], &named("turned.first"));
    let kept = b.node("Mul", &[&second, cos], &named("second.cos"));
    let moved = b.node("Mul", &[&first, sin], &named("first.sin"));
    let right = b.node("Add", &[&kept, &moved], &named("turned.second"));
    let x = b.node_with("Concat", &[&left, &right], &named("turned"), axis(-1));
    if b.model.spec.transformed.as_ref().is_some_and(|it| it.keys) {
        return b.hadamard(&x, width, &named("rotated"));
    }
    x
}

/// What the cache holds followed by the new tokens; both are ends of the graph.
fn cached(
    b: &mut Builder<'_>,
    (new, side): (&str, &str),
    (index, sizes): (usize, &Block),
    ends: &mut Ends,
) -> String {
    let past = format!("past_key_values.{index}.{side}");
    let present = format!("present.{index}.{side}");
    let [heads, width] = [sizes.kv_heads, sizes.head_dim].map(|it| it.to_string());
    let end = |name: &str, length| {
        value(name, DataType::Float, &["batch", heads.as_str(), length, width.as_str()])
    };
    ends.inputs.push(end(&past, "past"));
    ends.outputs.push(end(&present, "total"));
    b.push("Concat", &[&past, new], &[&present], vec![AttributeProto::int("axis", 2)]);
    present
}

/// `down(SiLU(gate(x)) · up(x))`.
fn gated(b: &mut Builder<'_>, x: &str, place: Place, width: usize) -> Result<String, WeightError> {
    let at = match place.1 {
        None => "mlp".to_owned(),
        Some(Expert::Routed(expert)) => format!("mlp.experts.{expert}"),
        Some(Expert::Shared) => "mlp.shared".to_owned(),
    };
    let named = |end: &str| format!("{at}.{end}");
    let key = |point: Point| point.key(place.0, place.1);
    let gate = b.linear(x, (place, Role::Gate), &named("gate"))?;
    let gate = b.point(gate, &key(Point::Gate));
    let up = b.linear(x, (place, Role::Up), &named("up"))?;
    let up = b.point(up, &key(Point::Up));
    let open = b.node("Sigmoid", &[&gate], &named("sigmoid"));
    b.ranged(&open, (0.0, 1.0));
    let silu = b.node("Mul", &[&gate, &open], &named("silu"));
    let silu = b.point(silu, &key(Point::Silu));
    let mut hidden = b.node("Mul", &[&silu, &up], &named("hidden"));
    if b.model.spec.transformed.as_ref().is_some_and(|it| it.down_input) {
        hidden = b.hadamard(&hidden, width, &named("rotated"));
    }
    let hidden = b.point(hidden, &key(Point::Hidden));
    let y = b.linear(&hidden, (place, Role::Down), &named("down"))?;
    Ok(b.point(y, &key(Point::Down)))
}

/// Every expert over every token, weighted with what the router gives it: 0 for most.
fn mixture(
    b: &mut Builder<'_>,
    x: &str,
    index: usize,
    experts: &Mlp,
) -> Result<String, WeightError> {
    let Mlp::Experts { count, per_token, width, shared, normalize } = *experts else {
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
        let y = gated(b, x, place(Some(Expert::Routed(expert))), width)?;
        let y = b.node("Mul", &[&y, &weight], &format!("{label}.share"));
        sum = Some(match sum {
            None => y,
            Some(sum) => b.node("Add", &[&sum, &y], &format!("{label}.sum")),
        });
    }
    let mut sum = sum.unwrap_or_else(|| x.to_owned());
    if let Some(width) = shared {
        let y = gated(b, x, place(Some(Expert::Shared)), width)?;
        let open = b.linear(x, (place(None), Role::SharedGate), "mlp.shared.open")?;
        let open = b.node("Sigmoid", &[&open], "mlp.shared.weight");
        let y = b.node("Mul", &[&y, &open], "mlp.shared.share");
        sum = b.node("Add", &[&sum, &y], "mlp.sum");
    }
    Ok(sum)
}
