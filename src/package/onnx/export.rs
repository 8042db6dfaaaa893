//! A model as an ONNX folder.
use super::{
    OnnxError,
    data::{self, DataQueue},
    decoder::{self, Ends},
    graph::{Builder, DOMAIN},
    names::{
        CONFIG_KEY, DATA_FILE, FORM, FORM_KEY, GRAPH_FILE, GRIDS_KEY, HASHES_KEY, INPUT_SCALES_KEY,
        PACKAGE_KEY, PRODUCER, SCHEMES_KEY, SOURCE_KEY, is_turned,
    },
    proto::{
        DataType, EXTERNAL, GraphProto, ModelProto, NodeProto, OperatorSet, Pair, TensorProto,
    },
    stored::Stored,
};
use crate::{
    checkpoint::{FileRecord, Folder, OutputDir, sha256},
    model::{Input, Model, ModelSpec, Role, RopeScaling},
    package::format::GraphForm,
    progress::{Progress, Unit},
    scheme::{ActivationGrid, KvPrecision, TensorScheme},
    tensor::FloatType,
};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Tensors of fewer bytes stay in the graph.
const SMALL: usize = 1024;
/// Offsets that systems can map: pages, and larger ones for large tensors.
const PAGE: u64 = 4096;
const LARGE_PAGE: u64 = 65536;
const LARGE: usize = 1 << 20;

/// What is to be written.
#[derive(Clone, Copy, Debug)]
pub struct ExportOptions<'a> {
    /// How quantized weights and activations are said.
    pub form: GraphForm,
    /// Type of the matrices that are not quantized; everything is computed in float32.
    pub float: FloatType,
    /// SHA-256 of the manifest of the package, and of its source's tensors.
    pub chain: Option<(&'a str, &'a str)>,
}

/// Entries of stored tensors and their hashes, by name.
type Entries = BTreeMap<String, (TensorProto, String)>;

/// What an export needs to know before it writes.
pub struct Export<'a> {
    model: &'a Model,
    options: ExportOptions<'a>,
    nodes: Vec<NodeProto>,
    stored: Vec<Stored<'a>>,
    grids: BTreeMap<String, ActivationGrid>,
    ends: Ends,
}

/// Whether there is a graph of this architecture; asked before there are weights.
pub fn accepts(spec: &ModelSpec) -> Result<(), OnnxError> {
    if spec.blocks.is_empty() { Err(OnnxError::NoBlocks) } else { Ok(()) }
}

impl<'a> Export<'a> {
    /// Builds the graph. Nothing is written.
    pub fn plan(model: &'a Model, options: ExportOptions<'a>) -> Result<Self, OnnxError> {
        accepts(&model.spec)?;
        let mut builder = Builder::new(model, options.form, options.float);
        let ends = decoder::build(&mut builder)?;
        let grids = builder.all_grids();
        let Builder { nodes, stored, .. } = builder;
        Ok(Self { model, options, nodes, stored, grids, ends })
    }

