//! The forward pass as nodes: one function for each op that blocks list.
use super::{
    graph::Builder,
    layers::{behind, label, linear, softmax},
    mlp::{gate, mixture},
    positions::{Positions, Turns},
    proto::{AttributeProto, DataType, Dim, ShapeProto, TensorType, TypeProto, ValueInfo},
    weights::Place,
};
use crate::{
    forward::Point,
    model::{Block, Half, Op, Part, Role, TensorSpec, WeightError},
    package::format::GraphForm,
};

/// Inputs and outputs of the graph.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) inputs: Vec<ValueInfo>,
    pub(super) outputs: Vec<ValueInfo>,
}

/// A value with named or fixed axes.
fn value(form: GraphForm, name: &str, kind: DataType, axes: &[&str]) -> ValueInfo {
    let known = |axis: &str| match (form.fixed()?, axis) {
        (_, "batch") => Some(1),
        ((tokens, _), "tokens") => Some(tokens as i64),
        ((_, past), "past") => Some(past as i64),
        ((tokens, past), "total") => Some((tokens + past) as i64),
        _ => None,
    };
    let dim = |axis: &&str| match axis.parse().ok().or_else(|| known(axis)) {
        Some(length) => Dim { value: Some(length), name: None },
        None => Dim { value: None, name: Some((*axis).to_owned()) },
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
        ends.inputs.push(value(b.form, name, DataType::Int64, &["batch", length]));
    }
    let mut positions = Positions::new(b);
    let embed = need(b, (None, None), Role::Embed)?;
    let mut x = b.lookup(embed, "input_ids", "embedding");
    if b.model.spec.scales_embedding() {
        let scale = b.number(b.model.spec.embed_scale);
        x = b.node("Mul", &[&x, &scale], "embedding.scaled");
    }
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
    ends.outputs.insert(0, value(b.form, "logits", DataType::Float, &["batch", "tokens", &vocab]));
    Ok(ends)
}

fn need<'a>(b: &Builder<'a>, place: Place, role: Role) -> Result<&'a TensorSpec, WeightError> {
    let missing = || WeightError::Missing { name: format!("{role:?}").to_lowercase() };
    b.find(place, role, Part::Weight).ok_or_else(missing)
}

/// A block: what the ops of each half make of the stream is added to it.
fn block(
    b: &mut Builder<'_>,
    (x, index): (&str, usize),
    context: (&Turns, &str),
    ends: &mut Ends,
) -> Result<String, WeightError> {
    let sizes = b.model.spec.blocks[index].clone();
    let mut x = x.to_owned();
    for (half, sum) in [(Half::Attention, "attn.stream"), (Half::Mlp, "stream")] {
        let (mut y, mut ops) = (x.clone(), sizes.ops(half));
        while let Some((op, rest)) = ops.split_first() {
            (y, ops) = match op {
                Op::Heads => attention(b, (&y, ops), (index, &sizes), context, ends)?,
                op => (rows(b, (*op, &y), (index, &sizes))?, rest),
            };
        }
        x = b.node("Add", &[&x, &y], sum);
    }
    Ok(b.point(x, &Point::Block.key(Some(index), None)))
}

/// The nodes of an op on rows of the stream or of the MLP.
fn rows(
    b: &mut Builder<'_>,
    (op, y): (Op, &str),
    (index, sizes): (usize, &Block),
) -> Result<String, WeightError> {
    let place = (Some(index), None);
    match op {
        Op::Norm(role) => {
            let gain = need(b, place, role)?;
            let y = b.norm(y, gain, label(role));
            Ok(behind(b, y, role, place))
        }
        Op::Linear(role) => linear(b, y, (place, role), label(role)),
        Op::Gate(activation) => gate(b, (y, "mlp"), place, activation),
        Op::Experts(activation) => mixture(b, y, (index, &sizes.mlp), activation),
        // These follow `Heads`, which takes them along.
        Op::Heads | Op::HeadNorms | Op::Turn | Op::Attend { .. } => Ok(y.to_owned()),
    }
}

