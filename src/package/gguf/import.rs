//! A GGUF file as a Hugging Face directory.
use super::{
    arch::{Arch, interleaved_row},
    config,
    error::{ContentError, GgufError},
    experts::file_shape,
    file::Gguf,
    names::{ROPE_FACTORS, place, tensor_name},
    parse::{TensorInfo, without_ones},
    tokens::Tokens,
};
use crate::{
    checkpoint::{DEFAULT_SHARD_BYTES, OutputDir, ShardWriter, TensorPlan, find_nonfinite},
    model::{Expert, ModelSpec, OpenError, Part, Role, Space, TensorSpec},
    progress::{Progress, Unit},
    tensor::{Bytes, FloatType, RawTensor},
    text::{TextError, TextFiles, Tokenizer},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Weights that are decoded at a time.
const CHUNK: usize = 1 << 20;

/// What an import needs to know before it writes.
#[derive(Debug)]
pub struct Import<'a> {
    gguf: &'a Gguf,
    float: FloatType,
    /// NaN and infinity are taken over.
    pub allow_nonfinite: bool,
    config: Value,
    generation: Value,
    tokenizer: Vec<u8>,
    tokenizer_config: Value,
    /// In the order of the output's names.
    tensors: Vec<Source>,
}

/// A tensor of the output.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    /// Of a stack the part of one expert; shaped as in the output.
    pub(super) info: TensorInfo,
    /// Width of the heads whose rows are interleaved in the file.
    pub(super) interleaved: Option<usize>,
    /// What the file adds to the values.
    pub(super) offset: f32,
}

impl<'a> Import<'a> {
    /// Reads the metadata and finds every tensor. Nothing is written.
    pub fn plan(gguf: &'a Gguf, float: FloatType) -> Result<Self, GgufError> {
        Self::plan_content(gguf, float).map_err(|source| content(gguf, source))
    }

    fn plan_content(gguf: &'a Gguf, float: FloatType) -> Result<Self, ContentError> {
        let tokens = Tokens::read(gguf)?;
        let config = config::config(gguf, &tokens, float)?;
        let spec =
            ModelSpec::from_config(&config).map_err(|error| Box::new(OpenError::Config(error)))?;
        let import = Self {
            gguf,
            float,
            allow_nonfinite: false,
            tensors: sources(gguf, &spec)?,
            config,
            generation: config::generation_config(&tokens),
            tokenizer: tokens.tokenizer_json()?,
            tokenizer_config: tokens.tokenizer_config()?,
        };
        import.check_tokenizer(spec.vocab).map_err(Box::new)?;
        Ok(import)
    }

    /// Reads the tokenizer that will be written as every later verb will.
    fn check_tokenizer(&self, vocab: usize) -> Result<(), TextError> {
        let (config, generation) = (self.tokenizer_config.to_string(), self.generation.to_string());
        let files = TextFiles {
            tokenizer: &self.tokenizer,
            tokenizer_config: Some(&config),
            generation_config: Some(&generation),
            ..TextFiles::default()
        };
        Tokenizer::new(&files)?.check_vocabulary(vocab)
    }

    /// Number of tensors of the output.
    pub fn tensors(&self) -> usize {
        self.tensors.len()
    }

    /// Number of parameters of the output.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(|t| t.info.shape.iter().product::<usize>() as u64).sum()
    }

    /// Tensors that the architecture does not know. They are carried over under their names.
    pub fn extras(&self) -> Vec<&str> {
        let known = |t: &&Source| t.name == t.info.name;
        self.tensors.iter().filter(known).map(|t| t.name.as_str()).collect()
    }

    /// The files beside the weights.
    pub(super) fn files(&self) -> BTreeMap<String, Bytes> {
        let json = |value| Bytes::owned(serde_json::to_vec_pretty(value).unwrap_or_default());
        BTreeMap::from([
            ("config.json".into(), json(&self.config)),
            ("generation_config.json".into(), json(&self.generation)),
            ("tokenizer.json".into(), Bytes::owned(self.tokenizer.clone())),
            ("tokenizer_config.json".into(), json(&self.tokenizer_config)),
        ])
    }

    /// Every tensor, in the order of names.
    pub(super) fn sources(&self) -> &[Source] {
        &self.tensors
    }

    /// Writes everything into `dir`, one piece of one tensor in memory at a time.
    pub fn write(&self, dir: &OutputDir, progress: &dyn Progress) -> Result<(), GgufError> {
        for (name, bytes) in self.files() {
            dir.write(&name, &bytes)?;
        }
        let dtype = self.float.dtype();
        let plan =
            |t: &Source| TensorPlan { name: t.name.clone(), dtype, shape: t.info.shape.clone() };
        let plans: Vec<TensorPlan> = self.tensors.iter().map(plan).collect();
        progress.start("import", plans.iter().map(TensorPlan::bytes).sum(), Unit::Bytes);
        let mut writer = ShardWriter::create(dir, plans, DEFAULT_SHARD_BYTES);
        for tensor in &self.tensors {
            self.write_tensor(tensor, &mut writer, progress)?;
            tensor.info.bytes.release();
        }
        writer.finish()?;
        progress.finish();
        Ok(())
    }

    fn write_tensor(
        &self,
        tensor: &Source,
        writer: &mut ShardWriter,
        progress: &dyn Progress,
    ) -> Result<(), GgufError> {
        let shape = tensor.info.shape.clone();
        let width = shape.last().copied().unwrap_or(1);
        // A gain or bias is many rows of one when its order changes, else one row.
        let width = if shape.len() == 1 && tensor.interleaved.is_some() { 1 } else { width };
        let rows = shape.iter().product::<usize>() / width.max(1);
        let raw = RawTensor { dtype: self.float.dtype(), shape, bytes: Bytes::fixed(&[]) };
        let per_chunk = (CHUNK / width.max(1)).max(1);
        let mut values = vec![0.0; per_chunk.min(rows) * width];
        for first in (0..rows).step_by(per_chunk) {
            let count = per_chunk.min(rows - first);
            let values = &mut values[..count * width];
            decode_rows(tensor, first, width, values);
            let mut bytes = Vec::new();
            self.float.encode(values, &mut bytes);
            if !self.allow_nonfinite
                && let Some(found) = find_nonfinite(&tensor.info.name, &raw, &bytes, first)
            {
                let hint = match self.float {
                    FloatType::F16 => "float16 ends at 65504; try --dtype bf16 or f32",
                    _ => "the file is damaged; --allow-nonfinite takes the values over",
                };
                return Err(content(self.gguf, ContentError::NonFinite { found, hint }));
            }
            progress.advance(bytes.len() as u64);
            writer.write(&tensor.name, bytes)?;
        }
        Ok(())
    }
}

