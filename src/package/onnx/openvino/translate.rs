//! The decoder's graph as a network: its ends, its caches, its constants.
//!
//! Matrices stay `[out, in]`, which products read turned: a table and the head that is tied to it are one constant.
use super::{
    super::{
        OnnxError,
        export::Export,
        proto::DataType,
        stored::{Source, Stored},
    },
    constants::Constants,
    ir::{Kind, Network, Op, Port},
};
use std::collections::{BTreeMap, BTreeSet};

/// The network and its constants.
pub(super) struct Translated<'a> {
    pub(super) network: Network,
    pub(super) constants: Constants<'a>,
}

/// A decoder as a network that holds keys and values itself.
pub(super) fn translate<'a>(export: &Export<'a>) -> Result<Translated<'a>, OnnxError> {
    let mut t = Translator {
        network: Network::default(),
        stored: export.stored().iter().map(|it| (it.name.as_str(), it)).collect(),
        values: BTreeMap::new(),
        turned: BTreeSet::new(),
        constants: Constants::default(),
    };
    for name in ["input_ids", "attention_mask", "position_ids"] {
        t.parameter(name, ("i64", "?,?"));
    }
    let beams = t.parameter("beam_idx", ("i32", "?"));
    t.caches(export, beams)?;
    for node in export.node_list() {
        t.node(node)?;
    }
    Ok(Translated { network: t.network, constants: t.constants })
}

pub(super) struct Translator<'e, 'a> {
    pub(super) network: Network,
    /// Tensors of the graph.
    pub(super) stored: BTreeMap<&'e str, &'e Stored<'a>>,
    /// What stands for values of the graph.
    pub(super) values: BTreeMap<String, Port>,
    /// Values that are the transpose of what stands for them.
    pub(super) turned: BTreeSet<String>,
    constants: Constants<'a>,
}

impl<'a> Translator<'_, 'a> {
    fn parameter(&mut self, name: &str, (kind, shape): (Kind, &str)) -> Port {
        let op = Op::new("Parameter", 1).with("shape", shape).with("element_type", kind);
        let port = self.typed(op, name, &[], kind);
        self.network.call(port, name);
        self.values.insert(name.to_owned(), port);
        port
    }

    /// Keys and values of every block: empty at first, later the rows of those texts that go on.
    fn caches(&mut self, export: &Export<'_>, beams: Port) -> Result<(), OnnxError> {
        let ids = self.value("input_ids")?;
        let shape = Op::new("ShapeOf", 3).with("output_type", "i64");
        let shape = self.one(shape, "batch.shape", &[ids]);
        let (first, axis, zero) = (self.ints(&[0]), self.int(0), self.number(0.0));
        let batch = self.gather([shape, first, axis], "batch");
        for (index, block) in export.model().spec.blocks.iter().enumerate() {
            let rest = self.ints(&[block.kv_heads as i64, 0, block.head_dim as i64]);
            for side in ["key", "value"] {
                let name = format!("past_key_values.{index}.{side}");
                let shape = Op::new("Concat", 1).with("axis", 0);
                let shape = self.one(shape, &format!("{name}.shape"), &[batch, rest]);
                let empty = Op::new("Broadcast", 3).with("mode", "numpy");
                let empty = self.one(empty, &format!("{name}.empty"), &[zero, shape]);
                let read = Op::new("ReadValue", 6)
                    .with("variable_id", &name)
                    .with("variable_type", "f32")
                    .with("variable_shape", format!("?,{},?,{}", block.kv_heads, block.head_dim));
                let read = self.one(read, &format!("{name}.held"), &[empty]);
                let rows = self.gather([read, beams, axis], &name);
                self.values.insert(name, rows);
            }
        }
        Ok(())
    }

    /// A layer with one output of its first input's type.
    pub(super) fn one(&mut self, op: Op, name: &str, inputs: &[Port]) -> Port {
        let kind = inputs.first().map_or("f32", |it| it.kind);
        self.typed(op, name, inputs, kind)
    }

    /// A layer with one output of a type.
    pub(super) fn typed(&mut self, op: Op, name: &str, inputs: &[Port], kind: Kind) -> Port {
        self.network.layer(op, name, inputs, &[kind])[0]
    }

    /// Of values, places and the axis.
    pub(super) fn gather(&mut self, inputs: [Port; 3], name: &str) -> Port {
        self.one(Op::new("Gather", 8).with("batch_dims", 0), name, &inputs)
    }

    /// What stands for a value: a layer from before, or a constant.
    pub(super) fn value(&mut self, name: &str) -> Result<Port, OnnxError> {
        if let Some(port) = self.values.get(name) {
            return Ok(*port);
        }
        let missing = || OnnxError::Form { what: format!("the value `{name}`") };
        let stored = *self.stored.get(name).ok_or_else(missing)?;
        let (mut shape, mut source) = (stored.shape.clone(), stored.source.clone());
        if let Source::Values { turned, .. } = &mut source
            && std::mem::take(turned)
        {
            shape.reverse();
            self.turned.insert(name.to_owned());
        }
        let port = self.constant(name, (stored.kind, shape), source);
        self.values.insert(name.to_owned(), port);
        Ok(port)
    }

    /// A constant; one that holds the same is not stored again.
    pub(super) fn constant(
        &mut self,
        name: &str,
        (element, shape): (DataType, Vec<usize>),
        source: Source<'a>,
    ) -> Port {
        self.constants.put(&mut self.network, name, (element, shape), source)
    }

    /// Whole numbers as a list.
    pub(super) fn ints(&mut self, values: &[i64]) -> Port {
        let bytes = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        self.constant("ints", (DataType::Int64, vec![values.len()]), Source::Bytes(bytes))
    }

    /// One whole number.
    pub(super) fn int(&mut self, value: i64) -> Port {
        let bytes = Source::Bytes(value.to_le_bytes().to_vec());
        self.constant("int", (DataType::Int64, vec![]), bytes)
    }

    /// One number.
    pub(super) fn number(&mut self, value: f32) -> Port {
        let bytes = Source::Bytes(value.to_le_bytes().to_vec());
        self.constant("number", (DataType::Float, vec![]), bytes)
    }
}
