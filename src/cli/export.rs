//! `milm-compress export`: a model in the form of another engine.
use super::{Context, Outcome, device::Device, model::FloatName};
use crate::{
    checkpoint::OutputFile,
    model::ModelSpec,
    package::{self, gguf},
    scheme::TensorScheme,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Write a model in the form of another engine
///
/// GGUF, for llama.cpp and what is built on it: weights, metadata, vocabulary and chat template in
/// one file. Quantized weights keep their codes: int4 in groups of 32·k becomes Q4_0, with zero
/// points Q4_1, int8 Q8_0; scales become float16, and what that changed is told. Llama, Mistral, Qwen2 and Qwen3; blocks that differ in sizes go out under
/// the architecture `deci`. What llama.cpp cannot compute is refused before anything is written.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress export builtin:milm-mini --to gguf -o milm-mini.gguf\n  \
    milm-compress export ./smollm2 --to gguf -o smollm2-f16.gguf --dtype f16\n  \
    milm-compress export ./package --to gguf -o smollm2-q4_0.gguf")]
pub(super) struct Args {
    /// Checkpoint, package, or builtin:milm-mini
    model: String,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    device: Device,
}

/// Settings of `export`. Every field is a flag and a recipe key of the same name.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Settings {
    /// The form
    #[arg(long, value_enum)]
    to: Form,
    /// File to write
    #[arg(short, long, value_name = "FILE.gguf")]
    output: PathBuf,
    /// Float format of matrices that are not quantized [default: the model's own]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<FloatName>,
    /// llama.cpp's name of the pre-tokenizer, where it is not recognized
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pre: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    /// One file for llama.cpp
    #[default]
    Gguf,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    if args.device != Device::default() {
        args.device.check(&package::open(&args.model)?.model, context)?;
    }
    write(&args.model, &args.settings, context)?;
    Ok(Outcome::Done)
}

impl Settings {
    /// Refuses what the form cannot say of a model that may end with one of these architectures and
    /// with these schemes, and an output that is there.
    pub(super) fn check(
        &self,
        specs: &[ModelSpec],
        schemes: &BTreeMap<String, (TensorScheme, [usize; 2])>,
        context: &Context,
    ) -> anyhow::Result<()> {
        let Form::Gguf = self.to;
        anyhow::ensure!(
            !self.output.as_os_str().is_empty(),
            "`output` is missing\nhint: name the file to write"
        );
        anyhow::ensure!(
            context.force || !self.output.exists(),
            "`{}` exists\nhint: choose another name, or replace it with --force",
            self.output.display()
        );
        for spec in specs {
            gguf::accepts(spec)?;
        }
        Ok(gguf::accepts_schemes(schemes)?)
    }
}

/// Writes a model in the form of another engine.
pub(super) fn write(model: &str, args: &Settings, context: &Context) -> anyhow::Result<()> {
    let Form::Gguf = args.to;
    let opened = package::open(model)?;
    gguf::accepts(&opened.model.spec)?;
    gguf::accepts_schemes(&opened.model.weights.quantized)?;
    let text = opened.text()?;
    let chain = opened.manifest.as_ref().map(|it| (it.sha256.as_str(), it.source.sha256.as_str()));
    let (float, pre) = (args.dtype.map(FloatName::float), args.pre.as_deref());
    let options = gguf::ExportOptions { float, pre, chain };
    let export = gguf::Export::plan(&opened.model, &text.files(), options)?;
    let mut file = OutputFile::create(&args.output, context.force)?;
    export.write(&mut file, context.progress())?;
    file.commit()?;
    for note in export.notes() {
        context.note(note);
    }
    context.note(format_args!(
        "{}: {} tensors, {}, architecture {}, {:.1} MB",
        args.output.display(),
        export.tensors(),
        export.common_format(),
        export.arch().name(),
        export.bytes() as f64 / 1e6
    ));
    Ok(())
}