fn content(gguf: &Gguf, what: ContentError) -> GgufError {
    GgufError::Content { file: gguf.file.clone(), what: Box::new(what) }
}

/// Decodes rows `first..` of the output. Rows that the file interleaves are picked one by one.
fn decode_rows(tensor: &Source, first: usize, width: usize, values: &mut [f32]) {
    let format = tensor.info.format;
    let row_bytes = width / format.block_len() * format.block_bytes();
    let Some(head) = tensor.interleaved else {
        format.decode(&tensor.info.bytes[first * row_bytes..], values);
        for x in values.iter_mut() {
            *x -= tensor.offset;
        }
        return;
    };
    for (i, out) in values.chunks_exact_mut(width).enumerate() {
        let row = interleaved_row(first + i, head);
        format.decode(&tensor.info.bytes[row * row_bytes..], out);
    }
}

/// Every tensor of the output in the order of names: those of the architecture, then whatever else
/// the file holds.
fn sources(gguf: &Gguf, spec: &ModelSpec) -> Result<Vec<Source>, ContentError> {
    let by_name: BTreeMap<&str, &TensorInfo> =
        gguf.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let interleaves = Arch::of(gguf.architecture()?).is_some_and(Arch::interleaved);
    let mut all = Vec::new();
    for tensor in &spec.tensors {
        let absent = || ContentError::NoTensor { name: tensor.name.clone() };
        let name = tensor_name(tensor).ok_or_else(absent)?;
        let info = piece(by_name.get(name.as_str()).ok_or_else(absent)?, spec, tensor)?;
        let interleaved = head_width(spec, tensor).filter(|_| interleaves);
        if interleaved.is_some() && tensor.input.is_none() && info.format.block_len() > 1 {
            let (what, why) = (format!("tensor `{name}`"), "a bias in blocks of 32".to_owned());
            return Err(ContentError::Unsupported { what, why });
        }
        let (name, offset) = (tensor.name.clone(), spec.offset_of(tensor));
        all.push(Source { name, info, interleaved, offset });
    }
    for info in &gguf.tensors {
        match place(&info.name) {
            _ if info.name == ROPE_FACTORS => {}
            Some((block, role, expert, part)) if spec.find(block, role, expert, part).is_some() => {
            }
            // To leave out a bias or a norm would be to import another model.
            Some((block, ..)) if block.is_none_or(|b| b < spec.blocks.len()) => {
                let (what, family) = (format!("tensor `{}`", info.name), spec.family);
                let why = format!("the architecture {family} has no such tensor");
                return Err(ContentError::Unsupported { what, why });
            }
            _ => {
                let (name, info) = (info.name.clone(), info.clone());
                all.push(Source { name, info, interleaved: None, offset: 0.0 });
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// What is a tensor of the model in one of the file: all of it, or one expert of a stack.
fn piece(
    info: &TensorInfo,
    spec: &ModelSpec,
    tensor: &TensorSpec,
) -> Result<TensorInfo, ContentError> {
    let mut expected = file_shape(spec, tensor);
    let expert = match tensor.expert {
        Some(Expert::Routed(expert)) => Some(expert),
        _ => None,
    };
    if expert.is_some() {
        let router = tensor.block.map_or(0, |b| spec.dim(Space::Experts(b)));
        expected.insert(0, router);
    }
    let part = match expert {
        None => Some(info.bytes.clone()),
        Some(expert) => {
            let size = info.bytes.len() / expected[0].max(1);
            info.bytes.slice(expert * size..(expert + 1) * size)
        }
    };
    match part {
        Some(bytes) if info.shape == without_ones(&expected) => {
            Ok(TensorInfo { shape: spec.shape(tensor), bytes, ..info.clone() })
        }
        _ => {
            let (tensor, found) = (info.name.clone(), info.shape.clone());
            Err(ContentError::Shape { tensor, expected, found })
        }
    }
}

/// Width of the heads of a query or key projection.
pub(super) fn head_width(spec: &ModelSpec, tensor: &TensorSpec) -> Option<usize> {
    let rotated = matches!(tensor.role, Role::Q | Role::K);
    let (Part::Weight | Part::Bias) = tensor.part;
    tensor.block.filter(|_| rotated).map(|b| spec.blocks[b].head_dim)
}
