//! Integer weights in the order in which the kernels read them.
//!
//! A *panel* holds 32 output rows, a *unit* 64 bytes: 16 rows times 4 consecutive columns (a
//! *quad*), the shape of one `vpdpbusd`. A *step* is 8 columns of a panel. Codes are unsigned,
//! `u = code - min_code`. Within a step:
//!
//! - 8 bits: 4 units: rows 0-15 and 16-31 of the first quad, then of the second;
//! - 4 bits: 2 units: rows 0-15 and 16-31; the first quad in the low half of each byte, the
//!   second in the high half.
//!
//! Steps follow each other along the columns, panels along the rows, so that a product with one
//! token reads memory from front to back. Groups are padded to whole steps and the last panel to
//! 32 rows; padding meets activations that are zero.
use crate::scheme::{IntScheme, QTensor};
use rayon::prelude::*;
use std::ops::Range;

/// Output rows of a panel.
pub const ROWS: usize = 32;
/// Columns of a step.
pub const STEP: usize = 8;
/// Columns that are summed in one 32-bit integer: 255 · 127 · 2^15 < 2^30, so neither a sum of
/// products nor its zero-point correction leaves the range. Larger groups are divided.
pub const MAX_GROUP: usize = 1 << 15;

/// 16 rows × 4 columns of 8-bit codes, or × 8 columns of 4-bit codes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Unit(pub [u8; 64]);

/// What a kernel has to know about a packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Bits of a code: 4 or 8.
    pub(super) bits: u32,
    /// Whether every zero point is 0.
    pub(super) symmetric: bool,
    /// Columns of the matrix.
    pub(super) columns: usize,
    /// Columns that share a scale.
    group_size: usize,
    /// Groups that each scale is divided into (1, but for groups above [`MAX_GROUP`]).
    parts: usize,
    /// Columns of a group after the division, the last part of a group may have fewer.
    part: usize,
    /// Steps of a group.
    steps: usize,
    /// Number of groups after the division.
    pub(super) groups: usize,
}

impl Form {
    /// The form of a matrix with `columns` columns; `None` when the group size does not divide
    /// them.
    pub fn new(scheme: IntScheme, columns: usize) -> Option<Self> {
        let (group_size, groups) = (scheme.group_size(columns), scheme.groups(columns)?);
        let parts = group_size.div_ceil(MAX_GROUP);
        let part = group_size.div_ceil(parts);
        let (steps, groups) = (part.div_ceil(STEP), groups * parts);
        let IntScheme { bits, symmetric, .. } = scheme;
        Some(Self { bits, symmetric, columns, group_size, parts, part, steps, groups })
    }

    /// Steps of a group.
    pub fn steps(self) -> usize {
        self.steps
    }

    /// Columns with padding.
    pub fn width(self) -> usize {
        self.groups * self.steps() * STEP
    }

    /// Units of a step.
    pub fn units(self) -> usize {
        self.bits as usize / 2
    }

    /// The unsigned code of value 0 where the grid is symmetric; also `-min_code`.
    pub fn middle(self) -> u8 {
        1 << (self.bits - 1)
    }

    /// The columns of a group.
    pub fn span(self, group: usize) -> Range<usize> {
        let end = (group / self.parts + 1) * self.group_size;
        let start = end - self.group_size + group % self.parts * self.part;
        start.min(end)..(start + self.part).min(end)
    }

    /// Whether padded columns lie where the columns themselves do.
    pub fn is_dense(self) -> bool {
        self.width() == self.columns
    }
}

/// An integer matrix `[out, in]`, packed.
#[derive(Clone, Debug)]
pub struct PackedLinear {
    form: Form,
    rows: usize,
    /// `[panel, group, step, unit]`.
    units: Vec<Unit>,
    /// `[panel, group]`.
    scales: Scales,
    /// `zero_point - min_code`, `[panel, group, row]`; empty for symmetric grids.
    zeros: Vec<u8>,
}

/// Scales of 32 rows each, in 16 bits where that loses nothing: with one for 32 codes of 4 bits
/// they are a ninth of the bytes instead of a fifth.
#[derive(Clone, Debug)]
enum Scales {
    F32(Vec<[f32; ROWS]>),
    /// The upper halves of float32.
    Bf16(Vec<[u16; ROWS]>),
}

/// Scales of a panel.
#[derive(Clone, Copy, Debug)]
pub(super) enum PanelScales<'a> {
    F32(&'a [[f32; ROWS]]),
    Bf16(&'a [[u16; ROWS]]),
}

/// 32 rows of a packed matrix.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// The form of its matrix.
    pub(super) form: Form,
    /// `[group, step, unit]`.
    pub(super) units: &'a [Unit],
    /// `[group]`.
    pub(super) scales: PanelScales<'a>,
    /// `[group, 32]`, or empty for symmetric grids.
    pub(super) zeros: &'a [u8],
}

