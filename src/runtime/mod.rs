//! Runs checkpoints and packages on the processor, in their integers.

mod backend;
mod bench;
mod engine;
pub mod kernel;

pub use backend::Kernels;
pub use bench::{BenchReport, BenchSettings, Spread, measure, read_rate, weight_bytes_per_token};
pub use engine::Engine;
