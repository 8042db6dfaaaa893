//! ONNX folders among the forms of models.
use super::{
    names::{DATA_FILE, GRAPH_FILE},
    read::{changed_tensors, is_own, model},
};
use crate::{
    checkpoint::{Folder, INDEX_FILE, WEIGHTS_FILE},
    linalg::Team,
    model::Model,
    package::{
        Kind, Manifest, Opened, PackageError, Verification,
        format::{Format, Place},
        verify::by_manifest,
    },
    progress::Progress,
    tensor::Bytes,
};
use std::path::Path;

/// A folder with a decoder as a graph and its weights beside it.
#[derive(Debug)]
pub(in crate::package) struct Form;

impl Format for Form {
    fn name(&self) -> &'static str {
        "onnx"
    }

    /// A graph, or a folder with one. Beside other weights it is this program's own that claims the
    /// folder: hubs put graphs of others beside checkpoints.
    fn sniff(&self, place: &Place<'_>) -> bool {
        let named = place.file().and_then(Path::file_name).is_some_and(|it| it == GRAPH_FILE);
        let alone = !place.has_any(&[WEIGHTS_FILE, INDEX_FILE]);
        let has_graph = place.has_any(&[GRAPH_FILE]);
        named || has_graph && (alone || place.folder().is_some_and(is_own))
    }

    /// The model of a folder that this program wrote, or of its graph; all of it is in memory.
    fn open(&self, name: &str) -> Result<Opened, PackageError> {
        let path = Path::new(name);
        let folder = match path.parent().filter(|_| path.is_file()) {
            Some(parent) => Folder::open(&parent.join(".").to_string_lossy())?,
            None => Folder::open(name)?,
        };
        let manifest = Manifest::read(&folder)?;
        let (config, weights) = model(&folder)?;
        let file = |tensor: &String| (tensor.clone(), GRAPH_FILE.to_owned());
        let files = weights.raw.keys().map(file).collect();
        let kind = Kind::of(&weights);
        if let Some((point, _)) = weights.activations.iter().find(|(_, grid)| !grid.is_sound()) {
            return Err(PackageError::Unsupported { key: "activations", found: point.clone() });
        }
        let name = folder.name().to_owned();
        let failed = |source| PackageError::Model { name, source: Box::new(source) };
        let model = Model::new(config, weights).map_err(failed)?;
        Ok(Opened { model, folder, kind, manifest, files, unlisted: Vec::new() })
    }

    fn verify(
        &self,
        name: &str,
        team: &Team,
        progress: &dyn Progress,
    ) -> Result<Verification, PackageError> {
        let changed = |folder: &Folder, _: &Manifest, file: &str, _: &Bytes| {
            let names = if file == DATA_FILE { changed_tensors(folder) } else { Vec::new() };
            names.into_iter().map(|name| format!("tensor `{name}`")).collect()
        };
        Ok(by_manifest(name, &changed, team, progress)?.result)
    }
}
