//! Encodings beside a float graph: the grids of weights and activations as AIMET's JSON says them,
//! versions 1.0.0 and 2.0.0 (AIMET's quantization encoding specification).
//!
//! A weight's number is `(code − zero_point) · scale` with signed codes; 2.0.0 says so, 1.0.0 says
//! `(code + offset) · scale` with codes from 0. A negative scale, which these forms do not have,
//! becomes its size with mirrored codes: `code ← −code − 1`, `zero_point ← −zero_point − 1`.
use super::{
    OnnxError,
    export::Export,
    names::table_of,
    proto::NodeProto,
    stored::{Piece, quantized, turn},
};
use crate::{
    checkpoint::{FileRecord, OutputDir},
    package::format::EncodingsVersion,
    scheme::{ActivationGrid, Granularity, QTensor},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// The file of encodings.
pub const ENCODINGS_FILE: &str = "model.encodings";
/// Tensors of the graph that no encoding covers.
pub const UNCOVERED_FILE: &str = "model.encodings.uncovered.json";

/// What the encodings of a graph cover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Values of the graph with an encoding.
    pub activations: usize,
    /// Values without.
    pub open_activations: Vec<String>,
    /// Weights with an encoding.
    pub weights: usize,
    /// Weights without.
    pub open_weights: Vec<String>,
}

/// Operations whose outputs hold values of their first input: its grid is theirs.
const MOVES: [&str; 8] =
    ["Reshape", "Transpose", "Unsqueeze", "Squeeze", "Split", "Gather", "Identity", "Expand"];

impl Export<'_> {
    /// Writes the encodings of the graph; gives what they cover.
    pub fn write_encodings(
        &self,
        version: EncodingsVersion,
        out: &mut dyn Write,
    ) -> Result<Coverage, OnnxError> {
        let mut list = List { out, first: true, version };
        let failed = |error: io::Error| OnnxError::Encodings { source: error };
        let grids = spread(self.node_list(), self.grids());
        list.open("activation_encodings").map_err(failed)?;
        let mut coverage = Coverage::default();
        let inputs = self.input_names();
        let computed = self.node_list().iter().flat_map(|node| node.output.iter());
        for name in inputs.chain(computed.map(String::as_str)) {
            match grids.get(name) {
                Some(grid) => {
                    coverage.activations += 1;
                    list.put(&activation(name, *grid, version)).map_err(failed)?;
                }
                None => coverage.open_activations.push(name.to_owned()),
            }
        }
        list.next("param_encodings").map_err(failed)?;
        let weights = &self.model().weights.quantized;
        for name in self.stored_names() {
            // A table that is looked up has numbers on a grid and no product that an encoding would be of.
            let of = table_of(name).filter(|table| weights.contains_key(*table)).unwrap_or(name);
            match weights.get(of) {
                Some((scheme, _)) if scheme.outliers == 0 && !self.is_table(name) => {
                    let tensor = quantized(self.model(), of, Piece::Base)?;
                    coverage.weights += 1;
                    let turned = of != name || self.is_turned(name);
                    list.put(&weight(name, &tensor, (version, turned))).map_err(failed)?;
                }
                _ => coverage.open_weights.push(name.to_owned()),
            }
        }
        list.close().map_err(failed)?;
        Ok(coverage)
    }
}

impl Export<'_> {
    /// Writes the encodings and the list of what they do not cover into the folder; adds both to
    /// `files`.
    pub fn write_encodings_file(
        &self,
        output: &OutputDir,
        version: EncodingsVersion,
        files: &mut BTreeMap<String, FileRecord>,
    ) -> Result<Coverage, OnnxError> {
        let mut file = io::BufWriter::new(output.hashed(ENCODINGS_FILE)?);
        let coverage = self.write_encodings(version, &mut file)?;
        let failed = |source| OnnxError::Encodings { source };
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        files.insert(ENCODINGS_FILE.to_owned(), file.finish()?);
        let list = serde_json::to_vec_pretty(&coverage.to_json()).unwrap_or_default();
        files.insert(UNCOVERED_FILE.to_owned(), output.write(UNCOVERED_FILE, &list)?);
        Ok(coverage)
    }
}

impl Coverage {
    /// The file that lists what is not covered.
    pub fn to_json(&self) -> Value {
        json!({"activations": self.open_activations, "parameters": self.open_weights})
    }
}

