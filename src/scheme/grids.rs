//! Every grid that weights may lie on.
use super::{
    Activations, Granularity, IntScheme, Mxfp4, Qparams,
    ggml::BlockFormat,
    grid::{Described, Grid},
};
use std::{fmt, ops::Deref};

macro_rules! grids {
    ($($(#[$doc:meta])* $name:ident($grid:ty)),+ $(,)?) => {
        /// A grid of weights, by its kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a grid: `bits`, `symmetric` and `granularity`, or a name such as `mxfp4`"
        )]
        pub enum WeightGrid {
            $($(#[$doc])* $name($grid),)+
        }

        impl Deref for WeightGrid {
            type Target = dyn Grid;

            fn deref(&self) -> &Self::Target {
                match self {
                    $(Self::$name(grid) => grid,)+
                }
            }
        }

        impl WeightGrid {
            /// As [`Grid::with`].
            pub fn with(self, granularity: Granularity, symmetric: bool) -> Option<Self> {
                match self {
                    $(Self::$name(grid) => grid.with(granularity, symmetric).map(Self::$name),)+
                }
            }

            /// As [`Grid::encode`], for one value after another.
            #[inline]
            pub fn encode(self, x: f32, q: Qparams) -> i8 {
                match self {
                    $(Self::$name(grid) => Grid::encode(&grid, x, q),)+
                }
            }
        }

        $(impl From<$grid> for WeightGrid {
            fn from(grid: $grid) -> Self {
                Self::$name(grid)
            }
        })+
    };
}

grids! {
    /// Integers.
    Int(IntScheme),
    /// 4-bit floats with a power of two per 32 inputs.
    Mxfp4(Mxfp4),
}

impl WeightGrid {
    /// int4 in groups of 64, symmetric.
    pub const INT4: Self = Self::int(4, Granularity::Group(64));
    /// int8 with one scale per row, symmetric.
    pub const INT8: Self = Self::int(8, Granularity::Channel);

    /// Integers, symmetric.
    const fn int(bits: u32, granularity: Granularity) -> Self {
        Self::Int(IntScheme { bits, symmetric: true, granularity })
    }

    /// MXFP4.
    pub const MXFP4: Self = Self::Mxfp4(Mxfp4::Weights);

    /// Every kind, with the groups that it has unless others are wanted.
    pub const ALL: [Self; 3] = [Self::INT4, Self::INT8, Self::MXFP4];

    /// The kinds that have such groups and zero points.
    fn all_with(granularity: Granularity, symmetric: bool) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter_map(move |it| it.with(granularity, symmetric))
    }

    /// The grid that compressed-tensors calls so: its `type` and `num_bits`.
    pub fn named(
        kind: &str,
        bits: u32,
        (granularity, symmetric): (Granularity, bool),
    ) -> Option<Self> {
        let named = |it: &Self| (it.described().kind, it.bits()) == (kind, bits);
        Self::all_with(granularity, symmetric).find(named)
    }

    /// What compressed-tensors says of weights in a format, e.g. `mxfp4-pack-quantized`, where
    /// weights alone have it.
    pub fn in_format(format: &str) -> Option<Described> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|it| it.format(Activations::Float).name() == format);
        found.map(|it| it.described())
    }

    /// The grid whose numbers blocks of ggml hold, or may hold.
    pub fn of_blocks(format: &dyn BlockFormat) -> Option<Self> {
        let (length, group) = (format.block_len(), Granularity::Group(format.block_len()));
        let same = |it: &Self| it.blocks(length).is_some_and(|it| it.id() == format.id());
        Self::all_with(group, true).chain(Self::all_with(group, false)).find(same)
    }

    /// Weights that share a scale in a row of `columns`.
    pub fn group_size(self, columns: usize) -> usize {
        self.integers().group_size(columns)
    }

    /// Scales per row; `None` when the groups do not divide `columns`.
    pub fn groups(self, columns: usize) -> Option<usize> {
        self.integers().groups(columns)
    }
}

