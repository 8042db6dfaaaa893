//! Runs checkpoints and packages on the processor, in their integers.

mod engine;
pub mod kernel;

pub use engine::Engine;
