//! The forward pass over a declared model, in float32.

mod linear;

pub use linear::{Backend, Dense, Linear, Reference, SideBySide};
