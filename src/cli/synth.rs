//! `milm-compress synth`: random checkpoints of planning shapes.
use super::{Context, Outcome, model::FloatName};
use crate::{
    checkpoint::{
        OutputDir,
        synth::{SHAPES, Shape, Synth},
    },
    quantize::ShardSize,
};
use anyhow::Context as _;
use std::path::PathBuf;

/// Write a random checkpoint of a named shape
///
/// For capacity and speed work: normally distributed weights in the shapes that are planned for.
/// The shapes are this project's own. Those with a vocabulary of at least 4096 get the tokenizer of
/// milm-mini, so that they can be calibrated and run on text.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress synth --shape milm2-6b -o ./milm2-6b\n  \
    milm-compress synth --shape tiny --dtype f32 --seed 7 -o ./tiny\n\n\
    Shapes: tiny, milm2-0.3b, milm2-0.7b, milm2-1.3b, milm2-2b, milm2-4b, milm2-6b, milm2-13b, \
    milm2-30b, and mixtures of experts tiny-x4, milm2-0.7b-x8, milm2-2b-x8")]
pub(super) struct Args {
    /// Name of the shape
    #[arg(long)]
    shape: String,
    /// Folder to write
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Type of the weights
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: FloatName,
    /// Largest safetensors file, e.g. 500MB
    #[arg(long, value_name = "SIZE", default_value_t)]
    shard_size: ShardSize,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
    let shape = Shape::find(&args.shape).with_context(|| {
        format!("unknown shape `{}`\nhint: known are {}", args.shape, names.join(", "))
    })?;
    let spec = shape.spec()?;
    let dtype = args.dtype.float();
    let synth = Synth {
        shape,
        dtype,
        seed: context.seed,
        shard_bytes: args.shard_size.0,
        team: &context.team,
        progress: context.progress(),
    };
    let output = OutputDir::create(&args.output, context.force)?;
    synth.write(&spec, &output)?;
    output.commit()?;
    context.note(format_args!(
        "{}: {:.2}B parameters, {:.2} GB",
        args.output.display(),
        spec.parameters() as f64 / 1e9,
        spec.parameters() as f64 * dtype.size() as f64 / 1e9
    ));
    Ok(Outcome::Done)
}
