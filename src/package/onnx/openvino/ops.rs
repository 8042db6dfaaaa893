//! Nodes as layers. Add an operator: an arm in [`Translator::node`].
use super::{
    super::{
        OnnxError,
        proto::{AttributeProto, DataType, NodeProto},
        stored::Source,
    },
    ir::{Kind, Op, Port, kind},
    translate::Translator,
};

impl Translator<'_, '_> {
    /// The layers of a node.
    pub(super) fn node(&mut self, node: &NodeProto) -> Result<(), OnnxError> {
        let op = node.op_type.as_deref().unwrap_or_default();
        let output = node.output.first().map(String::as_str).unwrap_or_default();
        match op {
            "DequantizeLinear" => return self.dequantized(node, output),
            "QuantizeLinear" => return self.rounded(node, output),
            "Split" | "TopK" => return self.parts(node, op),
            _ => {}
        }
        let inputs = node.input.iter().map(|name| self.value(name));
        let inputs = inputs.collect::<Result<Vec<Port>, _>>()?;
        let x = *inputs.first().ok_or_else(|| unknown(op))?;
        let port = match op {
            "Identity" => {
                self.network.call(x, output);
                self.one(Op::new("Result", 1), &format!("{output}/end"), &inputs)
            }
            "Transpose" if attribute(node, "perm").ints == [1, 0] => {
                // The table as a head: a product reads it turned.
                self.turned.insert(output.to_owned());
                x
            }
            "Transpose" => {
                let order = self.ints(&attribute(node, "perm").ints);
                self.one(Op::new("Transpose", 1), output, &[x, order])
            }
            "Cast" => self.cast(node, output, x)?,
            "MatMul" => {
                let turned = node.input.get(1).is_some_and(|name| self.turned.contains(name));
                let op = Op::new("MatMul", 1).with("transpose_a", false);
                self.one(op.with("transpose_b", turned), output, &inputs)
            }
            "Gather" => {
                let axis = self.int(attribute(node, "axis").i.unwrap_or(0));
                self.gather([x, inputs[1], axis], output)
            }
            "Concat" => self.joined(node, output, &inputs),
            "ScatterElements" => {
                let axis = self.int(-1);
                let inputs = [inputs, vec![axis]].concat();
                self.one(Op::new("ScatterElementsUpdate", 3), output, &inputs)
            }
            _ => {
                let (op, kind) = plain(op, &inputs).ok_or_else(|| unknown(op))?;
                self.typed(op, output, &inputs, kind)
            }
        };
        self.values.insert(output.to_owned(), port);
        Ok(())
    }

    fn cast(&mut self, node: &NodeProto, output: &str, x: Port) -> Result<Port, OnnxError> {
        let to = attribute(node, "to").i.and_then(|id| DataType::of(id as i32));
        let to = to.ok_or_else(|| OnnxError::Form { what: format!("the type of `{output}`") })?;
        if self.turned.contains(&node.input[0]) {
            self.turned.insert(output.to_owned());
        }
        Ok(self.converted(x, kind(to), output))
    }

    fn converted(&mut self, x: Port, to: Kind, name: &str) -> Port {
        self.typed(Op::new("Convert", 1).with("destination_type", to), name, &[x], to)
    }

    /// Values one behind the other; behind those of a cache they are what it holds from then on.
    fn joined(&mut self, node: &NodeProto, output: &str, inputs: &[Port]) -> Port {
        let axis = attribute(node, "axis").i.unwrap_or(0);
        let port = self.one(Op::new("Concat", 1).with("axis", axis), output, inputs);
        if let Some(past) = node.input.first().filter(|it| it.starts_with("past_")) {
            let assign = Op::new("Assign", 6).with("variable_id", past);
            self.one(assign, &format!("{past}.assigned"), &[port]);
        }
        port
    }

    /// Operators with several outputs.
    fn parts(&mut self, node: &NodeProto, op: &str) -> Result<(), OnnxError> {
        let (x, second) = (self.value(&node.input[0])?, self.value(&node.input[1])?);
        let axis = attribute(node, "axis").i.unwrap_or(0);
        let output = node.output[0].as_str();
        let ports = if op == "Split" {
            let axis = self.int(axis);
            let kinds = vec![x.kind; node.output.len()];
            self.network.layer(Op::new("VariadicSplit", 1), output, &[x, axis, second], &kinds)
        } else {
            let shape = self.ints(&[]);
            let reshape = Op::new("Reshape", 1).with("special_zero", false);
            let count = self.one(reshape, &format!("{output}.count"), &[second, shape]);
            let op = Op::new("TopK", 11)
                .with("axis", axis)
                .with("mode", "max")
                .with("sort", "value")
                .with("index_element_type", "i64")
                .with("stable", true);
            self.network.layer(op, output, &[x, count], &[x.kind, "i64"])
        };
        for (name, port) in node.output.iter().zip(ports) {
            self.values.insert(name.clone(), port);
        }
        Ok(())
    }