impl PackedLinear {
    /// Packs a stack of weights of one scheme with the same number of columns, in order along
    /// the rows; `None` when their forms differ or a group size does not divide the columns.
    pub fn new(parts: &[QTensor]) -> Option<Self> {
        let first = parts.first()?;
        let form = Form::new(first.scheme, first.shape[1])?;
        if parts.iter().any(|part| Form::new(part.scheme, part.shape[1]) != Some(form)) {
            return None;
        }
        let rows: Vec<(&QTensor, usize)> =
            parts.iter().flat_map(|part| (0..part.shape[0]).map(move |row| (part, row))).collect();
        let panels = rows.len().div_ceil(ROWS);
        let panel_units = form.width() / STEP * form.units();
        let panel_groups = form.groups * ROWS;
        let mut units = vec![Unit([0; 64]); panels * panel_units];
        let mut scales = vec![[0.0; ROWS]; panels * form.groups];
        let mut zeros = vec![0; if form.symmetric { 0 } else { panels * panel_groups }];
        let columns = (
            units.par_chunks_mut(panel_units.max(1)),
            scales.par_chunks_mut(form.groups.max(1)),
            rows.par_chunks(ROWS),
        );
        columns.into_par_iter().for_each(|(units, scales, rows)| {
            for (lane, (tensor, row)) in rows.iter().enumerate() {
                pack_row(form, tensor, *row, lane, units);
                for group in 0..form.groups {
                    scales[group][lane] = tensor.qparams(*row, group / form.parts).scale;
                }
            }
        });
        for (panel, rows) in zeros.chunks_mut(panel_groups.max(1)).zip(rows.chunks(ROWS)) {
            for (lane, (tensor, row)) in rows.iter().enumerate() {
                for group in 0..form.groups {
                    let zero_point = tensor.qparams(*row, group / form.parts).zero_point;
                    panel[group * ROWS + lane] = unsigned(form, zero_point);
                }
            }
        }
        Some(Self { form, rows: rows.len(), units, scales: Scales::new(scales), zeros })
    }

    /// The form of the matrix.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn columns(&self) -> usize {
        self.form.columns
    }

    /// Bytes that one pass over the matrix reads.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.units) + self.scales.bytes() + self.zeros.len()
    }

    /// Panels with their numbers of rows that are not padding: `[0, panels)`.
    pub fn panel(&self, index: usize) -> Panel<'_> {
        let form = self.form;
        let (units, groups) = (form.width() / STEP * form.units(), form.groups * ROWS);
        Panel {
            form,
            units: &self.units[index * units..(index + 1) * units],
            scales: self.scales.of(index * form.groups..(index + 1) * form.groups),
            zeros: if form.symmetric {
                &[]
            } else {
                &self.zeros[index * groups..(index + 1) * groups]
            },
        }
    }
}

impl Scales {
    fn new(scales: Vec<[f32; ROWS]>) -> Self {
        if scales.iter().flatten().any(|scale| scale.to_bits() & 0xffff != 0) {
            return Self::F32(scales);
        }
        let upper = |scale: f32| (scale.to_bits() >> 16) as u16;
        Self::Bf16(scales.into_iter().map(|row| row.map(upper)).collect())
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(scales) => size_of_val(&**scales),
            Self::Bf16(scales) => size_of_val(&**scales),
        }
    }

    fn of(&self, groups: Range<usize>) -> PanelScales<'_> {
        match self {
            Self::F32(scales) => PanelScales::F32(&scales[groups]),
            Self::Bf16(scales) => PanelScales::Bf16(&scales[groups]),
        }
    }
}

/// A code without its sign; codes lie on the grid, the mask keeps others from their neighbours.
fn unsigned(form: Form, code: i8) -> u8 {
    (code as u8).wrapping_add(form.middle()) & if form.bits == 4 { 15 } else { 255 }
}

/// Writes the codes of one row to the units of its panel.
fn pack_row(form: Form, tensor: &QTensor, row: usize, lane: usize, units: &mut [Unit]) {
    let codes = &tensor.codes[row * form.columns..][..form.columns];
    let (tile, at) = (lane / 16, lane % 16 * 4);
    for group in 0..form.groups {
        let steps = units[group * form.steps() * form.units()..].chunks_mut(form.units());
        for (step, codes) in steps.zip(codes[form.span(group)].chunks(STEP)) {
            for (i, code) in codes.iter().enumerate() {
                let (quad, byte, code) = (i / 4, at + i % 4, unsigned(form, *code));
                match form.bits {
                    4 => step[tile].0[byte] |= code << (4 * quad),
                    _ => step[quad * 2 + tile].0[byte] = code,
                }
            }
        }
    }
}

impl Panel<'_> {
    /// The scales of a group.
    #[inline(always)]
    pub(super) fn scales(&self, group: usize) -> [f32; ROWS] {
        match self.scales {
            PanelScales::F32(scales) => scales[group],
            PanelScales::Bf16(scales) => {
                let mut wide = [0.0; ROWS];
                for (wide, upper) in wide.iter_mut().zip(&scales[group]) {
                    *wide = f32::from_bits(u32::from(*upper) << 16);
                }
                wide
            }
        }
    }

    /// Groups that have scales.
    pub(super) fn scaled_groups(&self) -> usize {
        match self.scales {
            PanelScales::F32(scales) => scales.len(),
            PanelScales::Bf16(scales) => scales.len(),
        }
    }

    /// The unsigned code at a lane of a step's column, `[0, 8)`.
    pub fn code(&self, group: usize, step: usize, column: usize, lane: usize) -> u8 {
        let units = &self.units[(group * self.form.steps() + step) * self.form.units()..];
        let (tile, quad, byte) = (lane / 16, column / 4, lane % 16 * 4 + column % 4);
        match self.form.bits {
            4 => (units[tile].0[byte] >> (4 * quad)) & 15,
            _ => units[quad * 2 + tile].0[byte],
        }
    }

    /// The unsigned code of value 0 at a lane of a group.
    pub fn zero(&self, group: usize, lane: usize) -> u8 {
        self.zeros.get(group * ROWS + lane).copied().unwrap_or(self.form.middle())
    }
}
