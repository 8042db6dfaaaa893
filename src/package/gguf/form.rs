//! GGUF files among the forms of models.
use super::{accepts::accepts, inspect, model::model, split::open, verify};
use crate::{
    linalg::Team,
    model::{Model, ModelSpec, RopeScaling},
    package::{
        EngineFit, Inspected, Kind, Opened, PackageError, Verification,
        engines::kept_pairs,
        format::{Format, Place},
    },
    progress::Progress,
};
use serde_json::Value;
use std::path::Path;

/// The ending of the files.
const ENDING: &str = "gguf";

/// A file with metadata, tokenizer and weights in blocks of ggml.
#[derive(Debug)]
pub(in crate::package) struct Form;

impl Format for Form {
    fn name(&self) -> &'static str {
        "gguf"
    }

    fn sniff(&self, place: &Place<'_>) -> bool {
        place.file().and_then(Path::extension).is_some_and(|it| it == ENDING)
    }

    fn is_file(&self) -> bool {
        true
    }

    fn weight_files(&self) -> &'static [&'static str] {
        &[ENDING]
    }

    /// The model with the file's codes; all of it is in memory.
    fn open(&self, name: &str) -> Result<Opened, PackageError> {
        let gguf = open(Path::new(name))?;
        let (folder, weights) = model(&gguf)?;
        let name = gguf.file;
        let files = weights.raw.keys().map(|tensor| (tensor.clone(), name.clone())).collect();
        let kind = Kind::of(&weights);
        let failed = |source| PackageError::Model { name: name.clone(), source: Box::new(source) };
        let model = Model::new(folder.config()?, weights).map_err(failed)?;
        Ok(Opened { model, folder, kind, manifest: None, files, unlisted: Vec::new() })
    }

    fn verify(
        &self,
        name: &str,
        _team: &Team,
        progress: &dyn Progress,
    ) -> Result<Verification, PackageError> {
        verify::verify(name, progress)
    }

    fn decode(
        &self,
        name: &str,
        team: &Team,
        progress: &dyn Progress,
        result: &mut Verification,
    ) -> Result<(), PackageError> {
        verify::decode(name, team, progress, result)
    }

    fn inspect(
        &self,
        name: &str,
        sample: u64,
        team: &Team,
        progress: &dyn Progress,
    ) -> Result<Inspected, PackageError> {
        let figures = inspect::inspect(&open(Path::new(name))?, sample, team, progress)?;
        Ok(Inspected { kind: self.name(), figures })
    }

    fn engines(&self, spec: &ModelSpec, config: &Value) -> Vec<EngineFit> {
        vec![EngineFit::new("llama.cpp", llama_cpp(spec, config), "as GGUF")]
    }
}

/// What the export would say of the file.
fn llama_cpp(spec: &ModelSpec, config: &Value) -> Option<String> {
    // Divisors that are only planned are ones, which the export would leave out.
    let divisors = matches!(spec.rope.scaling, RopeScaling::LongRope { .. });
    if divisors && spec.blocks.iter().any(|block| block.qk_norm) {
        return Some(format!("`{}` takes no rotary divisors there: cut whole heads", spec.family));
    }
    kept_pairs(spec, config).or_else(|| {
        let refusal = accepts(spec).err()?.to_string();
        refusal.lines().next().map(str::to_owned)
    })
}
