//! The model of an ONNX folder that [`Export`](super::Export) wrote: its tensors, not its graph.
use super::{
    OnnxError,
    names::{
        CONFIG_KEY, DATA_FILE, FORM, FORM_KEY, GRAPH_FILE, GRIDS_KEY, HASHES_KEY, INPUT_SCALES_KEY,
        PRODUCER, SCHEMES_KEY, is_turned,
    },
    proto::{DataType, EXTERNAL, ModelProto, TensorProto},
    stored::{turn, unpacked},
};
use crate::{
    checkpoint::{Folder, sha256},
    model::{ModelSpec, WeightStore},
    scheme::{
        OUTLIER_GRID, OutlierColumns, QTensor, Rounded, Schemes, SplitTensor, TensorScheme,
        WeightGrid,
    },
    tensor::{Bytes, FloatType, RawTensor},
};
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

/// Bytes at the start of a graph that its writer's name stands in.
const HEAD: usize = 32;

/// A stored tensor: element type, shape, bytes.
struct Held {
    kind: DataType,
    shape: Vec<usize>,
    bytes: Bytes,
}

/// What a folder holds.
struct Reader {
    file: String,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Held>,
    /// Their names in the order of the file.
    order: Vec<String>,
}

/// Whether a folder's graph begins with this program's name, as those that it wrote do.
pub(super) fn is_own(folder: &Folder) -> bool {
    let Ok(Some(bytes)) = folder.read(GRAPH_FILE) else { return false };
    let head = &bytes[..bytes.len().min(HEAD)];
    head.windows(PRODUCER.len()).any(|it| it == PRODUCER.as_bytes())
}

/// `config.json` and weights of a folder that this program wrote; all of it is in memory.
pub(super) fn model(folder: &Folder) -> Result<(Value, WeightStore), OnnxError> {
    let reader = Reader::open(folder)?;
    let config: Value = reader.json(CONFIG_KEY)?.ok_or_else(|| reader.foreign())?;
    let spec = ModelSpec::from_config(&config).map_err(|error| reader.damaged(error))?;
    let schemes: Schemes = reader.json(SCHEMES_KEY)?.unwrap_or_default();
    let scales: BTreeMap<String, f32> = reader.json(INPUT_SCALES_KEY)?.unwrap_or_default();
    let mut weights = WeightStore {
        activations: reader.json(GRIDS_KEY)?.unwrap_or_default(),
        ..WeightStore::default()
    };
    for tensor in &spec.tensors {
        let turned = is_turned(tensor);
        let name = &tensor.name;
        let Some((scheme, shape)) = schemes.get(name) else {
            let raw = reader.dense(name, &spec.shape(tensor), turned)?;
            weights.raw.insert(name.clone(), raw);
            continue;
        };
        if shape.as_slice() != spec.shape(tensor) || !matches!(scheme.weights.bits(), 4 | 8) {
            return Err(reader.damaged(format!("the scheme of `{name}`")));
        }
        let rounded = reader.rounded((name, *scheme), *shape, turned)?;
        weights.quantize(name, *scheme, &rounded);
        if let Some(scale) = scales.get(name) {
            weights.set_input_scale(name, *scale);
        }
    }
    Ok((config, weights))
}

/// Names of the tensors whose bytes are not those of the hashes in the graph; empty where the graph
/// itself cannot be read.
pub(super) fn changed_tensors(folder: &Folder) -> Vec<String> {
    let Ok(reader) = Reader::open(folder) else { return Vec::new() };
    let hashes: Vec<String> = reader.json(HASHES_KEY).ok().flatten().unwrap_or_default();
    let differs = |(name, hash): (&String, &String)| {
        let held = reader.tensors.get(name)?;
        let same = sha256(&held.bytes) == *hash;
        held.bytes.release();
        (!same).then(|| name.clone())
    };
    reader.order.iter().zip(&hashes).filter_map(differs).collect()
}

impl Reader {
    fn open(folder: &Folder) -> Result<Self, OnnxError> {
        let file = folder.file_name(GRAPH_FILE);
        let (metadata, tensors) = (BTreeMap::new(), BTreeMap::new());
        let mut reader = Self { file, metadata, tensors, order: Vec::new() };
        let bytes = folder.read(GRAPH_FILE)?.ok_or_else(|| reader.foreign())?;
        let graph = ModelProto::decode(&*bytes).map_err(|error| reader.damaged(error))?;
        for pair in graph.metadata_props {
            reader.metadata.insert(pair.key.unwrap_or_default(), pair.value.unwrap_or_default());
        }
        if reader.metadata.get(FORM_KEY).is_none_or(|form| form != FORM) {
            return Err(reader.foreign());
        }
        let data = folder.read(DATA_FILE)?;
        for tensor in graph.graph.unwrap_or_default().initializer {
            let name = tensor.name.clone().unwrap_or_default();
            let held = held(tensor, data.as_ref());
            let held = held.ok_or_else(|| reader.damaged(format!("tensor `{name}`")))?;
            reader.order.push(name.clone());
            reader.tensors.insert(name, held);
        }
        Ok(reader)
    }

    fn foreign(&self) -> OnnxError {
        OnnxError::Foreign { file: self.file.clone() }
    }

    fn damaged(&self, what: impl ToString) -> OnnxError {
        OnnxError::Damaged { file: self.file.clone(), what: what.to_string() }
    }

