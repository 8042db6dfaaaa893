//! Runs checkpoints and packages on the processor, in their integers.

mod backend;
mod bench;
mod engine;
mod generate;
pub mod kernel;
mod sample;
mod split;

pub use backend::Kernels;
pub use bench::{BenchReport, BenchSettings, Spread, measure, read_rate, weight_bytes_per_token};
pub use engine::Engine;
pub use generate::{GenerateError, GenerateSettings, Generated, NextToken, StopReason, generate};
pub use sample::{SampleError, Sampler, SamplingSettings};
