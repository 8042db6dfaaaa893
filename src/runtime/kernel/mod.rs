//! Integer matrix products, one instruction set per file, chosen at run time.
//!
//! Weights are packed once ([`PackedLinear`]), activations at each product ([`Int8Rows`]). Every
//! kernel gives the integers of `scalar.rs`, and since each also combines them by the same float
//! operations in the same order, the same bits. Add an instruction set: one file with the four
//! functions of `scalar.rs`, one [`Isa`], one arm in each `match` below.
#![expect(unsafe_code, reason = "vector instructions; audited here and in the files below")]

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod half;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packed;
mod product;
mod scalar;

pub use activations::{Block, Int8Rows, TOKENS};
pub use packed::{Form, MAX_GROUP, PackedLinear, Panel, ROWS, STEP, Unit};

use ndarray::ArrayViewMut2;
use std::sync::OnceLock;

/// An instruction set that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// Plain Rust.
    pub const SCALAR: Self = Self(Kind::Scalar);

    /// Every set of this processor with its name, the fastest first.
    pub fn available() -> Vec<(&'static str, Self)> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                all.push(("avx512", Self(Kind::Avx512)));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(("avx2", Self(Kind::Avx2)));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            all.push(("neon", Self(Kind::Neon)));
        }
        all.push(("scalar", Self::SCALAR));
        all
    }

    /// The set in use: the fastest, or the one that `MILM_COMPRESS_ISA` names if the processor
    /// has it.
    pub fn active() -> Self {
        static ACTIVE: OnceLock<Isa> = OnceLock::new();
        *ACTIVE.get_or_init(|| {
            let available = Self::available();
            let wanted = std::env::var("MILM_COMPRESS_ISA").ok();
            let chosen = available.iter().find(|(name, _)| wanted.as_deref() == Some(name));
            if let (Some(wanted), None) = (&wanted, chosen) {
                tracing::warn!("MILM_COMPRESS_ISA: this processor has no `{wanted}` kernels");
            }
            chosen.or(available.first()).map_or(Self::SCALAR, |(_, isa)| *isa)
        })
    }

    /// The integer sums `Σ (code - zero_point) · a` of every group, `[group, token, 32]`.
    pub fn sums(self, panel: &Panel<'_>, block: Block<'_>, out: &mut Vec<[i32; ROWS]>) {
        check(panel, block);
        match self.0 {
            Kind::Scalar => scalar::sums(panel, block, out),
            // SAFETY: only `available` makes this kind, after it found the features; shapes
            // were checked above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { avx512::sums(panel, block, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::sums(panel, block, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => unsafe { neon::sums(panel, block, out) },
        }
    }

    /// `y ← x·Wᵀ` in integers for one block of tokens and one panel: `y` is `[tokens, rows]`
    /// with at most 32 rows; elements of one token are contiguous.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn integer(self, panel: &Panel<'_>, block: Block<'_>, y: ArrayViewMut2<'_, f32>) {
        check(panel, block);
        assert!(y.nrows() == block.scales.len() && y.ncols() <= ROWS, "output {:?}", y.dim());
        match self.0 {
            Kind::Scalar => scalar::integer(panel, block, y),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { avx512::integer(panel, block, y) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::integer(panel, block, y) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => unsafe { neon::integer(panel, block, y) },
        }
    }

    /// `y ← x·Wᵀ` with float activations for one token and one panel: `x` is `[width]`, padded.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn float(self, panel: &Panel<'_>, x: &[f32], y: &mut [f32; ROWS]) {
        check_panel(panel);
        assert!(x.len() == panel.form.width(), "columns");
        match self.0 {
            Kind::Scalar => scalar::float(panel, x, y),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { avx512::float(panel, x, y) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::float(panel, x, y) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => unsafe { neon::float(panel, x, y) },
        }
    }

    /// As [`Self::float`] of each token, to the same bits: `x` is `[width, tokens]`, at most
    /// [`TOKENS`] of them, as many as `y` has rows.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn floats(self, panel: &Panel<'_>, x: &[f32], y: &mut [[f32; ROWS]]) {
        check_panel(panel);
        let (width, tokens) = (panel.form.width(), y.len());
        assert!(tokens <= TOKENS && x.len() == width * tokens, "tokens of a panel's width");
        match self.0 {
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 if tokens > 1 => unsafe { avx512::floats(panel, x, y) },
            _ => {
                for (token, y) in y.iter_mut().enumerate() {
                    let x: Vec<f32> = x[token..].iter().step_by(tokens).copied().collect();
                    self.float(panel, &x, y);
                }
            }
        }
    }

    /// The weights of a panel in float32, transposed: `out[column · stride + row]`.
    ///
    /// # Panics
    /// When `out` is too short.
    pub fn dequantize(self, panel: &Panel<'_>, out: &mut [f32], stride: usize) {
        check_panel(panel);
        let last = panel.form.columns.saturating_sub(1) * stride;
        assert!(stride >= ROWS && out.len() >= last + ROWS, "room for a panel");
        match self.0 {
            Kind::Scalar => scalar::dequantize(panel, out, stride),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { avx512::dequantize(panel, out, stride) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::dequantize(panel, out, stride) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => unsafe { neon::dequantize(panel, out, stride) },
        }
    }
}

/// What every kernel relies on.
fn check_panel(panel: &Panel<'_>) {
    let form = panel.form;
    let zeros = if form.symmetric { 0 } else { form.groups * ROWS };
    assert!(
        panel.units.len() == form.width() / STEP * form.units()
            && panel.scaled_groups() == form.groups
            && panel.zeros.len() == zeros,
        "a panel of its form"
    );
}

/// What every kernel with integer activations relies on.
fn check(panel: &Panel<'_>, block: Block<'_>) {
    check_panel(panel);
    let (form, tokens) = (panel.form, block.scales.len());
    assert!(
        tokens <= TOKENS
            && block.words.len() == form.width() / 4 * tokens
            && block.sums.len() == form.groups * tokens,
        "activations of the panel's form"
    );
}

#[cfg(test)]
mod tests;
