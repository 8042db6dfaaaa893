//! The manifest of a folder that `export` wrote.
use super::{Exported, MANIFEST_FILE, Manifest, SCHEMA, Source, Tool, manifest::quantized_tensors};
use crate::{
    checkpoint::{FileRecord, OutputDir},
    package::{Opened, PackageError},
    progress::Progress,
};
use std::collections::BTreeMap;

/// What a folder holds.
#[derive(Clone, Copy)]
pub(in crate::package) struct Contents<'a> {
    /// The name of its form in the manifest.
    pub(in crate::package) form: &'a str,
    /// Number of stored tensors.
    pub(in crate::package) tensors: usize,
    /// Quantized weights are there as codes.
    pub(in crate::package) coded: bool,
}

/// Writes the manifest of a folder: its files, what it was made from, and what its codes stand
/// for. The chain goes from the source's tensors and the recipe over the package's manifest to here.
pub(in crate::package) fn seal(
    opened: &Opened,
    contents: Contents<'_>,
    files: BTreeMap<String, FileRecord>,
    output: &OutputDir,
    progress: &dyn Progress,
) -> Result<(), PackageError> {
    let package = opened.manifest.as_ref();
    let source = match package {
        Some(package) => package.source.clone(),
        None => Source::of(opened, opened.source_sha256(progress)),
    };
    let weights = &opened.model.weights;
    let mut quantized =
        if contents.coded { quantized_tensors(&weights.quantized) } else { BTreeMap::new() };
    for (name, tensor) in &mut quantized {
        let known = package.and_then(|it| it.quantized.get(name));
        tensor.values_sha256 = known.and_then(|it| it.values_sha256.clone());
    }
    let manifest = Manifest {
        schema: SCHEMA,
        tool: Tool::default(),
        source,
        recipe: package.map_or(serde_json::Value::Null, |it| it.recipe.clone()),
        quantized,
        activations: if contents.coded { weights.activations.clone() } else { BTreeMap::new() },
        export: Some(Exported {
            form: contents.form.to_owned(),
            tensors: contents.tensors,
            package_sha256: package.map(|it| it.sha256.clone()),
        }),
        beyond_standard: Vec::new(),
        carried: Vec::new(),
        left_out: Vec::new(),
        evaluation: None,
        files,
        tensors: BTreeMap::new(),
        sha256: String::new(),
    };
    output.write(MANIFEST_FILE, manifest.sealed().as_bytes())?;
    Ok(())
}