impl fmt::Display for WeightGrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// The contract of every grid.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        scheme::{Activations, Method, PartKind, QTensor, Rows, ScaleRule, Stored},
        tensor::FloatType,
    };
    use proptest::prelude::*;

    /// Every kind in groups of 32, and with zero points where it has them.
    fn all() -> impl Iterator<Item = WeightGrid> {
        let group = Granularity::Group(32);
        WeightGrid::all_with(group, true).chain(WeightGrid::all_with(group, false))
    }

    /// Scales in float16, which blocks of ggml hold exactly.
    fn rounded(grid: WeightGrid, values: &[f32], shape: [usize; 2], method: Method) -> QTensor {
        let groups = shape[0] * grid.groups(shape[1]).unwrap();
        let mut tensor = QTensor {
            scheme: grid.integers(),
            shape,
            codes: vec![0; values.len()],
            scales: vec![0.0; groups],
            zero_points: vec![0; if grid.symmetric() { 0 } else { groups }],
        };
        let QTensor { codes, scales, zero_points, .. } = &mut tensor;
        let rule = ScaleRule { method, scale_type: FloatType::F16 };
        grid.round(values, shape[1], rule, Rows { codes, scales, zero_points });
        tensor
    }

    fn stored(grid: WeightGrid) -> Stored {
        Stored { format: grid.format(Activations::Float), scale_type: FloatType::F16 }
    }

    fn parts(grid: WeightGrid, tensor: &QTensor) -> Vec<(PartKind, Vec<u8>)> {
        let (stored, shape) = (stored(grid), tensor.shape);
        let groups = grid.groups(shape[1]).unwrap();
        let bytes = |kind| match kind {
            PartKind::Codes => {
                let mut bytes = Vec::new();
                grid.encode_codes(stored, &tensor.codes, shape[1], &mut bytes);
                bytes
            }
            PartKind::Scale => grid.encode_scales(stored, &tensor.scales),
            PartKind::ZeroPoint => grid.encode_zero_points(stored, &tensor.zero_points, groups),
            _ => vec![0; 16],
        };
        let parts = grid.parts(stored, shape).unwrap().into_iter();
        let encoded = parts.map(|part| {
            let bytes = bytes(part.kind);
            assert_eq!(bytes.len(), part.bytes, "{grid}: {}", part.suffix);
            (part.kind, bytes)
        });
        encoded.collect()
    }

    fn decoded(grid: WeightGrid, shape: [usize; 2], parts: &[(PartKind, Vec<u8>)]) -> QTensor {
        let part = |kind| &*parts.iter().find(|(it, _)| *it == kind).unwrap().1;
        grid.decode(stored(grid), shape, &part).unwrap()
    }

    #[test]
    fn names_lead_back_to_the_grid() {
        for grid in all() {
            let (said, form) = (grid.described(), (grid.granularity(), grid.symmetric()));
            assert_eq!(WeightGrid::named(said.kind, grid.bits(), form), Some(grid));
            if let Some(blocks) = grid.blocks(32) {
                assert_eq!(WeightGrid::of_blocks(blocks), Some(grid), "{}", blocks.name());
            }
            let json = serde_json::to_value(grid).unwrap();
            assert_eq!(serde_json::from_value::<WeightGrid>(json).unwrap(), grid);
        }
        assert_eq!(all().count(), 5, "int4 and int8 with and without zero points, mxfp4");
        let json = |it: WeightGrid| serde_json::to_string(&it).unwrap();
        let int4 = r#"{"bits":4,"symmetric":true,"granularity":{"group":64}}"#;
        assert_eq!(
            (json(WeightGrid::INT4), json(WeightGrid::MXFP4)),
            (int4.into(), "\"mxfp4\"".into())
        );
        let none = (Granularity::Group(16), true);
        assert_eq!(WeightGrid::named("float", 4, none), None, "NVFP4 is not read");
        assert!(WeightGrid::in_format("nvfp4-pack-quantized").is_none());
    }

    proptest! {
        /// Nothing moves on the way through bytes, whichever they are, and codes are the nearest.
        #[test]
        fn bytes_hold_the_same_weights(
            values in prop::collection::vec(-8.0_f32..8.0, 3 * 64), mse in any::<bool>(),
        ) {
            let shape = [3, 64];
            for grid in all() {
                let tensor = rounded(grid, &values, shape, if mse { Method::Mse } else { Method::Minmax });
                prop_assert!(grid.holds(&tensor));
                let stored = parts(grid, &tensor);
                let back = decoded(grid, shape, &stored);
                prop_assert_eq!(&back, &tensor);
                prop_assert_eq!(parts(grid, &back), stored);
                for (at, (x, code)) in values.iter().zip(&tensor.codes).enumerate() {
                    let q = tensor.qparams(at / 64, at % 64 / 32);
                    prop_assert_eq!(grid.encode(*x, q), *code, "{}", grid);
                    prop_assert_eq!(grid.encode(q.value(*code), q), *code, "values are their own");
                    prop_assert_eq!(grid.round_scale(q.scale, FloatType::F16).to_bits(), q.scale.to_bits());
                }
                let Some(format) = grid.blocks(64) else { continue };
                let mut rows = vec![Vec::new(); 3];
                for (row, bytes) in rows.iter_mut().enumerate() {
                    grid.encode_blocks(&tensor, row, bytes);
                    let mut values = [0.0; 64];
                    format.decode(bytes, &mut values);
                    let mut wanted = [0.0; 64];
                    tensor.dequantize_row(row, &mut wanted);
                    // Q4_1 rounds its least value to float16: half of 2^-10 of at most 16 steps.
                    let most = tensor.scales.iter().fold(0.0_f32, |most, it| most.max(it.abs()));
                    let bound = if grid.symmetric() { 0.0 } else { most * 16.0 / 2048.0 };
                    let near = values.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= bound);
                    prop_assert!(near, "{}", format.name());
                }
                let back = grid.decode_blocks(shape, &|row| &rows[row]).unwrap();
                prop_assert_eq!(&back, &tensor);
                // A twin with another code.
                rows[1][17] ^= 1;
                prop_assert_ne!(&grid.decode_blocks(shape, &|row| &rows[row]).unwrap(), &tensor);
            }
        }

        /// A product is that of the values, whichever the grid.
        #[test]
        fn products_are_those_of_the_values(
            values in prop::collection::vec(-8.0_f32..8.0, 2 * 64),
            x in prop::collection::vec(-1.0_f32..1.0, 64),
        ) {
            for grid in all() {
                let tensor = rounded(grid, &values, [2, 64], Method::Mse);
                for (row, values) in tensor.dequantize().chunks(64).enumerate() {
                    let wanted: f64 =
                        values.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    // Values are float32: each of 64, up to 16, may be half of 2^-23 of it off.
                    let far = (tensor.dot(row, &x) - wanted).abs();
                    prop_assert!(far <= 64.0 * 16.0 * 2.0_f64.powi(-24), "{}: {}", grid, far);
                }
            }
        }
    }
}
