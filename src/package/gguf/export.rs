//! A model as a GGUF file.
use super::{
    arch::{Arch, Rotation, accepts, halved_row, rotation},
    error::{ExportError, Unsupported},
    import::head_width,
    metadata::architecture,
    names::{ROPE_FACTORS, gguf_name, key},
    schemes::{self, accepts_schemes, scale_change},
    value::{Array, Value, write_text},
    vocab,
    write::{Entry, Pairs, header, padding},
};
use crate::{
    checkpoint::{OutputFile, find_nonfinite, hex},
    model::{Model, TensorSpec, Weight},
    progress::{Progress, Unit},
    scheme::ggml::{BlockFormat, encode_row, float_format, grid_format},
    tensor::{Bytes, FloatType, RawTensor},
    text::TextFiles,
};
use sha2::{Digest, Sha256};

/// Weights that are converted at a time.
const CHUNK: usize = 1 << 20;

/// What is to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportOptions<'a> {
    /// Float format of the matrices; `None` takes the model's own. Gains and biases are float32.
    pub float: Option<FloatType>,
    /// `tokenizer.ggml.pre`, for pre-tokenizers that are not recognized.
    pub pre: Option<&'a str>,
    /// SHA-256 of the manifest of the package, and of its source's tensors.
    pub chain: Option<(&'a str, &'a str)>,
}

/// What an export needs to know before it writes.
#[derive(Debug)]
pub struct Export<'a> {
    model: &'a Model,
    arch: Arch,
    float: FloatType,
    /// Largest relative change of a scale; none without quantized weights.
    scale_change: Option<f64>,
    pairs: Pairs,
    tensors: Vec<Entry>,
    sources: Vec<Source<'a>>,
    notes: Vec<String>,
}

