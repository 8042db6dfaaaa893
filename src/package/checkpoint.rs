//! Writes a rewritten model as a checkpoint or package folder with a manifest.
use super::{
    Declared, MANIFEST_FILE, Manifest, Opened, PackageError, SCHEMA, Source, Tool,
    compressed_tensors,
    format::engines,
    stream::Stream,
    trust::{CARD_FILE, card, quantized_tensors, weight_hash},
    write::{copy_side_files, refuse_over_input},
};
use crate::{
    checkpoint::{OutputDir, ShardWriter, TensorPlan},
    linalg::Team,
    model::Model,
    progress::{Progress, Unit},
    quantize::Method,
    scheme::KvPrecision,
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// A model that was made from the one that was opened: of another shape, or quantized.
#[derive(Clone, Copy)]
pub struct Rewritten<'a> {
    /// The model that it was made from.
    pub opened: &'a Opened,
    /// SHA-256 of that model's tensors, see [`Source`].
    pub source_sha256: &'a str,
    /// The model to write.
    pub model: &'a Model,
    /// Stored in the manifest: the resolved recipe.
    pub recipe: &'a Value,
    /// Further files by name.
    pub files: &'a BTreeMap<String, String>,
    /// How scales of quantized weights were chosen.
    pub method: Method,
    /// The largest safetensors file, in bytes.
    pub shard_bytes: u64,
    /// Threads.
    pub team: &'a Team,
    /// Told of the work.
    pub progress: &'a dyn Progress,
}

impl Rewritten<'_> {
    /// Writes the folder. It appears at `target` when it is complete.
    pub fn write(&self, target: &Path, force: bool) -> Result<Manifest, PackageError> {
        refuse_over_input(self.opened, target)?;
        let raw = &self.model.weights.raw;
        let bytes = |raw: &BTreeMap<String, crate::tensor::RawTensor>| {
            raw.values().map(|tensor| tensor.bytes.len() as u64).sum::<u64>()
        };
        let output = OutputDir::create(target, force)?;
        let plans = raw.iter().map(|(name, it)| TensorPlan {
            name: name.clone(),
            dtype: it.dtype,
            shape: it.shape.clone(),
        });
        let mut writer = ShardWriter::create(&output, plans.collect(), self.shard_bytes);
        self.progress.start("write", bytes(raw), Unit::Bytes);
        let (team, progress) = (self.team, self.progress);
        let mut stream = Stream { writer: &mut writer, team, progress, allow_nonfinite: false };
        let copied = raw.iter().try_for_each(|(name, tensor)| stream.copy(name, tensor));
        self.progress.finish();
        copied?;
        let written = writer.finish()?;
        let mut files = written.files;
        files.extend(copy_side_files(self.opened, &output)?);
        let schemes = &self.model.weights.quantized;
        let is_plain = schemes.is_empty() && self.model.spec.kv_cache == KvPrecision::Float;
        let described =
            (!is_plain).then(|| compressed_tensors::describe(self.model, schemes, self.method));
        let (config, beyond) = match described {
            Some(description) => (description.config, description.beyond),
            None => (self.model.config.clone(), Vec::new()),
        };
        let engines = engines(Declared { spec: &self.model.spec, config: &config, schemes });
        let config = format!("{config:#}\n");
        let own = self.files.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        for (name, text) in own.chain([("config.json", config.as_str())]) {
            files.insert(name.to_owned(), output.write(name, text.as_bytes())?);
        }
        let mut manifest = Manifest {
            schema: SCHEMA,
            tool: Tool::default(),
            source: Source::of(self.opened, self.source_sha256.to_owned()),
            recipe: self.recipe.clone(),
            quantized: quantized_tensors(schemes),
            activations: self.model.weights.activations.clone(),
            export: None,
            beyond_standard: beyond,
            carried: self.model.extras().into_iter().map(str::to_owned).collect(),
            left_out: self.left_out(),
            evaluation: None,
            files,
            tensors: written.tensors,
            sha256: String::new(),
        };
        manifest.set_values(self.values()?);
        let card = output.write(CARD_FILE, card(&manifest, &engines).as_bytes())?;
        manifest.files.insert(CARD_FILE.to_owned(), card);
        output.write(MANIFEST_FILE, manifest.sealed().as_bytes())?;
        output.commit()?;
        Ok(manifest)
    }

    /// Tensors beside the architecture that are not there any more.
    fn left_out(&self) -> Vec<String> {
        let before = self.opened.model.extras().into_iter();
        let gone = before.filter(|name| !self.model.weights.raw.contains_key(*name));
        gone.map(str::to_owned).collect()
    }

    /// What the codes of each quantized weight stand for.
    fn values(&self) -> Result<BTreeMap<String, String>, PackageError> {
        let weights = &self.model.weights;
        let hash = |name: &String| {
            let hash = weight_hash(&weights.get(name)?, self.team);
            weights.release(name);
            Ok((name.clone(), hash))
        };
        weights.quantized.keys().map(hash).collect()
    }
}
