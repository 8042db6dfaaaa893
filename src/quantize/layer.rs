//! Layers that see one input, what they see, and what they are rounded towards.
use super::{QuantizeError, input_scale::Magnitudes};
use crate::{
    linalg::{Team, accumulate_cross, accumulate_gram, least_squares},
    scheme::TensorScheme,
};
use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate, s};

/// Sums over tokens of one input.
pub(super) struct Sums {
    /// Σ x̂ x̂ᵀ, `[in, in]`; the upper triangle.
    pub(super) inputs: Array2<f32>,
    /// Σ t x̂ᵀ, `[targets, in]`, with t the float model's input or what the layer should give.
    pub(super) cross: Option<Array2<f32>>,
    /// Σ x̂, `[in]`.
    input_sum: Array1<f64>,
    /// Σ t, `[targets]`.
    target_sum: Array1<f64>,
    pub(super) tokens: u64,
    /// Of x̂, where it gets a static scale.
    pub(super) magnitudes: Option<Magnitudes>,
}

/// A layer that is rounded.
pub(super) struct Layer {
    pub(super) name: String,
    /// `[out, in]`
    pub(super) weight: Array2<f32>,
    /// Its name and values.
    pub(super) bias: Option<(String, Array1<f32>)>,
    pub(super) scheme: TensorScheme,
}

impl Sums {
    /// Nothing yet, of inputs and targets of these widths; `scaled` inputs get a static scale.
    pub(super) fn new(inputs: usize, targets: Option<usize>, scaled: bool) -> Self {
        Self {
            inputs: Array2::zeros((inputs, inputs)),
            cross: targets.map(|targets| Array2::zeros((targets, inputs))),
            input_sum: Array1::zeros(inputs),
            target_sum: Array1::zeros(targets.unwrap_or(0)),
            tokens: 0,
            magnitudes: scaled.then(Magnitudes::default),
        }
    }

    /// Adds tokens: `x` is `[tokens, in]`, `target` `[tokens, targets]`.
    pub(super) fn add(
        &mut self,
        x: ArrayView2<'_, f32>,
        target: Option<&Array2<f32>>,
        team: &Team,
    ) {
        accumulate_gram(x, &mut self.inputs, team);
        if let (Some(cross), Some(target)) = (&mut self.cross, target) {
            accumulate_cross(target.view(), x, cross, team);
            self.target_sum += &target.mapv(f64::from).sum_axis(Axis(0));
        }
        self.input_sum += &x.mapv(f64::from).sum_axis(Axis(0));
        self.tokens += x.nrows() as u64;
        if let Some(magnitudes) = &mut self.magnitudes {
            magnitudes.add(x);
        }
    }

    /// What layers are rounded towards: their weights where no targets were summed. `outputs` says
    /// that those are what the (only) layer should give, and not its float input.
    pub(super) fn targets(
        &self,
        layers: &[Layer],
        outputs: bool,
        damping: f64,
    ) -> Result<Vec<Array2<f32>>, QuantizeError> {
        let weights: Vec<ArrayView2<'_, f32>> = layers.iter().map(|it| it.weight.view()).collect();
        let Some(cross) = &self.cross else {
            return Ok(weights.iter().map(ArrayView2::to_owned).collect());
        };
        let all = concatenate(Axis(0), &weights).expect("columns of one input");
        let mut cross = if outputs { cross.clone() } else { all.dot(cross) };
        if let (true, Some((_, bias))) = (outputs, &layers[0].bias) {
            for (mut row, b) in cross.outer_iter_mut().zip(bias) {
                row.zip_mut_with(&self.input_sum, |c, x| *c -= (f64::from(*b) * x) as f32);
            }
        }
        let fit = least_squares::ridge(&self.inputs, &cross, &all, damping, &layers[0].name)?;
        let mut first = 0;
        let rows = weights.iter().map(|weight| {
            let rows = first..first + weight.nrows();
            first = rows.end;
            fit.weight.slice(s![rows, ..]).to_owned()
        });
        Ok(rows.collect())
    }
}

impl Layer {
    /// The bias with which the mean of what the layer gives is right.
    pub(super) fn corrected_bias(
        &self,
        outputs: bool,
        rounded: &Array2<f32>,
        sums: &Sums,
    ) -> Array1<f32> {
        let tokens = sums.tokens.max(1) as f64;
        let given = rounded.mapv(f64::from).dot(&sums.input_sum);
        let wanted = if outputs {
            sums.target_sum.clone()
        } else {
            let bias = self.bias.iter().flat_map(|(_, bias)| bias).map(|b| f64::from(*b) * tokens);
            self.weight.mapv(f64::from).dot(&sums.target_sum) + bias.collect::<Array1<f64>>()
        };
        ((wanted - given) / tokens).mapv(|b| b as f32)
    }
}
