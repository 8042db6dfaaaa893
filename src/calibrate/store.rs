//! Statistics in a file: collected once, used often.
//!
//! A safetensors file, written block by block (docs/calibration.md has names, types and shapes),
//! with a [`Fingerprint`] as JSON in the metadata under `milm_statistics`.
use super::{
    BlockStatistics, CalibrateError, DataFingerprint, InputStatistics, Moments, Request,
    layout::{Layout, inputs},
};
use crate::{
    checkpoint::{
        CheckpointError, TensorPlan, parse_safetensors, safetensors_header, safetensors_metadata,
    },
    model::{Expert, ModelSpec},
    tensor::{Bytes, Dtype, RawTensor},
};
use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut2};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io::Write, path::PathBuf};

/// Name of the metadata entry.
const KEY: &str = "milm_statistics";
/// Version of the form.
const SCHEMA: u32 = 1;

/// What statistics depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Version of the form.
    pub schema: u32,
    /// The model, as it was named.
    pub model: String,
    /// SHA-256 over its configuration and tensors.
    pub model_sha256: String,
    /// SHA-256 of tokenizer.json.
    pub tokenizer_sha256: String,
    /// The windows.
    pub data: DataFingerprint,
    /// What was collected.
    pub request: Request,
    /// SHA-256 over the reference model whose inputs were multiplied with these, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_sha256: Option<String>,
}

impl Fingerprint {
    /// A fingerprint of this version; `model` is its name and the hash of what it holds.
    pub fn new(
        (model, model_sha256): (&str, &str),
        tokenizer_sha256: &str,
        data: &DataFingerprint,
        request: &Request,
    ) -> Self {
        Self {
            schema: SCHEMA,
            model: model.to_owned(),
            model_sha256: model_sha256.to_owned(),
            tokenizer_sha256: tokenizer_sha256.to_owned(),
            data: data.clone(),
            request: request.clone(),
            reference_sha256: None,
        }
    }

    /// The first thing in which `here` differs, with both values. Names of model and texts may.
    fn difference(&self, here: &Self) -> Option<(String, String, String)> {
        let n = |number: u64| number.to_string();
        let fields = |it: &Self| {
            let mut fields = vec![
                ("schema".to_owned(), n(it.schema.into())),
                ("model hash".into(), it.model_sha256.clone()),
                ("tokenizer hash".into(), it.tokenizer_sha256.clone()),
                ("self-generated text".into(), it.data.self_generated.to_string()),
                ("tokens per sample".into(), n(it.data.tokens as u64)),
                ("number of samples".into(), n(it.data.samples as u64)),
                ("seed".into(), n(it.data.seed)),
                ("number of sources".into(), n(it.data.sources.len() as u64)),
            ];
            for (i, source) in it.data.sources.iter().enumerate() {
                fields.push((format!("hash of source {}", i + 1), source.sha256.clone()));
                fields.push((format!("weight of source {}", i + 1), source.weight.to_string()));
            }
            fields.push(("tokens' hash".into(), it.data.ids_sha256.clone()));
            fields
        };
        let pairs = fields(self).into_iter().zip(fields(here));
        pairs
            .filter(|(stored, here)| stored != here)
            .map(|((what, stored), (_, here))| (what, stored, here))
            .next()
    }
}

/// Bytes of the tensors of a file of statistics.
pub fn statistics_bytes(spec: &ModelSpec, request: &Request) -> u64 {
    Layout::new(spec, request).plan().iter().map(TensorPlan::bytes).sum()
}

/// Writes statistics block by block.
pub struct StatisticsWriter<W: Write> {
    out: W,
    layout: Layout,
    next: usize,
}

impl<W: Write> StatisticsWriter<W> {
    /// Starts with the header.
    pub fn new(
        mut out: W,
        fingerprint: &Fingerprint,
        spec: &ModelSpec,
    ) -> Result<Self, CalibrateError> {
        let layout = Layout::new(spec, &fingerprint.request);
        let text = serde_json::to_string(fingerprint).expect("plain data");
        let plan: Vec<TensorPlan> = layout.plan();
        let header = safetensors_header(&plan, &serde_json::json!({ KEY: text }));
        out.write_all(&header).map_err(failed)?;
        Ok(Self { out, layout, next: 0 })
    }