/// The ops from `Heads` to `Attend`, one side after the other; gives the ops behind them.
fn attention<'o>(
    b: &mut Builder<'_>,
    (x, ops): (&str, &'o [Op]),
    (index, sizes): (usize, &Block),
    (turns, mask): (&Turns, &str),
    ends: &mut Ends,
) -> Result<(String, &'o [Op]), WeightError> {
    let end = ops.iter().position(|op| matches!(op, Op::Attend { .. })).unwrap_or(ops.len());
    let (before, rest) = ops.split_at(end);
    let mut sides = Vec::new();
    for role in [Role::Q, Role::K, Role::V] {
        let mut y = x.to_owned();
        for op in before {
            y = side(b, (*op, &y), role, (index, sizes), turns)?;
        }
        sides.push(y);
    }
    let width = match rest.first() {
        Some(Op::Attend { width }) => *width,
        _ => None,
    };
    let scale = sizes.score_scale(width);
    let y = attend(b, &sides, (index, sizes), (scale, mask), ends);
    Ok((y, rest.get(1..).unwrap_or_default()))
}

/// The nodes of an op on queries, keys or values: `[batch, tokens, heads, head_dim]`, and from
/// `Turn` on `[batch, heads, tokens, head_dim]`.
fn side(
    b: &mut Builder<'_>,
    (op, y): (Op, &str),
    role: Role,
    (index, sizes): (usize, &Block),
    turns: &Turns,
) -> Result<String, WeightError> {
    let (place, label) = ((Some(index), None), label(role));
    Ok(match (op, role) {
        (Op::Heads, _) => {
            let count = if role == Role::Q { sizes.heads } else { sizes.kv_heads };
            let y = linear(b, y, (place, role), label)?;
            let shape = [0, 0, count as i64, sizes.head_dim as i64];
            b.reshape(&y, &shape, &format!("{label}.heads"))
        }
        (Op::HeadNorms, Role::Q | Role::K) => {
            let norm = if role == Role::Q { Role::QNorm } else { Role::KNorm };
            let gain = need(b, place, norm)?;
            b.norm(y, gain, &format!("{label}.norm"))
        }
        (Op::Turn, _) => {
            let y = b.transpose(y, &[0, 2, 1, 3], &format!("{label}.tokens"));
            match role {
                Role::Q => turned(b, &y, (&turns.queries, sizes.head_dim), label),
                Role::K => turned(b, &y, (&turns.keys, sizes.head_dim), label),
                _ => y,
            }
        }
        _ => y.to_owned(),
    })
}

/// Attention over the tokens of the cache and the new ones. Heads that share keys and values stand
/// as rows of one product, so that nothing is repeated.
fn attend(
    b: &mut Builder<'_>,
    sides: &[String],
    (index, sizes): (usize, &Block),
    (scale, mask): (f32, &str),
    ends: &mut Ends,
) -> String {
    let Block { heads, kv_heads, head_dim, .. } = *sizes;
    let (heads, kv_heads, width) = (heads as i64, kv_heads as i64, head_dim as i64);
    let keys = cached(b, (&sides[1], "key"), (index, sizes), ends);
    let values = cached(b, (&sides[2], "value"), (index, sizes), ends);
    let queries = b.reshape(&sides[0], &[0, kv_heads, -1, width], "attn.queries");
    let keys = b.transpose(&keys, &[0, 1, 3, 2], "attn.keys");
    let scores = b.node("MatMul", &[&queries, &keys], "attn.products");
    let scores = b.reshape(&scores, &[0, heads, -1, 0], "attn.products.heads");
    let scale = b.number(scale);
    let scores = b.node("Mul", &[&scores, &scale], "attn.scores");
    let scores = b.node("Add", &[&scores, mask], "attn.masked");
    let weights = softmax(b, &scores, "attn.weights");
    let weights = b.reshape(&weights, &[0, kv_heads, -1, 0], "attn.weights.groups");
    let mixed = b.node("MatMul", &[&weights, &values], "attn.sums");
    let mixed = b.reshape(&mixed, &[0, heads, -1, width], "attn.sums.heads");
    let mixed = b.transpose(&mixed, &[0, 2, 1, 3], "attn.sums.tokens");
    let mixed = b.reshape(&mixed, &[0, 0, heads * width], "attn.mixed");
    b.point(mixed, &Point::Mixed.key(Some(index), None))
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
    let form = b.form;
    let end = |name: &str, length| {
        value(form, name, DataType::Float, &["batch", heads.as_str(), length, width.as_str()])
    };
    ends.inputs.push(end(&past, "past"));
    ends.outputs.push(end(&present, "total"));
    b.push("Concat", &[&past, new], &[&present], vec![AttributeProto::int("axis", 2)]);
    present
}
