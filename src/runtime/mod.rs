//! Runs checkpoints and packages on the processor, in their integers.

mod backend;
mod bench;
mod bench_offers;
mod decode;
mod engine;
mod integer;
pub mod kernel;
mod sample;
mod split;
mod spread;
mod states;

pub use backend::Kernels;
pub use bench::{
    BenchReport, BenchSettings, measure, prompt_tokens, read_rate, weight_bytes_per_token,
};
pub use bench_offers::{OffersReport, measure_offers};
pub use decode::{
    Counts, Draft, DraftError, GenerateError, GenerateSettings, Generated, Job, KV_BUDGET, Lookup,
    Medusa, Mtp, NextToken, Offers, Plain, Position, Proposer, Scripted, Speculation, StopReason,
    generate, generate_all, generate_all_with, generate_with, same_vocabulary, width,
};
pub use engine::{Engine, Sequence};
pub use sample::{SampleError, Sampler, SamplingSettings};
pub use spread::Spread;
pub use states::{States, Wanted};