    /// How the graph says what is quantized.
    pub fn form(&self) -> GraphForm {
        self.options.form
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Number of stored tensors.
    pub fn tensors(&self) -> usize {
        self.stored.len()
    }

    /// Bytes of all stored tensors.
    pub fn bytes(&self) -> u64 {
        self.stored.iter().map(|it| it.bytes() as u64).sum()
    }

    /// What the graph does otherwise than the model's own runtime.
    pub fn notes(&self) -> Vec<String> {
        let spec = &self.model.spec;
        let mut notes = Vec::new();
        let positions = spec.max_positions.max(1);
        match &spec.rope.scaling {
            RopeScaling::Dynamic { .. } => notes.push(format!(
                "rotary frequencies grow beyond {positions} positions; the graph ends there"
            )),
            RopeScaling::LongRope { original, short, long, .. }
                if short != long && *original < positions =>
            {
                notes.push(format!(
                    "rotary frequencies change beyond {original} positions: keys in the cache keep \
                     the old ones unless the text is computed anew"
                ));
            }
            _ => {}
        }
        if spec.kv_cache != KvPrecision::Float {
            notes.push("keys and values are inputs and outputs in float32: how they are held is the engine's choice".into());
        }
        if spec.blocks.iter().any(|it| matches!(it.mlp, crate::model::Mlp::Experts { .. })) {
            notes.push(
                "every expert is computed for every token: plain operators cannot skip".into(),
            );
        }
        let extras = self.model.extras().into_iter();
        notes.extend(extras.map(|name| format!("tensor `{name}`: unknown, left out")));
        notes
    }

    /// Writes graph, weights and the files beside them, a tensor at a time; gives what was written.
    pub fn write(
        &self,
        output: &OutputDir,
        folder: &Folder,
        progress: &dyn Progress,
    ) -> Result<BTreeMap<String, FileRecord>, OnnxError> {
        Self::write_all(&[(GRAPH_FILE, self)], output, folder, progress)
    }

    /// The same for several graphs of a model by their files, which share what is stored.
    pub(super) fn write_all(
        graphs: &[(&str, &Self)],
        output: &OutputDir,
        folder: &Folder,
        progress: &dyn Progress,
    ) -> Result<BTreeMap<String, FileRecord>, OnnxError> {
        let Some((_, first)) = graphs.first() else { return Ok(BTreeMap::new()) };
        let mut names = BTreeSet::new();
        let stored = graphs.iter().flat_map(|(_, export)| &export.stored);
        let stored: Vec<&Stored<'_>> = stored.filter(|it| names.insert(&it.name)).collect();
        let (tensors, data) = first.write_data(&stored, output, progress)?;
        let mut files = BTreeMap::from([(DATA_FILE.to_owned(), data)]);
        for (name, export) in graphs {
            let bytes = export.graph(&tensors).encode_to_vec();
            files.insert((*name).to_owned(), output.write(name, &bytes)?);
        }
        files.extend(first.write_beside(output, folder)?);
        Ok(files)
    }

    /// Writes `config.json`, tokenizer and what else belongs to the model.
    pub(super) fn write_beside(
        &self,
        output: &OutputDir,
        folder: &Folder,
    ) -> Result<BTreeMap<String, FileRecord>, OnnxError> {
        let mut files = BTreeMap::new();
        let config = serde_json::to_vec_pretty(&self.config()).unwrap_or_default();
        files.insert("config.json".to_owned(), output.write("config.json", &config)?);
        for name in folder.side_files()? {
            if let Some(bytes) = folder.read(&name)? {
                let record = output.write(&name, &bytes)?;
                files.insert(name, record);
            }
        }
        Ok(files)
    }

    /// The file of the graph with the entries of its tensors.
    fn graph(&self, tensors: &Entries) -> ModelProto {
        let own = self.stored.iter().filter_map(|it| tensors.get(&it.name));
        let (initializer, hashes): (Vec<TensorProto>, Vec<String>) = own.cloned().unzip();
        let graph = GraphProto {
            node: self.nodes.clone(),
            name: Some("decoder".into()),
            initializer,
            input: self.ends.inputs.clone(),
            output: self.ends.outputs.clone(),
        };
        let version = |domain: &str, version| OperatorSet {
            domain: Some(domain.to_owned()),
            version: Some(version),
        };
        let mut opset_import = vec![version("", self.options.form.opset())];
        if self.nodes.iter().any(|node| node.domain.as_deref() == Some(DOMAIN)) {
            opset_import.push(version(DOMAIN, 1));
        }
        ModelProto {
            ir_version: Some(self.options.form.ir_version()),
            producer_name: Some(PRODUCER.into()),
            producer_version: Some(env!("CARGO_PKG_VERSION").into()),
            graph: Some(graph),
            opset_import,
            metadata_props: self.metadata(&hashes),
        }
    }

    /// `config.json` without what says how a package's own files hold the weights.
    fn config(&self) -> serde_json::Value {
        let mut config = self.model.config.clone();
        if let Some(config) = config.as_object_mut() {
            config.remove("quantization_config");
        }
        crate::model::family::without_extra_layers(&mut config);
        config
    }

    fn metadata(&self, hashes: &[String]) -> Vec<Pair> {
        let pair = |key: &str, value: String| Pair { key: Some(key.into()), value: Some(value) };
        let mut pairs = vec![
            pair(FORM_KEY, FORM.into()),
            pair(CONFIG_KEY, self.config().to_string()),
            pair(HASHES_KEY, serde_json::to_string(hashes).unwrap_or_default()),
        ];
        if self.options.form == GraphForm::Qdq {
            let weights = &self.model.weights;
            let quantized: BTreeMap<&str, (TensorScheme, [usize; 2])> =
                weights.quantized.iter().map(|(name, it)| (name.as_str(), *it)).collect();
            let text = |it| serde_json::to_string(it).unwrap_or_default();
            pairs.push(pair(SCHEMES_KEY, text(&quantized)));
            let grids = serde_json::to_string(&weights.activations).unwrap_or_default();
            pairs.push(pair(GRIDS_KEY, grids));
            let scale = |name: &str| match weights.input(name) {
                Ok(Input::Int8Static(scale)) => Some(scale),
                _ => None,
            };
            let names = weights.quantized.keys();
            let scales: BTreeMap<_, _> =
                names.filter_map(|name| Some((name.as_str(), scale(name)?))).collect();
            let scales = serde_json::to_string(&scales).unwrap_or_default();
            pairs.push(pair(INPUT_SCALES_KEY, scales));
        }
        if let Some((package, source)) = self.options.chain {
            pairs.push(pair(PACKAGE_KEY, package.into()));
            pairs.push(pair(SOURCE_KEY, source.into()));
        }
        pairs
    }

    /// Writes the weights; gives the entry and the hash of each tensor by its name, and what the file is.
    fn write_data(
        &self,
        stored: &[&Stored<'_>],
        output: &OutputDir,
        progress: &dyn Progress,
    ) -> Result<(Entries, FileRecord), OnnxError> {
        progress.start("export", stored.iter().map(|it| it.bytes() as u64).sum(), Unit::Bytes);
        let written =
            data::write(output.hashed(DATA_FILE)?, |queue| self.entries(stored, &queue, progress));
        progress.finish();
        let (entries, hashes, record) = written?;
        let mut hashes = hashes.into_iter();
        let hashed = |entry: TensorProto| {
            let hash = match &entry.raw_data {
                Some(bytes) => sha256(bytes),
                None => hashes.next().unwrap_or_default(),
            };
            (entry.name.clone().unwrap_or_default(), (entry, hash))
        };
        Ok((entries.into_iter().map(hashed).collect(), record))
    }

    /// The entries of all tensors; the bytes of large ones go into the queue.
    fn entries(
        &self,
        stored: &[&Stored<'_>],
        queue: &DataQueue,
        progress: &dyn Progress,
    ) -> Result<Vec<TensorProto>, OnnxError> {
        let (mut end, mut entries) = (0_u64, Vec::new());
        for stored in stored {
            let mut entry = TensorProto {
                dims: stored.shape.iter().map(|dim| *dim as i64).collect(),
                data_type: Some(stored.kind.id()),
                name: Some(stored.name.clone()),
                ..TensorProto::default()
            };
            let (mut small, mut made) = (Vec::new(), 0);
            let large = stored.bytes() >= SMALL;
            let page = if stored.bytes() < LARGE { PAGE } else { LARGE_PAGE };
            let offset = end.next_multiple_of(page);
            if large {
                queue.gap((offset - end) as usize);
            }
            stored.write(self.model, &mut |piece| {
                made += piece.len();
                if large {
                    queue.append(piece);
                    progress.advance(piece.len() as u64);
                } else {
                    small.extend_from_slice(piece);
                }
                Ok(())
            })?;
            if made != stored.bytes() {
                return Err(OnnxError::Form { what: format!("tensor `{}`", stored.name) });
            }
            if large {
                queue.end();
                end = offset + made as u64;
                entry.external_data = place(offset, made);
                entry.data_location = Some(EXTERNAL);
            } else {
                entry.raw_data = Some(small);
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The model that is written.
    pub(super) fn model(&self) -> &'a Model {
        self.model
    }

    /// Every stored tensor.
    pub(super) fn stored(&self) -> &[Stored<'a>] {
        &self.stored
    }

    /// The nodes in the order of computing.
    pub(super) fn node_list(&self) -> &[NodeProto] {
        &self.nodes
    }

    /// Inputs that are no weights.
    pub(super) fn input_names(&self) -> impl Iterator<Item = &str> {
        self.ends.inputs.iter().filter_map(|it| it.name.as_deref())
    }

    /// Names of stored tensors that hold floats, in the order of the file.
    pub(super) fn stored_names(&self) -> Vec<&str> {
        let floats = self.stored.iter().filter(|it| !matches!(it.kind, DataType::Int64));
        unique(floats.map(|it| it.name.as_str()))
    }

    /// Whether a weight is stored as `[in, out]`.
    pub(super) fn is_turned(&self, name: &str) -> bool {
        self.model.spec.tensors.iter().find(|it| it.name == name).is_some_and(is_turned)
    }

    /// Whether a tensor is the table of embeddings.
    pub(super) fn is_table(&self, name: &str) -> bool {
        self.model.spec.tensors.iter().any(|it| it.name == name && it.role == Role::Embed)
    }

    /// Static grids by value of the graph.
    pub(super) fn grids(&self) -> &BTreeMap<String, ActivationGrid> {
        &self.grids
    }
}

/// Where the bytes of a tensor are.
fn place(offset: u64, length: usize) -> Vec<Pair> {
    let pair = |key: &str, value: String| Pair { key: Some(key.into()), value: Some(value) };
    vec![
        pair("location", DATA_FILE.into()),
        pair("offset", offset.to_string()),
        pair("length", length.to_string()),
    ]
}

/// Names, each once, in order.
fn unique<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}