/// Where the values of a tensor come from.
#[derive(Debug)]
enum Source<'a> {
    /// A tensor of the model; with the width of the heads whose rows change places.
    Stored { tensor: &'a RawTensor, float: FloatType, heads: Option<usize> },
    /// A quantized weight of the model by name, alike.
    Codes { name: &'a str, heads: Option<usize> },
    /// Values that the metadata implies.
    Computed(Vec<f32>),
}

impl<'a> Export<'a> {
    /// Finds architecture, metadata and tensors. Nothing is written.
    pub fn plan(
        model: &'a Model,
        text: &TextFiles<'_>,
        options: ExportOptions<'_>,
    ) -> Result<Self, ExportError> {
        let spec = &model.spec;
        let (arch, rotation) = (accepts(spec)?, rotation(spec)?);
        accepts_schemes(&model.weights.quantized)?;
        let scale_change = scale_change(&model.weights)?;
        let mut own = spec.tensors.iter().filter(|it| it.input.is_some());
        let own = own.find_map(|it| model.weights.raw.get(&it.name)?.float_type());
        let float = options.float.or(own).unwrap_or(FloatType::F32);
        let mut notes = notes(model);
        notes.extend(schemes::notes(model, scale_change));
        let (pairs, tensors, sources) = (vec![], vec![], vec![]);
        let mut export = Self { model, arch, float, scale_change, pairs, tensors, sources, notes };
        for tensor in &spec.tensors {
            export.add(tensor)?;
        }
        export.pairs = architecture(spec, arch, &rotation, export.common_format());
        if let Rotation::Factors(factors) = rotation {
            let (shape, format) = (vec![factors.len()], float_format(FloatType::F32));
            export.push(ROPE_FACTORS.into(), shape, format, Source::Computed(factors));
        }
        export.pairs.extend(vocab::pairs(text, spec.vocab, options.pre)?);
        let said = |key: &str, text: &str| (key.to_owned(), Value::String(text.to_owned()));
        if let Some((package, source)) = options.chain {
            export.pairs.extend([said(key::PACKAGE, package), said(key::SOURCE, source)]);
        }
        let unknown = vec!["0".repeat(HASH); export.tensors.len()];
        export.pairs.push((key::SHA256.into(), Value::Array(Array::Strings(unknown))));
        Ok(export)
    }

    /// Adds a tensor of the model.
    fn add(&mut self, tensor: &'a TensorSpec) -> Result<(), ExportError> {
        let (model, spec) = (self.model, &self.model.spec);
        let name = gguf_name(tensor.block, tensor.role, tensor.part).unwrap_or_default();
        let heads = head_width(spec, tensor).filter(|_| self.arch.interleaved());
        if let Some((scheme, shape)) = model.weights.quantized.get(&tensor.name) {
            let format = grid_format(scheme.weights, shape[1]).expect("accepted before");
            let source = Source::Codes { name: &tensor.name, heads };
            self.push(name, shape.to_vec(), format, source);
            return Ok(());
        }
        let (raw, own) = stored(model, tensor)?;
        let float = if raw.shape.len() == 1 { FloatType::F32 } else { self.float };
        let source = Source::Stored { tensor: raw, float: own, heads };
        self.push(name, raw.shape.clone(), float_format(float), source);
        Ok(())
    }

    /// The format of most weights.
    pub fn common_format(&self) -> &'static str {
        let mut weights = std::collections::BTreeMap::new();
        for tensor in self.tensors.iter().filter(|it| it.shape.len() > 1) {
            let count: usize = tensor.shape.iter().product();
            *weights.entry(tensor.format.name()).or_insert(0) += count;
        }
        weights.into_iter().max_by_key(|(_, count)| *count).map_or("F32", |(name, _)| name)
    }

    fn push(
        &mut self,
        name: String,
        shape: Vec<usize>,
        format: &'static dyn BlockFormat,
        source: Source<'a>,
    ) {
        self.tensors.push(Entry { name, shape, format });
        self.sources.push(source);
    }

    /// The architecture that is written.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Float format of the matrices.
    pub fn float(&self) -> FloatType {
        self.float
    }

    /// Number of tensors of the file.
    pub fn tensors(&self) -> usize {
        self.tensors.len()
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(Entry::bytes).sum()
    }

    /// What a reader of the file does not learn or does not do.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Largest relative change of a scale by its storage as float16; none without quantized weights.
    pub fn scale_change(&self) -> Option<f64> {
        self.scale_change
    }

    /// Writes the file, one piece of one float tensor or the codes of one quantized one in memory at
    /// a time.
    pub fn write(&self, file: &mut OutputFile, progress: &dyn Progress) -> Result<(), ExportError> {
        let header = header(&self.pairs, &self.tensors);
        file.append(&header)?;
        progress.start("export", self.bytes(), Unit::Bytes);
        let mut hashes = Vec::new();
        for (entry, source) in self.tensors.iter().zip(&self.sources) {
            let mut sink = Sink { file: &mut *file, hash: Sha256::new(), progress };
            match source {
                Source::Computed(values) => {
                    let mut bytes = Vec::new();
                    FloatType::F32.encode(values, &mut bytes);
                    sink.put(&bytes)?;
                }
                Source::Stored { tensor, float, heads } => {
                    self.write_tensor(entry, (tensor, *float, *heads), &mut sink)?;
                    tensor.bytes.release();
                }
                Source::Codes { name, heads } => self.write_codes((name, *heads), &mut sink)?,
            }
            hashes.push(hex(&sink.hash.finalize()));
            file.append(&padding(entry.bytes()))?;
        }
        for (at, hash) in hash_places(&header, self.tensors.len()).zip(hashes) {
            file.patch(at as u64, hash.as_bytes())?;
        }
        progress.finish();
        Ok(())
    }

    /// Writes the blocks of a quantized weight.
    fn write_codes(
        &self,
        (name, heads): (&str, Option<usize>),
        sink: &mut Sink<'_>,
    ) -> Result<(), ExportError> {
        let Weight::Quantized { tensor, .. } = self.model.weights.get(name)? else {
            return Err(Unsupported::Outliers { tensor: name.to_owned() }.into());
        };
        let [rows, columns] = tensor.shape;
        let per_chunk = (CHUNK / columns.max(1)).max(1);
        for first in (0..rows).step_by(per_chunk) {
            let mut bytes = Vec::new();
            for row in first..(first + per_chunk).min(rows) {
                encode_row(&tensor, heads.map_or(row, |head| halved_row(row, head)), &mut bytes);
            }
            sink.put(&bytes)?;
        }
        self.model.weights.release(name);
        Ok(())
    }

    fn write_tensor(
        &self,
        entry: &Entry,
        (source, own, heads): (&RawTensor, FloatType, Option<usize>),
        sink: &mut Sink<'_>,
    ) -> Result<(), ExportError> {
        let matrix = entry.shape.len() > 1;
        let float = if matrix { self.float } else { FloatType::F32 };
        // A gain or bias is many rows of one.
        let width = if matrix { entry.shape.iter().skip(1).product::<usize>() } else { 1 };
        let rows = entry.shape.first().copied().unwrap_or(1);
        let raw = RawTensor {
            dtype: float.dtype(),
            shape: entry.shape.clone(),
            bytes: Bytes::fixed(&[]),
        };
        let stride = width * own.size();
        let per_chunk = (CHUNK / width.max(1)).max(1);
        let mut values = vec![0.0; per_chunk.min(rows) * width];
        for first in (0..rows).step_by(per_chunk) {
            let count = per_chunk.min(rows - first);
            let values = &mut values[..count * width];
            for (i, out) in values.chunks_exact_mut(width.max(1)).enumerate() {
                let row = heads.map_or(first + i, |head| halved_row(first + i, head));
                own.decode(&source.bytes[row * stride..], out);
            }
            let mut bytes = Vec::new();
            float.encode(values, &mut bytes);
            if let Some(found) = find_nonfinite(&entry.name, &raw, &bytes, first) {
                let hint = match float {
                    FloatType::F16 => "float16 ends at 65504; try --dtype bf16 or f32",
                    _ => "no engine computes with such a weight; is the checkpoint damaged?",
                };
                return Err(ExportError::NonFinite { found, hint });
            }
            sink.put(&bytes)?;
        }
        Ok(())
    }
}