/// Grids of values and of those that only hold the same numbers elsewhere.
fn spread(
    nodes: &[NodeProto],
    known: &BTreeMap<String, ActivationGrid>,
) -> BTreeMap<String, ActivationGrid> {
    let mut grids = known.clone();
    for node in nodes {
        let op = node.op_type.as_deref().unwrap_or_default();
        let Some(grid) = node.input.first().and_then(|name| grids.get(name)).copied() else {
            continue;
        };
        if MOVES.contains(&op) {
            for output in &node.output {
                grids.entry(output.clone()).or_insert(grid);
            }
        }
    }
    // What is appended to a cache is on the grid of the cache: nodes `Concat(past, new)`.
    for node in nodes.iter().filter(|node| node.op_type.as_deref() == Some("Concat")) {
        let (Some(past), Some(new)) = (node.input.first(), node.input.get(1)) else { continue };
        let Some(grid) = grids.get(new).copied().filter(|_| past.starts_with("past_")) else {
            continue;
        };
        for name in std::iter::once(past).chain(&node.output) {
            grids.entry(name.clone()).or_insert(grid);
        }
    }
    grids
}

fn activation(name: &str, grid: ActivationGrid, version: EncodingsVersion) -> Value {
    let zero = i64::from(grid.zero_point);
    match version {
        EncodingsVersion::V1 => json!({
            "name": name, "enc_type": "PER_TENSOR", "dtype": "INT", "bw": grid.bits,
            "is_sym": false, "scale": [grid.scale], "offset": [-zero],
        }),
        EncodingsVersion::V2 => json!({
            "name": name, "output_dtype": format!("uint{}", grid.bits),
            "y_scale": grid.scale, "y_zero_point": zero,
        }),
    }
}

fn weight(name: &str, tensor: &QTensor, (version, turned): (EncodingsVersion, bool)) -> Value {
    let scheme = tensor.scheme;
    let [rows, columns] = tensor.shape;
    let scales: Vec<f32> = tensor.scales.iter().map(|scale| scale.abs()).collect();
    let zeros: Vec<i64> = tensor
        .scales
        .iter()
        .enumerate()
        .map(|(at, scale)| {
            let zero = i64::from(tensor.zero_points.get(at).copied().unwrap_or(0));
            if *scale < 0.0 { -1 - zero } else { zero }
        })
        .collect();
    let blocks = matches!(scheme.granularity, Granularity::Group(_));
    let size = scheme.group_size(columns);
    let plain = zeros.iter().all(|zero| *zero == 0);
    if version == EncodingsVersion::V1 {
        let half = 1_i64 << (scheme.bits - 1);
        let offsets: Vec<i64> = zeros.iter().map(|zero| -zero - half).collect();
        let mut entry = json!({
            "name": name, "enc_type": if blocks { "PER_BLOCK" } else { "PER_CHANNEL" },
            "dtype": "INT", "bw": scheme.bits, "is_sym": plain,
            "scale": scales, "offset": offsets,
        });
        if blocks {
            entry["block_size"] = json!(size);
        }
        return entry;
    }
    let mut entry = json!({
        "name": name, "output_dtype": format!("int{}", scheme.bits),
        "axis": u8::from(turned != blocks),
    });
    if blocks {
        entry["block_size"] = json!(size);
    }
    let shaped = |values: Vec<Value>| match (blocks, turned) {
        (false, _) => json!(values),
        (true, false) => nested(&values, rows),
        (true, true) => {
            let places: Vec<usize> = (0..values.len()).collect();
            let turned: Vec<Value> =
                turn(&places, rows).into_iter().map(|at| values[at].clone()).collect();
            nested(&turned, values.len() / rows.max(1))
        }
    };
    entry["y_scale"] = shaped(scales.iter().map(|it| json!(it)).collect());
    if !plain {
        entry["y_zero_point"] = shaped(zeros.iter().map(|it| json!(it)).collect());
    }
    entry
}

fn nested(values: &[Value], rows: usize) -> Value {
    let width = (values.len() / rows.max(1)).max(1);
    json!(values.chunks(width).collect::<Vec<_>>())
}

/// The file, an entry at a time: with scales of groups it grows with the model.
struct List<'w> {
    out: &'w mut dyn Write,
    first: bool,
    version: EncodingsVersion,
}

