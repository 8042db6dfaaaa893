//! OpenVINO's IR, version 11: layers with ports and edges as XML, constants as places in a file beside it.
//! Shapes of ports are left out: OpenVINO infers them when it reads.
use super::super::proto::DataType;
use std::fmt::Write;

/// An output of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    layer: usize,
    output: usize,
    /// Its element type.
    pub(super) kind: Kind,
}

/// Element types, as attributes name them.
pub(super) type Kind = &'static str;

/// The name of a stored type.
pub(super) fn kind(of: DataType) -> Kind {
    match of {
        DataType::Float => "f32",
        DataType::Uint8 => "u8",
        DataType::Int8 => "i8",
        DataType::Uint16 => "u16",
        DataType::Int32 => "i32",
        DataType::Int64 => "i64",
        DataType::Bool => "boolean",
        DataType::Float16 => "f16",
        DataType::Bfloat16 => "bf16",
        DataType::Int4 => "i4",
    }
}

/// The type that ports name so.
fn precision(kind: Kind) -> String {
    match kind {
        "f32" | "f16" => kind.replace('f', "FP"),
        "boolean" => "BOOL".to_owned(),
        other => other.to_uppercase(),
    }
}

/// An operator of a set, with its attributes.
#[derive(Clone, Debug)]
pub(super) struct Op {
    name: &'static str,
    set: String,
    data: Vec<(&'static str, String)>,
}

impl Op {
    pub(super) fn new(name: &'static str, set: u32) -> Self {
        Self { name, set: format!("opset{set}"), data: Vec::new() }
    }

    /// An operator that a library brings.
    pub(super) fn extension(name: &'static str) -> Self {
        Self { name, set: "extension".to_owned(), data: Vec::new() }
    }

    /// The same with an attribute.
    pub(super) fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.data.push((key, value.to_string()));
        self
    }
}

struct Layer {
    name: String,
    op: Op,
    inputs: Vec<Port>,
    outputs: Vec<Kind>,
    /// What programs look its first output up by.
    told: Option<String>,
}

/// A network while it is built.
#[derive(Default)]
pub(super) struct Network {
    layers: Vec<Layer>,
}

impl Network {
    /// A layer; gives its outputs, one for each of `kinds`.
    pub(super) fn layer(
        &mut self,
        op: Op,
        name: &str,
        inputs: &[Port],
        kinds: &[Kind],
    ) -> Vec<Port> {
        let (layer, first) = (self.layers.len(), inputs.len());
        let (inputs, outputs) = (inputs.to_vec(), kinds.to_vec());
        self.layers.push(Layer { name: name.to_owned(), op, inputs, outputs, told: None });
        let port = |(at, kind): (usize, &Kind)| Port { layer, output: first + at, kind };
        kinds.iter().enumerate().map(port).collect()
    }

    /// Gives a layer's first output a name that programs look it up by.
    pub(super) fn call(&mut self, port: Port, name: &str) {
        self.layers[port.layer].told = Some(name.to_owned());
    }

    /// Number of layers.
    pub(super) fn count(&self) -> usize {
        self.layers.len()
    }

    /// The file, with facts for those who read it: `(key, value)`, of the settings of a run under
    /// `runtime_options`.
    pub(super) fn xml(&self, facts: &[(&str, String)], settings: &[(&str, &str)]) -> String {
        let (mut layers, mut edges) = (String::new(), String::new());
        for (id, layer) in self.layers.iter().enumerate() {
            layer.write(id, &mut layers);
            for (port, from) in layer.inputs.iter().enumerate() {
                let Port { layer, output, .. } = from;
                let _ = writeln!(
                    edges,
                    r#"<edge from-layer="{layer}" from-port="{output}" to-layer="{id}" to-port="{port}"/>"#
                );
            }
        }
        let fact = |key: &str, value: &str| format!(r#"<{key} value="{}"/>"#, escaped(value));
        let facts: Vec<String> = facts.iter().map(|(key, value)| fact(key, value)).collect();
        let settings: Vec<String> = settings.iter().map(|(key, value)| fact(key, value)).collect();
        format!(
            "<?xml version=\"1.0\"?>\n<net name=\"model\" version=\"11\">\n\
             <layers>\n{layers}</layers>\n<edges>\n{edges}</edges>\n\
             <rt_info>{}<runtime_options>{}</runtime_options></rt_info>\n</net>\n",
            facts.concat(),
            settings.concat()
        )
    }
}

impl Layer {
    fn write(&self, id: usize, out: &mut String) {
        let Op { name, set, data } = &self.op;
        let called = escaped(&self.name);
        let head = format!(r#"id="{id}" name="{called}" type="{name}" version="{set}""#);
        let data = data.iter().map(|(key, value)| format!(r#" {key}="{}""#, escaped(value)));
        let data = data.collect::<Vec<_>>().concat();
        let port = |id: usize, kind: Kind, told: &str| {
            format!(r#"<port id="{id}" precision="{}"{told}/>"#, precision(kind))
        };
        let inputs = self.inputs.iter().enumerate().map(|(at, it)| port(at, it.kind, ""));
        let inputs = inputs.collect::<Vec<_>>().concat();
        let told = self.told.as_ref().map(|it| format!(r#" names="{}""#, escaped(it)));
        let told = told.unwrap_or_default();
        let output = |(at, kind): (usize, &Kind)| {
            port(self.inputs.len() + at, kind, if at == 0 { &told } else { "" })
        };
        let outputs = self.outputs.iter().enumerate().map(output).collect::<Vec<_>>().concat();
        let part = |tag: &str, ports: String| match ports.as_str() {
            "" => ports,
            _ => format!("<{tag}>{ports}</{tag}>"),
        };
        let data = if data.is_empty() { data } else { format!("<data{data}/>") };
        let (inputs, outputs) = (part("input", inputs), part("output", outputs));
        let _ = writeln!(out, "<layer {head}>{data}{inputs}{outputs}</layer>");
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            sign => safe.push(sign),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_joined_by_edges() {
        let mut network = Network::default();
        let op = Op::new("Parameter", 1).with("shape", "?,?").with("element_type", "i64");
        let ids = network.layer(op, "a\"b", &[], &["i64"]);
        network.call(ids[0], "a\"b");
        let sum = network.layer(Op::new("Add", 1), "sum", &[ids[0], ids[0]], &["f32"]);
        network.layer(Op::new("Result", 1), "end", &sum, &[]);
        let xml = network.xml(&[("fact", "<".to_owned())], &[("KEY", "0")]);
        for part in [
            r#"<layer id="0" name="a&quot;b" type="Parameter" version="opset1"><data shape="?,?" element_type="i64"/>"#,
            r#"<output><port id="0" precision="I64" names="a&quot;b"/></output>"#,
            r#"<output><port id="2" precision="FP32"/></output>"#,
            r#"<edge from-layer="0" from-port="0" to-layer="1" to-port="1"/>"#,
            r#"<edge from-layer="1" from-port="2" to-layer="2" to-port="0"/>"#,
            r#"<fact value="&lt;"/><runtime_options><KEY value="0"/></runtime_options>"#,
        ] {
            assert!(xml.contains(part), "{part} in {xml}");
        }
        assert_eq!(network.count(), 3);
    }
}