/// Digits of a hash.
const HASH: usize = 64;

/// Where the hashes of tensors stand in a header, as texts behind their lengths.
fn hash_places(header: &[u8], tensors: usize) -> impl Iterator<Item = usize> {
    let mut text = Vec::new();
    write_text(key::SHA256, &mut text);
    let start = header.windows(text.len()).position(|it| it == text).unwrap_or(0);
    // Type, type of elements and their number; then each with a length of its own.
    let first = start + text.len() + 4 + 4 + 8;
    (0..tensors).map(move |i| first + i * (8 + HASH) + 8)
}

/// Where the bytes of a tensor go.
struct Sink<'a> {
    file: &'a mut OutputFile,
    hash: Sha256,
    progress: &'a dyn Progress,
}

impl Sink<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.hash.update(bytes);
        self.progress.advance(bytes.len() as u64);
        Ok(self.file.append(bytes)?)
    }
}

/// The stored floats of a tensor.
fn stored<'a>(
    model: &'a Model,
    tensor: &TensorSpec,
) -> Result<(&'a RawTensor, FloatType), ExportError> {
    use crate::model::WeightError;
    let name = || tensor.name.clone();
    let raw = model.weights.raw.get(&tensor.name);
    let raw = raw.ok_or_else(|| WeightError::Missing { name: name() })?;
    let float = raw.float_type();
    let float = float.ok_or_else(|| WeightError::Type { name: name(), found: raw.dtype })?;
    Ok((raw, float))
}

fn notes(model: &Model) -> Vec<String> {
    let window = model.spec.blocks.first().and_then(|b| b.window);
    let window = window.filter(|window| *window < model.spec.max_positions).map(|window| {
        format!("llama.cpp ignores the window of attention: texts beyond {window} tokens differ")
    });
    let extras = model.extras().into_iter();
    let extras = extras
        .map(|name| format!("tensor `{name}`: unknown, left out: llama.cpp refuses files with it"));
    window.into_iter().chain(extras).collect()
}
