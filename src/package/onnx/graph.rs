//! A graph while it is built: nodes, stored tensors, and the static grids of values.
use super::{
    proto::{AttributeProto, DataType, NodeProto},
    stored::{Source, Stored},
};
use crate::{model::Model, package::format::GraphForm, scheme::ActivationGrid, tensor::FloatType};
use std::collections::{BTreeMap, BTreeSet};

/// A product with codes in blocks, and the domain of operators that it is from.
pub(super) const MATMUL_NBITS: &str = "MatMulNBits";
pub(super) const DOMAIN: &str = "com.microsoft";

impl GraphForm {
    /// Its name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qdq => "onnx-qdq",
            Self::Float => "onnx-float",
            Self::Fixed { .. } => "onnx-fixed",
        }
    }

    /// The version of the operators: blocks and int4 codes came with 21, the RMS norm with 23; converters
    /// of devices take 17.
    pub(super) fn opset(self) -> i64 {
        match self {
            Self::Qdq => 21,
            Self::Float => 17,
            Self::Fixed { .. } => 23,
        }
    }

    /// The version of the file's form that goes with it.
    pub(super) fn ir_version(self) -> i64 {
        match self {
            Self::Qdq | Self::Fixed { .. } => 10,
            Self::Float => 8,
        }
    }

    /// New tokens and places for past ones, where they are fixed.
    pub(super) fn fixed(self) -> Option<(usize, usize)> {
        match self {
            Self::Fixed { tokens, past } => Some((tokens, past)),
            Self::Qdq | Self::Float => None,
        }
    }
}

