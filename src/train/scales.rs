//! Weights on a grid: codes stay, scales learn.
use crate::{
    linalg::Team,
    model::part_name,
    scheme::{Part, QTensor, TensorScheme},
    tensor::{Bytes, RawTensor},
};
use ndarray::{Array2, ArrayView2};

/// A weight `W = (q − z) · s·(1 + r)`, whose r learn: `[out, groups]`, 0 at the start. Rates of r are shares
/// of the scales, so that one fits grids of any step. Products see the scales as they are stored, gradients
/// pass through that rounding (straight-through, arXiv 1308.3432).
#[derive(Clone, Debug)]
pub(super) struct Scales {
    scheme: TensorScheme,
    /// As the scales were at the start.
    tensor: QTensor,
    pub(super) change: Array2<f32>,
}

impl Scales {
    pub(super) fn new(scheme: TensorScheme, tensor: QTensor) -> Self {
        let [rows, _] = tensor.shape;
        let groups = tensor.scales.len() / rows.max(1);
        Self { scheme, tensor, change: Array2::zeros((rows, groups)) }
    }

    /// The weight with its scales of now. One that its type cannot hold stays as it was.
    fn now(&self) -> QTensor {
        let scales = self.tensor.scales.iter().zip(&self.change).map(|(scale, change)| {
            let wanted = scale * (1.0 + change);
            let held = self.scheme.weights.round_scale(wanted, self.scheme.scale_type);
            if held.is_normal() { held } else { *scale }
        });
        QTensor { scales: scales.collect(), ..self.tensor.clone() }
    }

    /// What products see, `[out, in]`.
    pub(super) fn value(&self) -> Array2<f32> {
        let values = self.now().dequantize();
        Array2::from_shape_vec(self.tensor.shape, values).expect("a value for each code")
    }

    /// The stored parts of the weight `name`.
    pub(super) fn parts(&self, name: &str) -> Vec<(String, RawTensor)> {
        let parts = self.scheme.encode(&self.now().into()).into_iter();
        let raw = |(part, bytes): (Part, Vec<u8>)| RawTensor {
            dtype: part.dtype,
            shape: part.shape,
            bytes: Bytes::owned(bytes),
        };
        parts.map(|part| (part_name(name, part.0.suffix), raw(part))).collect()
    }

    /// `dr ← dr + Σ dW·(q − z)·s` over the weights of each group, `[out, groups]` of `[out, in]`.
    pub(super) fn add(&self, dw: ArrayView2<'_, f32>, dr: &mut Array2<f32>, team: &Team) {
        let columns = self.tensor.shape[1];
        let size = self.tensor.scheme.group_size(columns).max(1);
        let rows = dr.outer_iter_mut().zip(dw.outer_iter()).collect();
        team.each(rows, |row, (mut dr, dw)| {
            let codes = self.tensor.codes[row * columns..(row + 1) * columns].chunks(size);
            let dw = dw.to_slice().expect("rows are contiguous").chunks(size);
            for (group, (codes, dw)) in codes.zip(dw).enumerate() {
                let q = self.tensor.qparams(row, group);
                dr[group] +=
                    codes.iter().zip(dw).map(|(code, dw)| q.value(*code) * dw).sum::<f32>();
            }
        });
    }
}
