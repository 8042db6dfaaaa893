//! Runs checkpoints and packages on the processor, in their integers.

mod backend;
mod bench;
mod decode;
mod engine;
mod integer;
pub mod kernel;
mod sample;
mod split;
mod states;

pub use backend::Kernels;
pub use bench::{BenchReport, BenchSettings, Spread, measure, read_rate, weight_bytes_per_token};
pub use decode::{
    Counts, Draft, DraftError, GenerateError, GenerateSettings, Generated, Job, KV_BUDGET, Lookup,
    Medusa, Mtp, NextToken, Offers, Plain, Position, Proposer, Speculation, StopReason, generate,
    generate_all, generate_all_with, generate_with, same_vocabulary, width,
};
pub use engine::{Engine, Sequence};
pub use sample::{SampleError, Sampler, SamplingSettings};
pub use states::{States, Wanted};