    /// Appends the next block.
    ///
    /// # Panics
    /// When there are more blocks than the model has, or their statistics have other shapes.
    pub fn block(&mut self, statistics: &BlockStatistics) -> Result<(), CalibrateError> {
        let plan = self.layout.block(self.next);
        let mut bytes = Vec::new();
        for (role, expert, width) in &self.layout.blocks[self.next].inputs {
            let moments = Moments::new(*width);
            let unseen = || InputStatistics { moments, covariance: None, cross: None };
            let input = statistics.inputs.get(&(*role, *expert));
            let input = input.cloned().unwrap_or_else(unseen);
            bytes.extend(input.moments.tokens.to_le_bytes());
            let wide = input.moments.sum.iter().chain(&input.moments.sum_squares);
            bytes.extend(wide.flat_map(|x| x.to_le_bytes()));
            bytes.extend(input.moments.abs_max.iter().flat_map(|x| x.to_le_bytes()));
            if self.layout.covariance(*role) {
                let covariance =
                    input.covariance.unwrap_or_else(|| Array2::zeros((*width, *width)));
                upper(covariance.view(), &mut bytes);
            }
            if self.layout.cross(*role, *expert) {
                let cross = input.cross.unwrap_or_else(|| Array2::zeros((*width, *width)));
                bytes.extend(cross.iter().flat_map(|x| x.to_le_bytes()));
            }
        }
        let wide = statistics.queries.iter().chain(&statistics.keys);
        bytes.extend(wide.flat_map(|x| x.to_le_bytes()));
        for head in statistics.heads.iter().flat_map(|heads| heads.outer_iter()) {
            upper(head, &mut bytes);
        }
        let stream = [statistics.influence, statistics.energy, statistics.tokens as f64];
        bytes.extend(stream.iter().flat_map(|x| x.to_le_bytes()));
        let planned: u64 = plan.iter().map(TensorPlan::bytes).sum();
        assert_eq!(bytes.len() as u64, planned, "statistics of block {}", self.next);
        self.next += 1;
        self.out.write_all(&bytes).map_err(failed)
    }

    /// Gives the output back.
    ///
    /// # Panics
    /// When blocks are missing.
    pub fn finish(mut self) -> Result<W, CalibrateError> {
        assert_eq!(self.next, self.layout.blocks.len(), "all blocks are written");
        self.out.flush().map_err(failed)?;
        Ok(self.out)
    }
}

fn failed(source: std::io::Error) -> CalibrateError {
    CheckpointError::Write { path: PathBuf::from("statistics"), source }.into()
}

/// The upper triangle row by row, the diagonal included.
fn upper(square: ArrayView2<'_, f32>, bytes: &mut Vec<u8>) {
    for (i, row) in square.outer_iter().enumerate() {
        bytes.extend(row.iter().skip(i).flat_map(|x| x.to_le_bytes()));
    }
}

fn fill(mut square: ArrayViewMut2<'_, f32>, values: &mut impl Iterator<Item = f32>) {
    for i in 0..square.nrows() {
        for j in i..square.ncols() {
            let value = values.next().unwrap_or_default();
            square[[i, j]] = value;
            square[[j, i]] = value;
        }
    }
}

/// Statistics in a file, memory-mapped.
#[derive(Debug)]
pub struct Statistics {
    fingerprint: Fingerprint,
    tensors: BTreeMap<String, RawTensor>,
}

impl Statistics {
    /// Reads a file's header.
    pub fn open(bytes: Bytes) -> Result<Self, CalibrateError> {
        let wrong = |detail: String| CalibrateError::Form { detail };
        let tensors = parse_safetensors(&bytes)
            .map_err(|source| CalibrateError::Header { source: Box::new(source) })?;
        let text = safetensors_metadata(&bytes, KEY)
            .ok_or_else(|| wrong(format!("no metadata `{KEY}`")))?;
        let fingerprint: Fingerprint =
            serde_json::from_str(&text).map_err(|error| wrong(format!("metadata: {error}")))?;
        if fingerprint.schema != SCHEMA {
            return Err(wrong(format!("schema {}, known is {SCHEMA}", fingerprint.schema)));
        }
        Ok(Self { fingerprint, tensors })
    }

    /// What they depend on.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Refuses statistics that were made with something else, or hold less than `here` requests.
    pub fn check(&self, here: &Fingerprint) -> Result<(), CalibrateError> {
        if let Some((what, stored, here)) = self.fingerprint.difference(here) {
            return Err(CalibrateError::Stale { what, stored, here });
        }
        let (stored, wanted) = (&self.fingerprint.request, &here.request);
        let covers = stored.covariance.is_superset(&wanted.covariance);
        if covers && (stored.heads || !wanted.heads) {
            return Ok(());
        }
        let told = |request: &Request| {
            let heads = if request.heads { ", heads" } else { "" };
            format!("covariances of {:?}{heads}", request.covariance)
        };
        let (stored, here) = (told(stored), told(wanted));
        Err(CalibrateError::Stale { what: "less than is needed:".into(), stored, here })
    }