    /// Activations on a grid: the number that a code stands for, under the code's name as well.
    fn rounded(&mut self, node: &NodeProto, output: &str) -> Result<(), OnnxError> {
        let form = || OnnxError::Form { what: format!("the grid of `{output}`") };
        let grid = node.input.get(1).zip(node.input.get(2)).ok_or_else(form)?;
        let bytes = |name: &str| match self.stored.get(name).map(|it| &it.source) {
            Some(Source::Bytes(bytes)) => Some(bytes.as_slice()),
            _ => None,
        };
        let scale = bytes(grid.0).and_then(|it| it.try_into().ok()).map(f32::from_le_bytes);
        let (zero, levels) = match bytes(grid.1).ok_or_else(form)? {
            [byte] => (u16::from(*byte), 256_u32),
            [low, high] => (u16::from_le_bytes([*low, *high]), 65536),
            _ => return Err(form()),
        };
        let (scale, zero) = (scale.ok_or_else(form)?, f32::from(zero));
        let least = self.number(-zero * scale);
        let most = self.number(((levels - 1) as f32 - zero) * scale);
        let x = self.value(&node.input[0])?;
        let op = numpy("FakeQuantize").with("levels", levels);
        let port = self.one(op, output, &[x, least, most, least, most]);
        self.values.insert(output.to_owned(), port);
        Ok(())
    }

    /// Codes as numbers: of weights, in blocks `[out, blocks, block]`; of activations they are numbers already.
    fn dequantized(&mut self, node: &NodeProto, output: &str) -> Result<(), OnnxError> {
        let Some(codes) = self.stored.get(node.input[0].as_str()).copied() else {
            let port = self.value(&node.input[0])?;
            self.values.insert(output.to_owned(), port);
            return Ok(());
        };
        let form = || OnnxError::Form { what: format!("the codes of `{output}`") };
        let Source::Codes { name, piece, turned } = codes.source else { return Err(form()) };
        let &[rows, columns] = codes.shape.as_slice() else { return Err(form()) };
        let [rows, columns] = if turned { [columns, rows] } else { [rows, columns] };
        let block = attribute(node, "block_size").i.map(|size| size as usize);
        let (shape, parameters) = match block {
            Some(size) => (vec![rows, columns / size, size], vec![rows, columns / size, 1]),
            None => (vec![rows, columns], vec![rows, 1]),
        };
        let source = Source::Codes { name, piece, turned: false };
        let constant = self.constant(&codes.name, (codes.kind, shape), source);
        let mut port = self.converted(constant, "f32", &format!("{output}.steps"));
        if let Some(zero) = node.input.get(2).and_then(|name| self.stored.get(name.as_str())) {
            let source = Source::ZeroPoints { name, piece, turned: false };
            let zero = self.constant(&zero.name, (zero.kind, parameters.clone()), source);
            let zero = self.converted(zero, "f32", &format!("{output}.zeros"));
            port = self.one(numpy("Subtract"), &format!("{output}.offset"), &[port, zero]);
        }
        let source = Source::Scales { name, piece, turned: false };
        let scale =
            self.constant(&format!("{output}.scale"), (DataType::Float, parameters), source);
        port = self.one(numpy("Multiply"), &format!("{output}.scaled"), &[port, scale]);
        if block.is_some() {
            let shape = self.ints(&[rows as i64, columns as i64]);
            let reshape = Op::new("Reshape", 1).with("special_zero", false);
            port = self.one(reshape, output, &[port, shape]);
        }
        self.values.insert(output.to_owned(), port);
        if turned {
            self.turned.insert(output.to_owned());
        }
        Ok(())
    }
}

/// An operator that stretches axes of length 1.
fn numpy(name: &'static str) -> Op {
    Op::new(name, 1).with("auto_broadcast", "numpy")
}

/// Operators that take what the graph's take, and the type of what they make.
fn plain(op: &str, inputs: &[Port]) -> Option<(Op, Kind)> {
    let long = |op: Op| op.with("output_type", "i64");
    let kept = |name| Op::new(name, 1).with("keep_dims", true);
    let own = inputs.first()?.kind;
    Some(match op {
        "Add" => (numpy("Add"), own),
        "Sub" => (numpy("Subtract"), own),
        "Mul" => (numpy("Multiply"), own),
        "Div" => (numpy("Divide"), own),
        "Max" => (numpy("Maximum"), own),
        "And" => (numpy("LogicalAnd"), own),
        "LessOrEqual" => (numpy("LessEqual"), "boolean"),
        "Greater" => (numpy("Greater"), "boolean"),
        "Where" => (numpy("Select"), inputs.get(1)?.kind),
        "Abs" => (Op::new("Abs", 1), own),
        "Sqrt" => (Op::new("Sqrt", 1), own),
        "Sigmoid" => (Op::new("Sigmoid", 1), own),
        "Round" => (Op::new("Round", 5).with("mode", "half_to_even"), own),
        "Softmax" => (Op::new("Softmax", 8).with("axis", -1), own),
        "ReduceMean" => (kept("ReduceMean"), own),
        "ReduceMax" => (kept("ReduceMax"), own),
        "ReduceSum" => (kept("ReduceSum"), own),
        "Reshape" => (Op::new("Reshape", 1).with("special_zero", true), own),
        "Unsqueeze" => (Op::new("Unsqueeze", 1), own),
        "Shape" => (long(Op::new("ShapeOf", 3)), "i64"),
        "Range" => (long(Op::new("Range", 4)), "i64"),
        _ => return None,
    })
}

/// An attribute of a node; without it one without a value.
fn attribute(node: &NodeProto, name: &str) -> AttributeProto {
    let found = node.attribute.iter().find(|it| it.name.as_deref() == Some(name));
    found.cloned().unwrap_or_default()
}

fn unknown(op: &str) -> OnnxError {
    OnnxError::Form { what: format!("the operator `{op}` in OpenVINO's form") }
}