impl List<'_> {
    fn open(&mut self, key: &str) -> io::Result<()> {
        match self.version {
            EncodingsVersion::V1 => write!(self.out, "{{\"version\":\"1.0.0\",\"{key}\":["),
            EncodingsVersion::V2 => write!(self.out, "{{\"version\":\"2.0.0\",\"encodings\":["),
        }
    }

    fn put(&mut self, entry: &Value) -> io::Result<()> {
        let comma = if self.first { "" } else { "," };
        self.first = false;
        write!(self.out, "{comma}\n{entry}")
    }

    /// Ends a list and begins the next one; 2.0.0 has one only.
    fn next(&mut self, key: &str) -> io::Result<()> {
        if self.version == EncodingsVersion::V2 {
            return Ok(());
        }
        self.first = true;
        write!(self.out, "],\n\"{key}\":[")
    }

    fn close(&mut self) -> io::Result<()> {
        match self.version {
            EncodingsVersion::V1 => writeln!(self.out, "],\n\"excluded_layers\":[]}}"),
            EncodingsVersion::V2 => writeln!(self.out, "]}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::IntScheme;

    fn tensor(granularity: Granularity, symmetric: bool) -> QTensor {
        let groups = if granularity == Granularity::Channel { 1 } else { 2 };
        let scales = [0.5, -0.25, 1.0, 2.0][..2 * groups].to_vec();
        let zero_points = if symmetric { vec![] } else { vec![3; 2 * groups] };
        let scheme = IntScheme { bits: 4, symmetric, granularity };
        QTensor {
            scheme,
            shape: [2, 4],
            codes: vec![1, -8, 7, 0, 2, 3, -8, -1],
            scales,
            zero_points,
        }
    }

    /// The number that an encoding of version 1.0.0 gives for a code of its own.
    fn number(entry: &Value, group: usize, code: i64) -> f64 {
        let offset = entry["offset"][group].as_i64().unwrap();
        (code + offset) as f64 * entry["scale"][group].as_f64().unwrap()
    }

    /// Every number of a weight is that of a code within the form's range.
    #[test]
    fn every_number_lies_on_the_grid_that_is_told() {
        for granularity in [Granularity::Channel, Granularity::Group(2)] {
            for symmetric in [true, false] {
                let tensor = tensor(granularity, symmetric);
                let told = weight("w", &tensor, (EncodingsVersion::V1, true));
                let size = tensor.scheme.group_size(4);
                for (at, x) in tensor.dequantize().into_iter().enumerate() {
                    let found = (0..16).any(|code| {
                        (number(&told, at / size, code) - f64::from(x)).abs() < f64::EPSILON
                    });
                    assert!(found, "{granularity:?} {symmetric} {at}: {x} of {told}");
                }
            }
        }
        // By hand: symmetric codes start at −8, mirrored ones at −7.
        let told = weight("w", &tensor(Granularity::Channel, true), (EncodingsVersion::V1, true));
        assert_eq!(told["offset"], json!([-8, -7]));
        assert_eq!((&told["is_sym"], &told["enc_type"]), (&json!(false), &json!("PER_CHANNEL")));
    }

    #[test]
    fn parameters_stand_as_the_graph_has_them() {
        let told = weight("w", &tensor(Granularity::Group(2), true), (EncodingsVersion::V2, true));
        assert_eq!(told["y_scale"], json!([[0.5, 1.0], [0.25, 2.0]]), "[groups, out]");
        assert_eq!(told["y_zero_point"], json!([[0, 0], [-1, 0]]));
        assert_eq!((&told["axis"], &told["block_size"]), (&json!(0), &json!(2)));
        let told = weight("w", &tensor(Granularity::Group(2), true), (EncodingsVersion::V2, false));
        assert_eq!(told["y_scale"], json!([[0.5, 0.25], [1.0, 2.0]]), "[out, groups]");
        assert_eq!(told["axis"], 1);
    }

    #[test]
    fn grids_go_where_the_numbers_go() {
        let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
            input: inputs.iter().map(|it| (*it).to_owned()).collect(),
            output: vec![output.to_owned()],
            op_type: Some(op.to_owned()),
            ..NodeProto::default()
        };
        let nodes = [
            node("Reshape", &["v", "shape"], "heads"),
            node("Transpose", &["heads"], "tokens"),
            node("Concat", &["past_key_values.0.value", "tokens"], "present.0.value"),
            node("Mul", &["v", "v"], "square"),
        ];
        let grid = ActivationGrid { bits: 8, scale: 0.1, zero_point: 7 };
        let spread = spread(&nodes, &BTreeMap::from([("v".to_owned(), grid)]));
        let names: Vec<_> = spread.keys().map(String::as_str).collect();
        assert_eq!(names, ["heads", "past_key_values.0.value", "present.0.value", "tokens", "v"]);
    }
}
