//! Positions of tokens: what sees what, cosines and sines.
use super::{
    graph::Builder,
    proto::{AttributeProto, DataType},
    stored::Source,
};
use crate::model::RopeScaling;
use std::collections::BTreeMap;

/// A score that no other outweighs.
const UNSEEN: f32 = -1e30;

/// Values that all blocks share.
pub(super) struct Positions {
    /// Places of all tokens, `[1, total]`, and of the new ones, `[tokens, 1]`.
    places: (String, String),
    /// Which tokens are there, `[batch, 1, 1, total]`.
    there: String,
    /// Number of all tokens.
    total: String,
    masks: BTreeMap<Option<usize>, String>,
    /// By head width, of the rope of windows or the other.
    tables: BTreeMap<(usize, bool), [String; 2]>,
}

/// Cosines and sines for queries and keys: `[batch, 1 or heads, tokens, pairs]`.
pub(super) struct Turns {
    pub(super) queries: [String; 2],
    pub(super) keys: [String; 2],
}

impl Positions {
    pub(super) fn new(b: &mut Builder<'_>) -> Self {
        let (all, new, total) = match b.form.fixed() {
            Some(lengths) => Self::fixed(b, lengths),
            None => Self::measured(b),
        };
        let to = vec![AttributeProto::int("to", i64::from(DataType::Bool.id()))];
        let there = b.node_with("Cast", &["attention_mask"], "mask.flags", to);
        let axes = b.ints(&[1, 2]);
        let there = b.node("Unsqueeze", &[&there, &axes], "mask.there");
        let (masks, tables) = (BTreeMap::new(), BTreeMap::new());
        Self { places: (all, new), there, total, masks, tables }
    }

    /// Places in a cache whose last ones are the latest, and their number.
    fn fixed(b: &mut Builder<'_>, (tokens, past): (usize, usize)) -> (String, String, String) {
        let total = tokens + past;
        let mut places = |name: String, places: std::ops::Range<usize>, shape: Vec<usize>| {
            let bytes = places.flat_map(|at| (at as i64).to_le_bytes()).collect();
            b.store(name, DataType::Int64, shape, Source::Bytes(bytes))
        };
        let all = places(format!("mask.columns.{total}"), 0..total, vec![1, total]);
        let new = places(format!("mask.rows.{past}.{total}"), past..total, vec![tokens, 1]);
        (all, new, b.int(total as i64))
    }

    /// Places by the lengths of the inputs.
    fn measured(b: &mut Builder<'_>) -> (String, String, String) {
        let (zero, one) = (b.int(0), b.int(1));
        let shape = b.node("Shape", &["attention_mask"], "mask.shape");
        let total = b.gather((&shape, 0), &one, "mask.total");
        let shape = b.node("Shape", &["input_ids"], "tokens.shape");
        let tokens = b.gather((&shape, 0), &one, "tokens.count");
        let past = b.node("Sub", &[&total, &tokens], "tokens.past");
        let all = b.node("Range", &[&zero, &total, &one], "mask.all");
        let new = b.node("Range", &[&past, &total, &one], "mask.new");
        let all = b.reshape(&all, &[1, -1], "mask.columns");
        let new = b.reshape(&new, &[-1, 1], "mask.rows");
        (all, new, total)
    }

    /// 0 where a token sees another, a very low number elsewhere: `[batch, 1, tokens, total]`.
    pub(super) fn mask(&mut self, b: &mut Builder<'_>, window: Option<usize>) -> String {
        if let Some(mask) = self.masks.get(&window) {
            return mask.clone();
        }
        let scope = std::mem::take(&mut b.scope);
        let named = |end: &str| match window {
            None => format!("mask.{end}"),
            Some(window) => format!("mask.{window}.{end}"),
        };
        let (all, new) = (&self.places.0, &self.places.1);
        let mut seen = b.node("LessOrEqual", &[all, new], &named("causal"));
        if let Some(window) = window {
            let window = b.int(window as i64);
            let first = b.node("Sub", &[new, &window], &named("before"));
            let near = b.node("Greater", &[all, &first], &named("near"));
            seen = b.node("And", &[&seen, &near], &named("window"));
        }
        let seen = b.node("And", &[&seen, &self.there], &named("seen"));
        let (yes, no) = (b.number(0.0), b.number(UNSEEN));
        let mask = b.node("Where", &[&seen, &yes, &no], &named("scores"));
        b.scope = scope;
        self.masks.insert(window, mask.clone());
        mask
    }

