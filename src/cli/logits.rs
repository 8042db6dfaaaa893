//! `milm-compress logits`: the door for comparing with other tools.
use super::{Context, Outcome, model::BackendName};
use crate::{checkpoint, forward, number::whole, package, tensor::RawTensor};
use anyhow::Context as _;
use safetensors::{Dtype, tensor::TensorView};
use std::path::PathBuf;

/// Write the logits of a sequence
///
/// OUT holds `input_ids`, int64 [tokens], and `logits`, float32 [tokens, vocab].
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress logits builtin:milm-mini --ids 5,9,2 -o logits.safetensors\n  \
    milm-compress logits ./smollm2 --prompt 'Hello world' -o logits.safetensors")]
pub(super) struct Args {
    /// Checkpoint, package, or builtin:milm-mini
    model: String,
    /// Token ids, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = whole::<u32>(0..=u32::MAX.into()), required_unless_present = "prompt")]
    ids: Vec<u32>,
    /// Text, turned into tokens by the model's tokenizer
    #[arg(long, conflicts_with = "ids")]
    prompt: Option<String>,
    /// File to write
    #[arg(short, long, value_name = "OUT.safetensors")]
    output: PathBuf,
    /// float32 reference, or the packed kernels that `run` uses
    #[arg(long, value_enum, default_value = "reference")]
    backend: BackendName,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let opened = package::open(&args.model)?;
    let ids = match &args.prompt {
        Some(prompt) => opened.tokenizer()?.encode(prompt, true)?,
        None => args.ids.clone(),
    };
    let backend = args.backend.backend();
    let logits = forward::logits(&opened.model, &*backend, &ids, &context.team)?;
    let values = RawTensor::from_f32(
        logits.shape().to_vec(),
        logits.as_slice().context("logits are contiguous")?,
    );
    let id_bytes: Vec<u8> = ids.iter().flat_map(|id| i64::from(*id).to_le_bytes()).collect();
    let file = safetensors::serialize(
        [
            ("input_ids", TensorView::new(Dtype::I64, vec![ids.len()], &id_bytes)?),
            ("logits", TensorView::new(Dtype::F32, values.shape.clone(), &values.bytes)?),
        ],
        None,
    )?;
    checkpoint::write_file(&args.output, &file, context.force)?;
    context.note(format_args!("{}: {} × {}", args.output.display(), ids.len(), logits.ncols()));
    Ok(Outcome::Done)
}
