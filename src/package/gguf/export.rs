//! A model as a GGUF file.
use super::{
    accepts::accepts,
    arch::Arch,
    data::{Sink, Source},
    ends::{Ends, RoundedTensor},
    error::ExportError,
    experts::file_shape,
    gemma3,
    import::head_width,
    metadata::architecture,
    names::{ROPE_FACTORS, key, tensor_name},
    rope::{Rotation, rotation},
    schemes::{self, accepts_schemes, scale_change},
    seal,
    value::Value,
    vocab,
    write::{Entry, Pairs, header, padding},
};
use crate::{
    checkpoint::OutputFile,
    model::{Expert, Model, Role, TensorSpec},
    progress::{Progress, Unit},
    scheme::ggml::{BlockFormat, HalfChange, float_format},
    tensor::{FloatType, RawTensor},
    text::TextFiles,
};

/// What is to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportOptions<'a> {
    /// Float format of the matrices; `None` takes the model's own. Gains and biases are float32.
    pub float: Option<FloatType>,
    /// `tokenizer.ggml.pre`, for pre-tokenizers that are not recognized.
    pub pre: Option<&'a str>,
    /// What embeddings and head are rounded to.
    pub ends: Ends,
    /// SHA-256 of the manifest of the package, and of its source's tensors.
    pub chain: Option<(&'a str, &'a str)>,
}

/// What an export needs to know before it writes.
#[derive(Debug)]
pub struct Export<'a> {
    model: &'a Model,
    arch: Arch,
    float: FloatType,
    ends: Ends,
    /// What float16 changes of scales; none without quantized weights.
    scale_change: Option<HalfChange>,
    pairs: Pairs,
    tensors: Vec<Entry>,
    /// Of each tensor the pieces that it consists of, one behind the other.
    sources: Vec<Vec<Source<'a>>>,
    notes: Vec<String>,
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
        accepts_schemes(spec, &model.weights.quantized)?;
        options.ends.accepts(spec)?;
        let (ends, scale_change) = (options.ends, scale_change(&model.weights)?);
        let mut own = spec.tensors.iter().filter(|it| it.input.is_some());
        let own = own.find_map(|it| model.weights.raw.get(&it.name)?.float_type());
        let float = options.float.or(own).unwrap_or(FloatType::F32);
        let mut notes = notes(model);
        notes.extend(schemes::notes(model, scale_change));
        let (pairs, tensors, sources) = (vec![], vec![], vec![]);
        let mut export =
            Self { model, arch, float, ends, scale_change, pairs, tensors, sources, notes };
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
        let coded: Vec<bool> = export.tensors.iter().map(|it| it.format.block_len() > 1).collect();
        export.pairs.extend(seal::open_pairs(&coded));
        Ok(export)
    }

    /// Adds a tensor of the model, an expert behind those of its stack.
    fn add(&mut self, tensor: &'a TensorSpec) -> Result<(), ExportError> {
        let (model, spec) = (self.model, &self.model.spec);
        let name = tensor_name(tensor).unwrap_or_default();
        let heads = head_width(spec, tensor).filter(|_| self.arch.interleaved());
        let shape = file_shape(spec, tensor);
        let grid = model.weights.quantized.get(&tensor.name);
        let grid = grid.and_then(|(it, [_, columns])| it.weights.blocks(*columns));
        let rounding = self.ends.of(tensor.role);
        let rounding = rounding.filter(|to| grid.is_none_or(|it| it.id() != to.format.id()));
        let (format, source) = match (rounding, grid) {
            (Some(to), _) => (to.format, Source::Rounded { name: &tensor.name, rounding: to }),
            (None, Some(format)) => (format, Source::Codes { name: &tensor.name, heads }),
            (None, None) => {
                let (raw, own) = stored(model, tensor)?;
                let offset = spec.offset_of(tensor);
                // llama.cpp wants vectors and routers in float32.
                let exact = shape.len() == 1 || tensor.role == Role::Router;
                let float = if exact { FloatType::F32 } else { self.float };
                (float_format(float), Source::Stored { tensor: raw, own, float, heads, offset })
            }
        };
        if let Some(Expert::Routed(_)) = tensor.expert {
            self.stack(name, &shape, format, source);
        } else {
            self.push(name, shape, format, source);
        }
        Ok(())
    }

    /// Adds one expert.
    fn stack(
        &mut self,
        name: String,
        shape: &[usize],
        format: &'static dyn BlockFormat,
        source: Source<'a>,
    ) {
        // Stacks of a block are begun one after another: the search is short.
        match self.tensors.iter().rposition(|it| it.name == name) {
            Some(at) => {
                self.tensors[at].shape[0] += 1;
                self.sources[at].push(source);
            }
            None => self.push(name, [&[1], shape].concat(), format, source),
        }
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
        self.sources.push(vec![source]);
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

    /// What storing scales as float16 changes; none without quantized weights.
    pub fn scale_change(&self) -> Option<HalfChange> {
        self.scale_change
    }

    /// Writes the file, one piece of one float tensor, or the codes of one quantized one or of one expert, in
    /// memory at a time.
    pub fn write(
        &self,
        file: &mut OutputFile,
        progress: &dyn Progress,
    ) -> Result<Vec<RoundedTensor>, ExportError> {
        let mut header = header(&self.pairs, &self.tensors);
        file.append(&header)?;
        progress.start("export", self.bytes(), Unit::Bytes);
        let mut sink = Sink::new(file, progress);
        let (mut hashes, mut values) = (Vec::new(), Vec::new());
        for (entry, sources) in self.tensors.iter().zip(&self.sources) {
            for (at, source) in sources.iter().enumerate() {
                source.write(self.model, (entry, at), &mut sink)?;
            }
            let found = sink.hashes();
            hashes.push(found.bytes);
            values.push(found.values);
            sink.file.append(&padding(entry.bytes()))?;
        }
        let rounded = sink.rounded();
        seal::fill(&mut header, &hashes, &values);
        file.patch(0, &header)?;
        progress.finish();
        Ok(rounded)
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
    // `gemma3` has windows; the others only write them.
    let local = model.spec.post_norm().is_some();
    let window = model.spec.blocks.first().and_then(|b| b.window).filter(|_| !local);
    let window = window.filter(|window| *window < model.spec.max_positions).map(|window| {
        format!("llama.cpp ignores the window of attention: texts beyond {window} tokens differ")
    });
    let extras = model.extras().into_iter();
    let extras = extras
        .map(|name| format!("tensor `{name}`: unknown, left out: llama.cpp refuses files with it"));
    window.into_iter().chain(gemma3::note(&model.spec)).chain(extras).collect()
}