    /// Cosines and sines of a block.
    pub(super) fn turns(&mut self, b: &mut Builder<'_>, block: usize) -> Turns {
        let sizes = &b.model.spec.blocks[block];
        let Some(kept) = &b.model.spec.rope.kept else {
            let tables = self.tables(b, (sizes.head_dim, block), true);
            return Turns { queries: tables.clone(), keys: tables };
        };
        let tables = self.tables(b, (kept.head_dim, block), false);
        let pairs = kept.pairs.get(block).map_or(&[][..], Vec::as_slice);
        let mut of = |repeat: usize, side: &str| {
            let places: Vec<i64> = pairs
                .iter()
                .flat_map(|head| std::iter::repeat_n(head, repeat).flatten())
                .map(|pair| *pair as i64)
                .collect();
            let bytes = places.iter().flat_map(|it| it.to_le_bytes()).collect();
            let heads = pairs.len() * repeat;
            let shape = vec![heads, places.len() / heads.max(1)];
            let name = format!("layers.{block}.pairs.{side}");
            let places = b.store(name, DataType::Int64, shape, Source::Bytes(bytes));
            ["cos", "sin"].map(|end| {
                let table = &tables[usize::from(end == "sin")];
                let picked = b.gather((table, 2), &places, &format!("rope.{side}.{end}.picked"));
                b.transpose(&picked, &[0, 2, 1, 3], &format!("rope.{side}.{end}"))
            })
        };
        Turns { queries: of(sizes.kv_repeat(), "q"), keys: of(1, "k") }
    }

    /// Rows of the tables at the positions of the tokens: `[batch, tokens, pairs]`, or with an axis
    /// for heads before the tokens.
    fn tables(
        &mut self,
        b: &mut Builder<'_>,
        (head_dim, block): (usize, usize),
        heads: bool,
    ) -> [String; 2] {
        let key = (head_dim, b.model.spec.is_local(block));
        if let Some(tables) = self.tables.get(&key) {
            return tables.clone();
        }
        let scope = std::mem::take(&mut b.scope);
        let tables = [false, true].map(|sine| {
            let rows = self.rows(b, (head_dim, block), sine);
            if !heads {
                return rows;
            }
            let axes = b.ints(&[1]);
            b.node("Unsqueeze", &[&rows, &axes], &format!("{rows}.heads"))
        });
        b.scope = scope;
        self.tables.insert(key, tables.clone());
        tables
    }

    fn rows(&self, b: &mut Builder<'_>, (head_dim, block): (usize, usize), sine: bool) -> String {
        let end = if sine { "sin" } else { "cos" };
        let model = b.model;
        let positions = match b.form.fixed() {
            Some((tokens, past)) => tokens + past,
            None => model.spec.max_positions.max(1),
        };
        let rope = model.spec.rope_of(block);
        let factor = rope.attention_factor() as f32;
        let kind = if model.spec.is_local(block) { "rope.local" } else { "rope" };
        let mut of = |tokens: usize, label: String| {
            let source = Source::Rotary { sine, head_dim, tokens, block };
            let shape = vec![positions, head_dim / 2];
            let table = b.store(format!("{label}.table"), DataType::Float, shape, source);
            let rows = b.gather((&table, 0), "position_ids", &label);
            b.ranged(&rows, (-factor, factor));
            rows
        };
        let plain = of(1, format!("{kind}.{head_dim}.{end}"));
        let RopeScaling::LongRope { short, long, original, .. } = &rope.scaling else {
            return plain;
        };
        if short == long || *original >= positions {
            return plain;
        }
        let far = of(original + 1, format!("{kind}.{head_dim}.{end}.long"));
        let border = b.int(*original as i64);
        let beyond = b.node("Greater", &[&self.total, &border], &format!("{far}.wanted"));
        b.node("Where", &[&beyond, &far, &plain], &format!("{plain}.chosen"))
    }
}
