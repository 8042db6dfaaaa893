//! Opens a Hugging Face folder: a checkpoint or a package, and one that the program carries.
use super::{
    order::settle,
    read::{read_schemes, stored_format},
};
use crate::{
    checkpoint::{Folder, Tensors},
    model::{WeightStore, part_name},
    package::{Kept, Kind, Manifest, Opened, PackageError, stored},
    scheme::TensorScheme,
    tensor::RawTensor,
};
use std::collections::BTreeMap;

/// What describes an adapter of peft.
const ADAPTER_FILE: &str = "adapter_config.json";

/// Opens a folder by its path, or `builtin:NAME`; weights stay mapped.
pub(super) fn open(name: &str) -> Result<Opened, PackageError> {
    let folder = Folder::open(name)?;
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
                let format = stored_format(name, &tensors.raw);
                (name.clone(), (TensorScheme { format, ..it.scheme }, it.shape))
            })
            .collect(),
        None => read_schemes(&config, &spec, &tensors.raw)?,
    };
    for (name, (scheme, shape)) in &quantized {
        check_parts(name, *scheme, *shape, &tensors.raw)?;
        check_scales(name, *scheme, &tensors)?;
    }
    if manifest.is_none() {
        settle(&mut config, &mut quantized, &mut tensors)?;
    }
    let activations = manifest.as_ref().map(|it| it.activations.clone()).unwrap_or_default();
    if let Some((point, _)) = activations.iter().find(|(_, grid)| !grid.is_sound()) {
        return Err(PackageError::Unsupported { key: "activations", found: point.clone() });
    }
    let weights = WeightStore { raw: tensors.raw, quantized, activations };
    let kind = Kind::of(&weights);
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

/// The scales of a quantized weight, whose parts are there, can be numbers.
fn check_scales(name: &str, scheme: TensorScheme, tensors: &Tensors) -> Result<(), PackageError> {
    let tensor = part_name(name, "weight_scale");
    let Some(raw) = tensors.raw.get(&tensor) else { return Ok(()) };
    let groups = raw.shape.last().copied().unwrap_or(1);
    let checked = scheme.weights.check_scales(&raw.bytes, groups);
    raw.bytes.release();
    checked.map_err(|source| {
        let file = tensors.files.get(&tensor).cloned().unwrap_or_default();
        PackageError::Scale { file, tensor, source }
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
    if !matches!(weights.bits(), 4 | 8) {
        let found = weights.bits().to_string();
        return Err(PackageError::Unsupported { key: "num_bits", found });
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
