//! Opens a model by its name: a checkpoint, a package, a carried one.
use super::{Kept, Manifest, PackageError, compressed_tensors, gguf, onnx, stored};
use crate::{
    checkpoint::Folder,
    model::{Model, WeightStore, part_name},
    scheme::TensorScheme,
    tensor::RawTensor,
};
use std::{collections::BTreeMap, path::Path};

/// What describes an adapter of peft.
const ADAPTER_FILE: &str = "adapter_config.json";

/// What a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Float weights.
    Checkpoint,
    /// Quantized weights.
    Package,
}

/// A model with the folder that it comes from.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Architecture and weights; weights are mapped, not read.
    pub model: Model,
    /// The folder, for tokenizer and other files.
    pub folder: Folder,
    /// What it is.
    pub kind: Kind,
    /// `milm.json`, if there is one.
    pub manifest: Option<Manifest>,
    /// The file of each stored tensor.
    pub files: BTreeMap<String, String>,
    /// Tensors in shards that the index does not list.
    pub unlisted: Vec<String>,
    /// Tokenizer and hashes, once they were asked for.
    pub kept: Kept,
}

/// Opens a model: the path of a checkpoint or package folder, or of a GGUF file, or `builtin:NAME`.
pub fn open(name: &str) -> Result<Opened, PackageError> {
    let path = Path::new(name);
    if path.extension().is_some_and(|it| it == "gguf") && path.is_file() {
        return open_gguf(path);
    }
    let graph = path.file_name().is_some_and(|it| it == onnx::GRAPH_FILE) && path.is_file();
    let folder = match path.parent() {
        Some(parent) if graph => Folder::open(&parent.join(".").to_string_lossy())?,
        _ => Folder::open(name)?,
    };
    if onnx::is_onnx(&folder)? {
        return open_onnx(folder);
    }
    let mut config = folder.config()?;
    let mut tensors = folder.tensors()?;
    if folder.read(ADAPTER_FILE)?.is_some() {
        tracing::warn!(
            "`{}` is not applied, as peft would do it: merge the adapter into the model first",
            folder.file_name(ADAPTER_FILE)
        );
    }
    let failed = |source| PackageError::Model { name: name.to_owned(), source: Box::new(source) };
    let spec = stored::plain(name, &mut config, &mut tensors).map_err(|fault| match fault {
        stored::Fault::Config(source) => failed(source.into()),
        stored::Fault::Stored(source) => {
            PackageError::Stored { name: name.to_owned(), source: Box::new(source) }
        }
    })?;
    let manifest = Manifest::read(&folder)?;
    let mut quantized = match &manifest {
        Some(manifest) => manifest
            .quantized
            .iter()
            .map(|(name, it)| {
                let format = compressed_tensors::stored_format(name, &tensors.raw);
                (name.clone(), (TensorScheme { format, ..it.scheme }, it.shape))
            })
            .collect(),
        None => compressed_tensors::read_schemes(&config, &spec, &tensors.raw)?,
    };
    for (name, (scheme, shape)) in &quantized {
        check_parts(name, *scheme, *shape, &tensors.raw)?;
    }
    if manifest.is_none() {
        compressed_tensors::settle(&mut config, &mut quantized, &mut tensors)?;
    }
    let kind = if quantized.is_empty() { Kind::Checkpoint } else { Kind::Package };
    let activations = manifest.as_ref().map(|it| it.activations.clone()).unwrap_or_default();
    if let Some((point, _)) = activations.iter().find(|(_, grid)| !grid.is_sound()) {
        return Err(PackageError::Unsupported { key: "activations", found: point.clone() });
    }
    let weights = WeightStore { raw: tensors.raw, quantized, activations };
    let model = stored::model(config, weights).map_err(|told| match told {
        Err(source) => failed(source),
        Ok(it) => {
            let (name, tensor) = (name.to_owned(), it.missing);
            PackageError::OtherTensors { name, tensor, found: it.found, hint: it.hint }
        }
    })?;
    let (files, unlisted, kept) = (tensors.files, tensors.unlisted, Kept::default());
    Ok(Opened { model, folder, kind, manifest, files, unlisted, kept })
}

/// Opens an ONNX folder that this program wrote; all of it is in memory.
fn open_onnx(folder: Folder) -> Result<Opened, PackageError> {
    let manifest = Manifest::read(&folder)?;
    let (config, weights) = onnx::model(&folder)?;
    let file = |tensor: &String| (tensor.clone(), onnx::GRAPH_FILE.to_owned());
    let files = weights.raw.keys().map(file).collect();
    let kind = if weights.quantized.is_empty() { Kind::Checkpoint } else { Kind::Package };
    if let Some((point, _)) = weights.activations.iter().find(|(_, grid)| !grid.is_sound()) {
        return Err(PackageError::Unsupported { key: "activations", found: point.clone() });
    }
    let name = folder.name().to_owned();
    let failed = |source| PackageError::Model { name, source: Box::new(source) };
    let model = Model::new(config, weights).map_err(failed)?;
    Ok(Opened { model, folder, kind, manifest, files, unlisted: Vec::new(), kept: Kept::default() })
}

/// Opens a GGUF file with its codes; all of it is in memory.
fn open_gguf(path: &Path) -> Result<Opened, PackageError> {
    let gguf = gguf::open(path)?;
    let (folder, weights) = gguf::model(&gguf)?;
    let name = gguf.file;
    let files = weights.raw.keys().map(|tensor| (tensor.clone(), name.clone())).collect();
    let kind = if weights.quantized.is_empty() { Kind::Checkpoint } else { Kind::Package };
    let failed = |source| PackageError::Model { name: name.clone(), source: Box::new(source) };
    let model = Model::new(folder.config()?, weights).map_err(failed)?;
    Ok(Opened {
        model,
        folder,
        kind,
        manifest: None,
        files,
        unlisted: Vec::new(),
        kept: Kept::default(),
    })
}

/// The parts of a quantized weight are there in the types and shapes of its scheme.
fn check_parts(
    name: &str,
    scheme: TensorScheme,
    shape: [usize; 2],
    raw: &BTreeMap<String, RawTensor>,
) -> Result<(), PackageError> {
    let (weights, columns) = (scheme.weights, shape[1]);
    if !matches!(weights.bits, 4 | 8) {
        return Err(PackageError::Unsupported { key: "num_bits", found: weights.bits.to_string() });
    }
    // Sizes come from a file: they are multiplied only after this.
    let limit = 1 << 31;
    let group = weights.group_size(columns);
    let uneven = || PackageError::Uneven { tensor: name.to_owned(), group, columns };
    if shape[0] > limit || columns > limit {
        return Err(uneven());
    }
    for part in scheme.parts(shape).ok_or_else(uneven)? {
        let tensor = part_name(name, part.suffix);
        let Some(found) = raw.get(&tensor) else {
            return Err(PackageError::MissingPart { tensor });
        };
        if (found.dtype, &found.shape) != (part.dtype, &part.shape) {
            return Err(PackageError::Part {
                tensor,
                expected_type: part.dtype,
                expected: part.shape,
                found_type: found.dtype,
                found: found.shape.clone(),
            });
        }
    }
    Ok(())
}
