//! A model as a GGUF file.
use super::{
    arch::{Arch, Rotation, accepts, halved_row, rotation},
    error::ExportError,
    import::head_width,
    metadata::architecture,
    names::{ROPE_FACTORS, gguf_name},
    vocab,
    write::{Entry, Pairs, header, padding},
};
use crate::{
    checkpoint::{OutputFile, find_nonfinite},
    model::{Model, TensorSpec},
    progress::{Progress, Unit},
    scheme::ggml::float_format,
    tensor::{Bytes, FloatType, RawTensor},
    text::TextFiles,
};

/// Weights that are converted at a time.
const CHUNK: usize = 1 << 20;

/// What is to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportOptions<'a> {
    /// Float format of the matrices; `None` takes the model's own. Gains and biases are float32.
    pub float: Option<FloatType>,
    /// `tokenizer.ggml.pre`, for pre-tokenizers that are not recognized.
    pub pre: Option<&'a str>,
}

/// What an export needs to know before it writes.
#[derive(Debug)]
pub struct Export<'a> {
    arch: Arch,
    float: FloatType,
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
        let stored: Vec<_> =
            spec.tensors.iter().map(|t| stored(model, t)).collect::<Result<_, _>>()?;
        // Matrices come first in `spec.tensors`: the embedding is one.
        let own = stored.first().map_or(FloatType::F32, |(_, float)| *float);
        let float = options.float.unwrap_or(own);
        let mut pairs = architecture(spec, arch, &rotation, float);
        pairs.extend(vocab::pairs(text, spec.vocab, options.pre)?);
        let mut export =
            Self { arch, float, pairs, tensors: vec![], sources: vec![], notes: notes(model) };
        for (tensor, (raw, own)) in spec.tensors.iter().zip(stored) {
            let name = gguf_name(tensor.block, tensor.role, tensor.part).unwrap_or_default();
            let float = if raw.shape.len() == 1 { FloatType::F32 } else { float };
            let heads = head_width(spec, tensor).filter(|_| arch.interleaved());
            let source = Source::Stored { tensor: raw, float: own, heads };
            export.push(name, raw.shape.clone(), float, source);
        }
        if let Rotation::Factors(factors) = rotation {
            let shape = vec![factors.len()];
            export.push(ROPE_FACTORS.into(), shape, FloatType::F32, Source::Computed(factors));
        }
        Ok(export)
    }

    fn push(&mut self, name: String, shape: Vec<usize>, float: FloatType, source: Source<'a>) {
        self.tensors.push(Entry { name, shape, format: float_format(float) });
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

    /// Writes the file, one piece of one tensor in memory at a time.
    pub fn write(&self, file: &mut OutputFile, progress: &dyn Progress) -> Result<(), ExportError> {
        file.append(&header(&self.pairs, &self.tensors))?;
        progress.start("export", self.bytes(), Unit::Bytes);
        for (entry, source) in self.tensors.iter().zip(&self.sources) {
            match source {
                Source::Computed(values) => {
                    let mut bytes = Vec::new();
                    FloatType::F32.encode(values, &mut bytes);
                    file.append(&bytes)?;
                }
                Source::Stored { tensor, float, heads } => {
                    self.write_tensor(entry, (tensor, *float, *heads), file, progress)?;
                    tensor.bytes.release();
                }
            }
            file.append(&padding(entry.bytes()))?;
        }
        progress.finish();
        Ok(())
    }

    fn write_tensor(
        &self,
        entry: &Entry,
        (source, own, heads): (&RawTensor, FloatType, Option<usize>),
        file: &mut OutputFile,
        progress: &dyn Progress,
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
            file.append(&bytes)?;
            progress.advance(bytes.len() as u64);
        }
        Ok(())
    }
}

/// The stored floats of a tensor.
fn stored<'a>(
    model: &'a Model,
    tensor: &TensorSpec,
) -> Result<(&'a RawTensor, FloatType), ExportError> {
    use crate::model::WeightError;
    let name = || tensor.name.clone();
    if model.weights.quantized.contains_key(&tensor.name) {
        return Err(ExportError::Quantized { tensor: name() });
    }
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
