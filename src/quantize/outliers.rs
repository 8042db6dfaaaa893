//! Which columns of weights are kept at int8.
//!
//! A column costs `H_jj · ‖W_j − Q(W_j)‖²` when it is rounded with the others, with `H_jj` the
//! energy of its input (the diagonal of the Hessian; `SpQR`, arXiv 2306.03078, and `QUIK`,
//! arXiv 2310.09259, use the like). In a basis of principal directions that finds the strong ones
//! (`ResQ`, arXiv 2412.14363).
use super::{QuantizeError, rtn::Rtn};
use crate::{
    linalg::Team,
    model::{Expert, Model, Part, Role, Weight},
    scheme::{OUTLIER_GRID, OutlierColumns, Rounded, SplitTensor},
};
use ndarray::{Array2, ArrayView1, Axis};

/// The `count` columns that cost most in weights `[out, in]` of one input. Without `energy`, `[in]`,
/// all inputs count the same.
pub(super) fn columns(
    weights: Vec<(Rtn, &Array2<f32>)>,
    energy: Option<ArrayView1<'_, f32>>,
    count: usize,
) -> OutlierColumns {
    let mut scores = vec![0.0_f64; weights.first().map_or(0, |(_, weight)| weight.ncols())];
    for (grid, weight) in weights {
        let weight = weight.as_standard_layout();
        let (rows, width) = weight.dim();
        let rounded = grid.tensor(weight.as_slice().expect("standard layout"), [rows, width]);
        for (row, values) in weight.outer_iter().zip(rounded.dequantize().chunks(width.max(1))) {
            for ((score, w), q) in scores.iter_mut().zip(row).zip(values) {
                *score += f64::from(w - q).powi(2);
            }
        }
    }
    for (score, energy) in scores.iter_mut().zip(energy.iter().flatten()) {
        *score *= f64::from(*energy);
    }
    OutlierColumns::largest(&scores, count)
}

/// A weight `[out, in]` rounded to nearest with `count` columns kept apart, chosen by their rounding
/// errors alone.
pub(super) fn nearest(
    grid: Rtn,
    values: &[f32],
    (shape, count): ([usize; 2], usize),
    team: &Team,
) -> Rounded {
    if count == 0 {
        return grid.tensor_on(values, shape, team).into();
    }
    let [out, width] = shape;
    let weight = Array2::from_shape_vec((out, width), values.to_vec()).expect("its shape");
    let columns = columns(vec![(grid, &weight)], None, count);
    let order = columns.order();
    let (base, outliers) = order.split_at(columns.base());
    let part = |places: &[usize], grid: Rtn| {
        let part = weight.select(Axis(1), places).as_standard_layout().into_owned();
        grid.tensor_on(part.as_slice().expect("standard layout"), [out, places.len()], team)
    };
    let fine = Rtn { grid: OUTLIER_GRID.into(), ..grid };
    let (base, outliers) = (part(base, grid), part(outliers, fine));
    SplitTensor::new(columns, base, outliers).into()
}

/// Moves the hidden units of an MLP so that the outlier columns of its down projection are the last
/// ones and need not be gathered. Nothing is computed anew: rows of gate and up change places.
/// Left alone where a rotation stands before the down projection.
pub(super) fn put_last(model: &mut Model, block: usize) -> Result<(), QuantizeError> {
    if model.spec.transformed.as_ref().is_some_and(|it| it.down_input) {
        return Ok(());
    }
    let here = model.spec.tensors.iter().filter(|it| it.block == Some(block));
    let downs = here.filter(|it| it.role == Role::Down && it.part == Part::Weight);
    let downs: Vec<(String, Option<Expert>)> =
        downs.map(|it| (it.name.clone(), it.expert)).collect();
    for (name, expert) in downs {
        let Some((scheme, _)) = model.weights.quantized.get(&name).copied() else { continue };
        let Weight::Split { tensor: down, .. } = model.weights.get(&name)? else { continue };
        let (order, count) = (down.columns.order(), down.columns.places().len());
        let columns = OutlierColumns::last(order.len(), count);
        let down = SplitTensor { columns, ..down };
        model.weights.quantize(&name, scheme, &down.into());
        for role in [Role::Gate, Role::Up] {
            for part in [Part::Weight, Part::Bias] {
                let spec = model.spec.find(Some(block), role, expert, part);
                if let Some(name) = spec.map(|it| it.name.clone()) {
                    model.weights.move_rows(&name, &order)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        quantize::Method,
        scheme::{Granularity, IntScheme},
        tensor::FloatType,
    };
    use ndarray::array;

    #[test]
    fn columns_cost_their_energy_times_their_rounding_errors() {
        let scheme = IntScheme { bits: 4, symmetric: true, granularity: Granularity::Channel };
        let grid = Rtn { grid: scheme.into(), scale_type: FloatType::F32, method: Method::Minmax };
        // Scale 1 in both rows: squared errors 0, 0.25, 0.16, 0.01 and 0, 0, 0.04, 0.09.
        let weights = array![[-8.0_f32, 1.5, 2.4, 3.1], [-8.0, 1.0, 0.2, 0.3]];
        let chosen = |energy: Option<[f32; 4]>| {
            let energy = energy.map(|it| ndarray::arr1(&it));
            let energy = energy.as_ref().map(|it| it.view());
            columns(vec![(grid, &weights)], energy, 1).places().to_vec()
        };
        assert_eq!(chosen(None), [1]);
        assert_eq!(chosen(Some([9.0, 1.0, 1.0, 3.0])), [3], "3 · 0.1 above 1 · 0.25");
        assert_eq!(chosen(Some([9.0, 1.0, 1.3, 2.0])), [2], "1.3 · 0.2 above 0.25 and 0.2");
    }
}
