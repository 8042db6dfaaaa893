//! The forward pass over a declared model, in float32: products accumulate in float32 (fused
//! multiply-add), rotary angles are computed in float64.
//!
//! One interpreter serves every family: [`BlockWeights`] runs the ops that a
//! [`Block`](crate::model::Block) lists, and a [`Backend`] decides how weights are held and multiplied.
mod attention;
mod block;
mod ends;
mod fault;
mod grids;
mod heads;
mod kv_cache;
mod linear;
mod mlp;
mod next;
mod points;
mod projection;
mod rotary;
mod runner;
mod scratch;
mod tap;
mod walk;

pub use crate::model::Half;
pub use block::BlockWeights;
pub use ends::{Embedding, ForwardError, Head};
pub use fault::Fault;
pub use grids::Ranges;
pub use kv_cache::{Branch, KvCache, Memory};
pub use linear::{Backend, Dense, Linear, Reference, Rows, SideBySide};
pub(crate) use mlp::route;
pub use next::NextLayer;
pub use points::Point;
pub(crate) use projection::each_row;
pub use rotary::{Rotary, RotaryCache};
pub use runner::Runner;
pub use scratch::{Run, Scratch};
pub use tap::{NoTap, Site, Tap};
pub use walk::{each_logits, logits, walk};
