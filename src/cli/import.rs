//! `milm-compress import`: a GGUF file as a Hugging Face directory.
use super::{Context, Outcome, model::FloatName};
use crate::{checkpoint::OutputDir, package::gguf};
use std::path::PathBuf;

/// Turn a GGUF file into a Hugging Face directory
///
/// Writes config.json, tokenizer and chat template, and the weights as floats: llama, qwen2 and
/// qwen3, mixtures of experts of them too, with F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to
/// Q6_K, IQ4_NL, IQ4_XS and MXFP4 tensors. Of a file in parts (`NAME-00001-of-0000N.gguf`) any part is named.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress import SmolLM2-135M-Instruct.Q4_1.gguf -o smollm2\n  \
    milm-compress import qwen2.5-0.5b-q8_0.gguf -o qwen2.5 --dtype bf16")]
pub(super) struct Args {
    /// The GGUF file
    #[arg(value_name = "FILE.gguf")]
    file: PathBuf,
    /// Folder to write
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Float format of the weights; f32 holds every value exactly
    #[arg(long, value_enum, default_value_t)]
    dtype: FloatName,
    /// Take NaN and infinity over instead of stopping there
    #[arg(long)]
    allow_nonfinite: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    let gguf = gguf::open(&args.file)?;
    let mut import = gguf::Import::plan(&gguf, args.dtype.float())?;
    import.allow_nonfinite = args.allow_nonfinite;
    let output = OutputDir::create(&args.output, context.force)?;
    import.write(&output, context.progress())?;
    output.commit()?;
    for extra in import.extras() {
        context.note(format_args!("tensor `{extra}`: unknown, carried over as it is"));
    }
    context.note(format_args!(
        "{}: {} tensors, {} parameters, {}",
        args.output.display(),
        import.tensors(),
        import.parameters(),
        args.dtype.float().config_name()
    ));
    Ok(Outcome::Done)
}
