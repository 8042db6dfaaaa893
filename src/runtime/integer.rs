//! Products with packed integer weights.
use super::kernel::{Isa, PackedLinear};
use crate::{forward::Linear, linalg::Team, model::Input, scheme::QTensor};
use ndarray::{ArrayView2, ArrayViewMut2};

/// An integer matrix.
pub(super) struct IntLinear {
    packed: PackedLinear,
    activations: Input,
    isa: Isa,
}

impl IntLinear {
    /// Packs weights of one scheme and width.
    pub(super) fn new(parts: &[QTensor], activations: Input, isa: Isa) -> Self {
        let packed = PackedLinear::new(parts).expect("weights of one scheme and width");
        Self { packed, activations, isa }
    }
}

impl Linear for IntLinear {
    fn in_features(&self) -> usize {
        self.packed.columns()
    }

    fn out_features(&self) -> usize {
        self.packed.rows()
    }

    fn forward(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, team: &Team) {
        match self.activations {
            Input::Int8PerToken => self.packed.forward_int8(x, y, team, (self.isa, None)),
            Input::Int8Static(scale) => {
                self.packed.forward_int8(x, y, team, (self.isa, Some(scale)));
            }
            Input::Float => self.packed.forward_float(x, y, team, self.isa),
        }
    }

    /// With int8 activations every token has sums of its own anyway.
    fn forward_apart(&self, x: ArrayView2<'_, f32>, y: ArrayViewMut2<'_, f32>, team: &Team) {
        match self.activations {
            Input::Float => self.packed.forward_float_apart(x, y, team, self.isa),
            Input::Int8PerToken | Input::Int8Static(_) => self.forward(x, y, team),
        }
    }
}
