//! Tensors beside the codes and scales of a quantized weight: those that say nothing are dropped,
//! an order of columns is read, and any other one is an error.
use super::super::PackageError;
use crate::{
    checkpoint::Tensors,
    model::part_name,
    scheme::{Activations, Granularity, PartKind, Rounded, Schemes, TensorScheme, WeightGrid},
    tensor::{Bytes, Dtype, RawTensor},
};
use serde_json::Value;

/// Which group of scales each column belongs to.
const GROUPS: &str = "weight_g_idx";
/// Zero points that symmetric grids may store all the same.
const ZEROS: &[&str] = &["weight_zero_point", "input_zero_point"];

/// Settles what other programs store beside the codes and scales of weights whose parts are there;
/// without quantized weights left, the config says nothing of them either.
pub(crate) fn settle(
    config: &mut Value,
    schemes: &mut Schemes,
    tensors: &mut Tensors,
) -> Result<(), PackageError> {
    let quantized = !schemes.is_empty();
    settle_modules(schemes, tensors)?;
    if let Some(config) = config.as_object_mut().filter(|_| quantized && schemes.is_empty()) {
        config.remove("quantization_config");
    }
    Ok(())
}

/// Settles the tensors of every quantized module. Weights whose columns are in another order than
/// their scales become float, each value as compressed-tensors has it, and leave `schemes`.
fn settle_modules(schemes: &mut Schemes, tensors: &mut Tensors) -> Result<(), PackageError> {
    let mut float = Vec::new();
    for (name, (scheme, shape)) in schemes.iter() {
        let parts = scheme.parts(*shape).unwrap_or_default();
        let module = part_name(name, "");
        let inside = tensors.raw.range(module.clone()..);
        let inside = inside.take_while(|(tensor, _)| tensor.starts_with(&module));
        let mut unused = Vec::new();
        let mut order = None;
        for (tensor, raw) in inside {
            let leaf = &tensor[module.len()..];
            if leaf == "bias" || leaf.contains('.') || parts.iter().any(|it| it.suffix == leaf) {
                continue;
            }
            if leaf == GROUPS {
                let found = groups(raw, scheme.weights, shape[1]);
                order = Some(found.ok_or_else(|| unread(tensor))?);
            } else if !(ZEROS.contains(&leaf) && raw.bytes.iter().all(|it| *it == 0)) {
                return Err(unread(tensor));
            }
            unused.push(tensor.clone());
        }
        for tensor in &unused {
            tensors.remove(tensor);
        }
        let Some(Order::Moved(order)) = order else { continue };
        if scheme.activations != Activations::Float {
            return Err(unread(&part_name(name, GROUPS)));
        }
        let raw = decode(name, *scheme, *shape, &order, tensors)?;
        let file = tensors.files.get(&part_name(name, "weight_scale")).cloned().unwrap_or_default();
        for part in &parts {
            tensors.remove(&part_name(name, part.suffix));
        }
        tensors.raw.insert(name.clone(), raw);
        tensors.files.insert(name.clone(), file);
        float.push(name.clone());
    }
    for name in &float {
        schemes.remove(name);
    }
    if !float.is_empty() {
        tracing::warn!(
            "{} weights have columns in another order than their scales (`actorder`), which has no place in the \
             schemes of this program: they are read as float",
            float.len()
        );
    }
    Ok(())
}

fn unread(tensor: &str) -> PackageError {
    PackageError::UnknownPart { tensor: tensor.to_owned() }
}

enum Order {
    /// Groups are consecutive columns.
    AsStored,
    /// The group of each column.
    Moved(Vec<usize>),
}

/// The group of each column; `None` for something else than whole groups. All -1 stands for no
/// order.
fn groups(raw: &RawTensor, grid: WeightGrid, columns: usize) -> Option<Order> {
    if raw.dtype != Dtype::I32 || raw.shape != [columns] {
        return None;
    }
    let found = raw.bytes.as_chunks::<4>().0.iter().map(|it| i32::from_le_bytes(*it));
    if found.clone().all(|it| it == -1) {
        return Some(Order::AsStored);
    }
    let Granularity::Group(size) = grid.granularity() else { return None };
    let count = grid.groups(columns)?;
    let order: Vec<usize> = found.map(|it| usize::try_from(it).ok()).collect::<Option<_>>()?;
    let mut members = vec![0_usize; count];
    for group in &order {
        *members.get_mut(*group)? += 1;
    }
    if members.iter().any(|it| *it != size) {
        return None;
    }
    let plain = order.iter().enumerate().all(|(column, group)| column / size == *group);
    Some(if plain { Order::AsStored } else { Order::Moved(order) })
}

/// The values of a weight whose columns have the scales of the groups in `order`.
fn decode(
    name: &str,
    scheme: TensorScheme,
    shape: [usize; 2],
    order: &[usize],
    tensors: &Tensors,
) -> Result<RawTensor, PackageError> {
    let parts = scheme.parts(shape).unwrap_or_default();
    let bytes = |kind: PartKind| {
        let part = parts.iter().find(|it| it.kind == kind);
        let raw = part.and_then(|it| tensors.raw.get(&part_name(name, it.suffix)));
        raw.map_or(&[][..], |raw| &raw.bytes)
    };
    let failed = |source| crate::model::WeightError::Decode { name: name.to_owned(), source };
    let Rounded::Whole(weight) = scheme.decode(shape, bytes).map_err(failed)? else {
        return Err(unread(&part_name(name, GROUPS)));
    };
    let [_, columns] = shape;
    let count = scheme.weights.groups(columns).unwrap_or(1);
    let mut values = Vec::with_capacity(weight.codes.len());
    for (row, codes) in weight.codes.chunks(columns.max(1)).enumerate() {
        for (code, group) in codes.iter().zip(order) {
            let at = row * count + group;
            let zero = weight.zero_points.get(at).copied().unwrap_or(0);
            values.push(f32::from(i16::from(*code) - i16::from(zero)) * weight.scales[at]);
        }
    }
    let mut encoded = Vec::new();
    scheme.scale_type.encode(&values, &mut encoded);
    let dtype = scheme.scale_type.dtype();
    Ok(RawTensor { dtype, shape: shape.to_vec(), bytes: Bytes::owned(encoded) })
}