/// A graph while it is built. Names of values are those of the scope with a label.
pub(super) struct Builder<'a> {
    pub(super) model: &'a Model,
    pub(super) form: GraphForm,
    /// Type of stored float matrices.
    pub(super) float: FloatType,
    /// In the order of computing.
    pub(super) nodes: Vec<NodeProto>,
    /// Every stored tensor.
    pub(super) stored: Vec<Stored<'a>>,
    /// Static grids by value.
    pub(super) grids: BTreeMap<String, ActivationGrid>,
    /// Scales of static int8 inputs by value, of a float graph.
    pub(super) input_scales: BTreeMap<String, f32>,
    /// Put before labels, e.g. `layers.0.`.
    pub(super) scope: String,
    names: BTreeSet<String>,
    made: BTreeSet<String>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(model: &'a Model, form: GraphForm, float: FloatType) -> Self {
        Self {
            model,
            form,
            float,
            nodes: Vec::new(),
            stored: Vec::new(),
            grids: BTreeMap::new(),
            input_scales: BTreeMap::new(),
            scope: String::new(),
            names: BTreeSet::new(),
            made: BTreeSet::new(),
        }
    }

    /// A node with one output, whose name is returned.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str], label: &str) -> String {
        self.node_with(op, inputs, label, Vec::new())
    }

    /// A node with settings.
    pub(super) fn node_with(
        &mut self,
        op: &str,
        inputs: &[&str],
        label: &str,
        attribute: Vec<AttributeProto>,
    ) -> String {
        let name = format!("{}{label}", self.scope);
        self.push(op, inputs, &[&name], attribute);
        name
    }

    /// A node with these outputs.
    pub(super) fn push(
        &mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) {
        let owned = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        self.nodes.push(NodeProto {
            input: owned(inputs),
            output: owned(outputs),
            name: outputs.first().map(|name| format!("{name}/{op}")),
            op_type: Some(op.to_owned()),
            attribute,
            domain: (op == MATMUL_NBITS).then(|| DOMAIN.to_owned()),
        });
    }

    /// A stored tensor; one of the same name is not stored again.
    pub(super) fn store(
        &mut self,
        name: String,
        kind: DataType,
        shape: Vec<usize>,
        source: Source<'a>,
    ) -> String {
        if self.names.insert(name.clone()) {
            self.stored.push(Stored { name: name.clone(), kind, shape, source });
        }
        name
    }

    /// Whether a name is new; it is not afterwards.
    pub(super) fn first(&mut self, name: &str) -> bool {
        self.made.insert(name.to_owned())
    }

    /// Whole numbers as a list.
    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        let words: Vec<_> = values.iter().map(ToString::to_string).collect();
        let bytes = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        let name = format!("ints.{}", words.join("."));
        self.store(name, DataType::Int64, vec![values.len()], Source::Bytes(bytes))
    }

    /// One whole number without axes.
    pub(super) fn int(&mut self, value: i64) -> String {
        let bytes = value.to_le_bytes().to_vec();
        self.store(format!("int.{value}"), DataType::Int64, vec![], Source::Bytes(bytes))
    }

    /// One float32 number without axes.
    pub(super) fn number(&mut self, value: f32) -> String {
        let bytes = value.to_le_bytes().to_vec();
        self.store(format!("number.{value:e}"), DataType::Float, vec![], Source::Bytes(bytes))
    }

    /// A value in another shape; 0 keeps an axis, −1 takes what is left.
    pub(super) fn reshape(&mut self, x: &str, shape: &[i64], label: &str) -> String {
        let shape = self.ints(shape);
        self.node("Reshape", &[x, &shape], label)
    }

    /// A value with its axes in another order.
    pub(super) fn transpose(&mut self, x: &str, order: &[i64], label: &str) -> String {
        self.node_with("Transpose", &[x], label, vec![AttributeProto::ints("perm", order)])
    }

    /// Rows, or whatever lies along the axis, by number.
    pub(super) fn gather(&mut self, (x, axis): (&str, i64), places: &str, label: &str) -> String {
        self.node_with("Gather", &[x, places], label, vec![AttributeProto::int("axis", axis)])
    }

    /// `op` over the last axis, which stays with length 1. Axes were a setting before opset 18.
    pub(super) fn reduce(&mut self, op: &str, x: &str, label: &str) -> String {
        if self.form.opset() < 18 {
            return self.node_with(op, &[x], label, vec![AttributeProto::ints("axes", &[-1])]);
        }
        let axes = self.ints(&[-1]);
        self.node(op, &[x, &axes], label)
    }

    /// Static grids by value; what a point of the model says goes before what a product says.
    pub(super) fn all_grids(&self) -> BTreeMap<String, ActivationGrid> {
        let of = |scale| ActivationGrid { bits: 8, scale, zero_point: 128 };
        let inputs = self.input_scales.iter().map(|(x, scale)| (x.clone(), of(*scale)));
        inputs.chain(self.grids.clone()).collect()
    }

    /// A value on its static grid, if the model has one under this key.
    pub(super) fn point(&mut self, x: String, key: &str) -> String {
        match self.model.weights.activations.get(key) {
            Some(grid) => self.on_grid(x, *grid),
            None => x,
        }
    }

    /// Notes the grid of a value whose range is known without a text, in a float graph of a model
    /// with static grids.
    pub(super) fn ranged(&mut self, x: &str, (min, max): (f32, f32)) {
        let bits = self.model.weights.activations.values().map(|grid| grid.bits).max();
        if let (GraphForm::Float, Some(bits)) = (self.form, bits) {
            self.grids.insert(x.to_owned(), ActivationGrid::covering(min, max, bits));
        }
    }

    /// A value on a grid: rounded to it in a graph of codes, only noted in a float graph.
    fn on_grid(&mut self, x: String, grid: ActivationGrid) -> String {
        if self.form == GraphForm::Float {
            self.grids.insert(x.clone(), grid);
            return x;
        }
        let (kind, zero) = match grid.bits {
            8 => (DataType::Uint8, vec![grid.zero_point as u8]),
            _ => (DataType::Uint16, grid.zero_point.to_le_bytes().to_vec()),
        };
        let scale = self.number(grid.scale);
        let name = format!("zero.u{}.{}", grid.bits, grid.zero_point);
        let zero = self.store(name, kind, vec![], Source::Bytes(zero));
        self.round_trip(&x, &x, (&scale, &zero))
    }

    /// `x` rounded to codes on a grid of a scale and a zero point, and back; as `name.rounded`.
    pub(super) fn round_trip(&mut self, x: &str, name: &str, grid: (&str, &str)) -> String {
        let (scale, zero) = grid;
        let (codes, rounded) = (format!("{name}.codes"), format!("{name}.rounded"));
        self.push("QuantizeLinear", &[x, scale, zero], &[&codes], Vec::new());
        self.push("DequantizeLinear", &[&codes, scale, zero], &[&rounded], Vec::new());
        rounded
    }
}
