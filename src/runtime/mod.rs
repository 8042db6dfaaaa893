//! Runs checkpoints and packages on the processor, in their integers.

mod backend;
mod batch;
mod bench;
mod engine;
mod generate;
mod integer;
pub mod kernel;
mod sample;
mod split;

pub use backend::Kernels;
pub use batch::{Job, KV_BUDGET, generate_all, width};
pub use bench::{BenchReport, BenchSettings, Spread, measure, read_rate, weight_bytes_per_token};
pub use engine::{Engine, Sequence};
pub use generate::{GenerateError, GenerateSettings, Generated, NextToken, StopReason, generate};
pub use sample::{SampleError, Sampler, SamplingSettings};
