//! Every grid that weights may lie on.
use super::{Granularity, IntScheme, Mxfp4, Qparams, ggml::BlockFormat, grid::Grid};
use std::{fmt, ops::Deref};

macro_rules! grids {
    ($($(#[$doc:meta])* $name:ident($grid:ty)),+ $(,)?) => {
        /// A grid of weights, by its kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(untagged)]
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

    /// The grid whose numbers blocks of ggml hold, or may hold.
    pub fn of_blocks(format: &dyn BlockFormat) -> Option<Self> {
        let size = Granularity::Group(format.block_len());
        let int4 = Self::int(4, size);
        let grids =
            [Some(int4), int4.with(size, false), Some(Self::int(8, size)), Some(Self::MXFP4)];
        let same =
            |it: &Self| it.blocks(format.block_len()).is_some_and(|it| it.id() == format.id());
        grids.into_iter().flatten().find(same)
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