    /// Refuses a file whose tensors do not fit a model.
    pub fn check_shapes(&self, spec: &ModelSpec) -> Result<(), CalibrateError> {
        let layout = Layout::new(spec, &self.fingerprint.request);
        for plan in layout.plan() {
            let found = self.tensors.get(&plan.name).map(|it| (it.dtype, it.shape.clone()));
            if found != Some((plan.dtype, plan.shape.clone())) {
                let TensorPlan { name, dtype, shape } = plan;
                let detail = format!("`{name}` should be {dtype:?} {shape:?}, found {found:?}");
                return Err(CalibrateError::Form { detail });
            }
        }
        Ok(())
    }

    /// The statistics of a block. Covariances are whole: both triangles.
    pub fn block(&self, block: usize) -> Result<BlockStatistics, CalibrateError> {
        let mut all = BlockStatistics::default();
        let prefix = format!("blocks.{block}.");
        for (role, expert, name) in inputs(self.tensors.keys(), &prefix) {
            let of = |part: &str| format!("{prefix}inputs.{name}.{part}");
            let bytes = self.bytes(&of("tokens"), Dtype::U64, Some(1))?;
            let tokens =
                u64::from_le_bytes(bytes.as_chunks::<8>().0.first().copied().unwrap_or_default());
            let sum = self.wide(&of("sum"), None)?;
            let width = sum.len();
            let moments = Moments {
                tokens,
                sum_squares: self.wide(&of("sum_squares"), Some(width))?,
                abs_max: self.narrow(&of("abs_max"), width)?,
                sum,
            };
            if tokens == 0 && matches!(expert, Some(Expert::Routed(_))) {
                continue; // no token was sent there
            }
            let covariance = if self.tensors.contains_key(&of("covariance")) {
                let values = self.narrow(&of("covariance"), triangle(width))?;
                let mut square = Array2::zeros((width, width));
                fill(square.view_mut(), &mut values.into_iter());
                Some(square)
            } else {
                None
            };
            let cross = if self.tensors.contains_key(&of("cross")) {
                let values = self.narrow(&of("cross"), width.saturating_mul(width))?;
                let square = Array2::from_shape_vec((width, width), values);
                Some(square.expect("as many as were asked for"))
            } else {
                None
            };
            all.inputs.insert((role, expert), InputStatistics { moments, covariance, cross });
        }
        all.queries = self.wide(&format!("{prefix}queries"), None)?;
        all.keys = self.wide(&format!("{prefix}keys"), None)?;
        all.heads = self.heads(&format!("{prefix}heads"), all.queries.len())?;
        let stream = self.wide(&format!("{prefix}stream"), Some(3))?;
        (all.influence, all.energy, all.tokens) = (stream[0], stream[1], stream[2] as u64);
        Ok(all)
    }

    fn heads(&self, name: &str, pairs: usize) -> Result<Option<Array3<f32>>, CalibrateError> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        let heads = tensor.shape.first().copied().unwrap_or(0);
        let width = 2 * pairs / heads.max(1);
        let mut values = self.narrow(name, heads.saturating_mul(triangle(width)))?.into_iter();
        let mut all = Array3::zeros((heads, width, width));
        for head in all.outer_iter_mut() {
            fill(head, &mut values);
        }
        Ok(Some(all))
    }

    /// The bytes of a tensor of a type, of `len` elements where that is known.
    fn bytes(&self, name: &str, dtype: Dtype, len: Option<usize>) -> Result<&[u8], CalibrateError> {
        let wrong = |detail| CalibrateError::Form { detail };
        let tensor = self.tensors.get(name).ok_or_else(|| wrong(format!("no tensor `{name}`")))?;
        if tensor.dtype != dtype || len.is_some_and(|len| tensor.len() != len) {
            let (found, shape) = (tensor.dtype, &tensor.shape);
            return Err(wrong(format!(
                "`{name}` is {found:?} {shape:?}, expected {dtype:?} {len:?}"
            )));
        }
        Ok(&tensor.bytes)
    }

    fn wide(&self, name: &str, len: Option<usize>) -> Result<Vec<f64>, CalibrateError> {
        let bytes = self.bytes(name, Dtype::F64, len)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|it| f64::from_le_bytes(*it)).collect())
    }

    fn narrow(&self, name: &str, len: usize) -> Result<Vec<f32>, CalibrateError> {
        let bytes = self.bytes(name, Dtype::F32, Some(len))?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect())
    }
}

/// Values on and above the diagonal.
fn triangle(width: usize) -> usize {
    width.saturating_mul(width.saturating_add(1)) / 2
}