    fn json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, OnnxError> {
        let text = self.metadata.get(key).map(|text| serde_json::from_str(text));
        text.transpose().map_err(|error| self.damaged(format!("`{key}`: {error}")))
    }

    /// A tensor of as many elements as this shape has.
    fn get(&self, name: &str, shape: &[usize]) -> Result<&Held, OnnxError> {
        let missing = || self.damaged(format!("tensor `{name}` is missing"));
        let held = self.tensors.get(name).ok_or_else(missing)?;
        // Bytes of int8 are elements.
        let [found, elements] = [&held.shape, shape].map(|it| DataType::Int8.bytes(it));
        if found == elements && found.is_some() {
            return Ok(held);
        }
        let found = &held.shape;
        Err(self.damaged(format!("tensor `{name}`: expected the size {shape:?}, found {found:?}")))
    }

    fn dense(&self, name: &str, shape: &[usize], turned: bool) -> Result<RawTensor, OnnxError> {
        let held = self.get(name, shape)?;
        let float = match held.kind {
            DataType::Float => FloatType::F32,
            DataType::Float16 => FloatType::F16,
            DataType::Bfloat16 => FloatType::Bf16,
            _ => return Err(self.damaged(format!("tensor `{name}` holds no floats"))),
        };
        let rows = shape.get(1).copied().unwrap_or(1);
        let bytes = match (turned, float.size()) {
            (false, _) => held.bytes.clone(),
            (true, 2) => Bytes::owned(turn(held.bytes.as_chunks::<2>().0, rows).concat()),
            (true, _) => Bytes::owned(turn(held.bytes.as_chunks::<4>().0, rows).concat()),
        };
        Ok(RawTensor { dtype: float.dtype(), shape: shape.to_vec(), bytes })
    }

    fn rounded(
        &self,
        (name, scheme): (&str, TensorScheme),
        shape: [usize; 2],
        turned: bool,
    ) -> Result<Rounded, OnnxError> {
        if scheme.outliers == 0 {
            return Ok(self.codes(name, scheme.weights, shape, turned)?.into());
        }
        let [out, columns] = shape;
        let places = self.get(&format!("{name}.outliers.columns"), &[scheme.outliers])?;
        let places = places.bytes.as_chunks::<8>().0.iter().map(|it| i64::from_le_bytes(*it));
        let places = places.map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect();
        let places = OutlierColumns::new(columns, places).map_err(|error| self.damaged(error))?;
        let base = [out, places.base()];
        let base = self.codes(&format!("{name}.base"), scheme.weights, base, turned)?;
        let outliers = [out, scheme.outliers];
        let outliers =
            self.codes(&format!("{name}.outliers"), OUTLIER_GRID.into(), outliers, turned)?;
        Ok(Rounded::Split(SplitTensor::new(places, base, outliers)))
    }

    fn codes(
        &self,
        prefix: &str,
        grid: WeightGrid,
        shape: [usize; 2],
        turned: bool,
    ) -> Result<QTensor, OnnxError> {
        let ([out, columns], scheme) = (shape, grid.integers());
        let uneven = || self.damaged(format!("groups of `{prefix}`"));
        let groups = scheme.groups(columns).ok_or_else(uneven)?;
        let part = |end: &str, width: usize| self.get(&format!("{prefix}.{end}"), &[out, width]);
        let kind = DataType::of_codes(scheme.bits);
        let whole = |held: &Held, width: usize| {
            if held.kind != kind {
                return Err(self.damaged(format!("codes of `{prefix}`")));
            }
            let values = unpacked(&held.bytes, kind, out * width);
            Ok(if turned { turn(&values, width) } else { values })
        };
        let codes = whole(part("codes", columns)?, columns)?;
        let held = part("scale", groups)?;
        let scales = held.bytes.as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it));
        let scales: Vec<f32> = scales.collect();
        if held.kind != DataType::Float || scales.iter().any(|it| !it.is_finite()) {
            return Err(self.damaged(format!("scales of `{prefix}`")));
        }
        let scales = if turned { turn(&scales, groups) } else { scales };
        let zero_points =
            if scheme.symmetric { Vec::new() } else { whole(part("zero_point", groups)?, groups)? };
        let tensor = QTensor { scheme, shape, codes, scales, zero_points };
        if !grid.holds(&tensor) {
            return Err(self.damaged(format!("numbers of `{prefix}` that {grid} does not have")));
        }
        Ok(tensor)
    }
}

/// A tensor's bytes, wherever they are, if they are as many as its shape needs.
fn held(tensor: TensorProto, data: Option<&Bytes>) -> Option<Held> {
    let kind = DataType::of(tensor.data_type?)?;
    let shape: Option<Vec<usize>> =
        tensor.dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
    let shape = shape?;
    let length = kind.bytes(&shape)?;
    let bytes = if tensor.data_location == Some(EXTERNAL) {
        let of = |key: &str| {
            let pair = tensor.external_data.iter().find(|it| it.key.as_deref() == Some(key));
            pair.and_then(|it| it.value.as_deref())
        };
        if of("location")? != DATA_FILE {
            return None;
        }
        let start: usize = of("offset")?.parse().ok()?;
        data?.slice(start..start.checked_add(length)?)?
    } else {
        Bytes::owned(tensor.raw_data?)
    };
    (bytes.len() == length).then_some(Held { kind, shape, bytes })
}
