//! `milm-compress export`: a model in the form of another engine.
use super::{Context, Outcome, device::Device, model::FloatName, verify};
use crate::{
    checkpoint::{OutputDir, OutputFile},
    model::ModelSpec,
    package::{self, Opened, gguf, onnx},
    scheme::{
        TensorScheme,
        ggml::{ROUNDINGS, Rounding},
    },
    tensor::FloatType,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Write a model in the form of another engine
///
/// GGUF, for llama.cpp and what is built on it: weights, metadata, vocabulary and chat template in
/// one file. Quantized weights keep their codes: int4 in groups of 32·k becomes Q4_0, with zero
/// points Q4_1, int8 Q8_0; scales become float16, and what that changed is told. Llama, Mistral,
/// Qwen2 and Qwen3, mixtures of experts of them too; blocks that differ in sizes go out under the
/// architecture `deci`. What llama.cpp cannot compute is refused before anything is written.
///
/// ONNX, for ONNX Runtime and converters of devices: a folder with the decoder as a graph of plain
/// operators, its weights beside it, keys and values as inputs and outputs. Quantized weights keep
/// their codes (`--graph qdq`), or become floats with encodings for AIMET and QNN (`--graph float`).
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress export builtin:milm-mini --to gguf -o milm-mini.gguf\n  \
    milm-compress export ./smollm2 --to gguf -o smollm2-f16.gguf --dtype f16\n  \
    milm-compress export ./package --to gguf -o smollm2-q4_0.gguf\n  \
    milm-compress export ./package --to gguf --embeddings q6_k -o small.gguf\n  \
    milm-compress export ./package --to onnx -o smollm2-onnx\n  \
    milm-compress export ./package --to onnx --graph float -o smollm2-qnn")]
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
    /// File to write; of ONNX a folder
    #[arg(short, long, value_name = "FILE.gguf|DIR")]
    output: PathBuf,
    /// Float format of matrices that are not quantized [default: the model's own; f32 in ONNX]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<FloatName>,
    /// Round the embeddings to blocks of this type; of tied models the head with them
    #[arg(long, value_enum, value_name = "TYPE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    embeddings: Option<BlockName>,
    /// Round the head to blocks of this type
    #[arg(long, value_enum, value_name = "TYPE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<BlockName>,
    /// llama.cpp's name of the pre-tokenizer, where it is not recognized
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pre: Option<String>,
    /// The form of an ONNX graph [default: qdq of quantized models, else float]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    graph: Option<GraphName>,
    /// Version of the encodings beside a float graph of a quantized model [default: 1.0.0]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    encodings: Option<EncodingsName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
enum EncodingsName {
    /// Lists of scales and offsets
    #[value(name = "1.0.0")]
    #[serde(rename = "1.0.0")]
    V1,
    /// As QuantizeLinear says them
    #[value(name = "2.0.0")]
    #[serde(rename = "2.0.0")]
    V2,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    /// One file for llama.cpp
    #[default]
    Gguf,
    /// A folder for ONNX Runtime and converters of devices
    Onnx,
}

/// A type of blocks that floats are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BlockName {
    /// 4.5 bits per weight, rows that 32 divides
    #[value(name = "q4_0")]
    #[serde(rename = "q4_0")]
    Q4Zero,
    /// 8.5 bits, rows that 32 divides
    #[value(name = "q8_0")]
    #[serde(rename = "q8_0")]
    Q8Zero,
    /// 4.5 bits, rows that 256 divides
    #[value(name = "q4_k")]
    #[serde(rename = "q4_k")]
    Q4K,
    /// 6.6 bits, rows that 256 divides
    #[value(name = "q6_k")]
    #[serde(rename = "q6_k")]
    Q6K,
}

impl BlockName {
    fn rounding(self) -> Option<Rounding> {
        let name = match self {
            Self::Q4Zero => "Q4_0",
            Self::Q8Zero => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        };
        ROUNDINGS.iter().copied().find(|it| it.format.name() == name)
    }
}

/// How an ONNX graph says what is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum GraphName {
    /// Codes with DequantizeLinear, activations through QuantizeLinear
    Qdq,
    /// Float weights; what they are rounded to in encodings beside the graph
    Float,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    if args.device != Device::default() {
        args.device.check(&package::open(&args.model)?.model, context)?;
    }
    write(&args.model, &args.settings, context)?;
    Ok(Outcome::Done)
}

impl Settings {
    /// Refuses settings of another form: they would do nothing.
    fn coherent(&self) -> anyhow::Result<()> {
        let (form, other) = match self.to {
            Form::Gguf => {
                let graph = ("graph", self.graph.is_some());
                ("gguf", vec![graph, ("encodings", self.encodings.is_some())])
            }
            Form::Onnx => (
                "onnx",
                vec![
                    ("pre", self.pre.is_some()),
                    ("embeddings", self.embeddings.is_some()),
                    ("head", self.head.is_some()),
                    ("encodings", self.encodings.is_some() && self.graph != Some(GraphName::Float)),
                ],
            ),
        };
        match other.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => anyhow::bail!(
                "`{flag}` means nothing in this form of `{form}`\nhint: leave it out; encodings stand \
                 beside float graphs (--graph float)"
            ),
        }
    }

    /// What embeddings and head are rounded to.
    fn ends(&self) -> gguf::Ends {
        let rounding = |name: Option<BlockName>| name.and_then(BlockName::rounding);
        gguf::Ends { embeddings: rounding(self.embeddings), head: rounding(self.head) }
    }

    /// Refuses what the form cannot say of a model that may end with one of these architectures and
    /// with these schemes, and an output that is there.
    pub(super) fn check(
        &self,
        specs: &[ModelSpec],
        schemes: &BTreeMap<String, (TensorScheme, [usize; 2])>,
        context: &Context,
    ) -> anyhow::Result<()> {
        self.coherent()?;
        anyhow::ensure!(
            !self.output.as_os_str().is_empty(),
            "`output` is missing\nhint: name the file to write"
        );
        match self.to {
            Form::Gguf => OutputFile::check(&self.output, context.force)?,
            Form::Onnx => OutputDir::check(&self.output, context.force)?,
        }
        for spec in specs {
            match self.to {
                Form::Gguf => {
                    gguf::accepts(spec)?;
                    gguf::accepts_schemes(spec, schemes)?;
                    self.ends().accepts(spec)?;
                }
                Form::Onnx => onnx::accepts(spec)?,
            }
        }
        Ok(())
    }
}

/// Writes a model in the form of another engine.
pub(super) fn write(model: &str, args: &Settings, context: &Context) -> anyhow::Result<()> {
    args.coherent()?;
    let opened = package::open(model)?;
    // What is refused without reading the weights comes before they are all read.
    let Opened { model: found, .. } = &opened;
    args.check(std::slice::from_ref(&found.spec), &found.weights.quantized, context)?;
    if opened.manifest.is_some() {
        verify::intact(model, "exported", context)?;
    }
    match args.to {
        Form::Gguf => write_gguf(&opened, args, context),
        Form::Onnx => write_onnx(&opened, args, context),
    }
}

fn write_onnx(opened: &Opened, args: &Settings, context: &Context) -> anyhow::Result<()> {
    let chain = opened.manifest.as_ref().map(|it| (it.sha256.as_str(), it.source.sha256.as_str()));
    let float = args.dtype.map_or(FloatType::F32, FloatName::float);
    let quantized = !opened.model.weights.quantized.is_empty();
    let form = match args.graph {
        Some(GraphName::Float) => onnx::GraphForm::Float,
        None if !quantized => onnx::GraphForm::Float,
        _ => onnx::GraphForm::Qdq,
    };
    let options = onnx::ExportOptions { form, float, chain };
    let export = onnx::Export::plan(&opened.model, options)?;
    let output = OutputDir::create(&args.output, context.force)?;
    let mut files = export.write(&output, &opened.folder, context.progress())?;
    let grids = quantized || !opened.model.weights.activations.is_empty();
    if form == onnx::GraphForm::Float && grids {
        let version = match args.encodings {
            Some(EncodingsName::V2) => onnx::EncodingsVersion::V2,
            _ => onnx::EncodingsVersion::V1,
        };
        let covered = export.write_encodings_file(&output, version, &mut files)?;
        context.note(format_args!(
            "{}: {} weights and {} activations; {} listed in {} have none",
            onnx::ENCODINGS_FILE,
            covered.weights,
            covered.activations,
            covered.open_weights.len() + covered.open_activations.len(),
            onnx::UNCOVERED_FILE
        ));
    }
    package::seal_onnx(opened, &export, files, &output, context.progress())?;
    output.commit()?;
    for note in export.notes() {
        context.note(note);
    }
    context.note(format_args!(
        "{}: {} nodes, {} tensors, {:.1} MB",
        args.output.display(),
        export.nodes(),
        export.tensors(),
        export.bytes() as f64 / 1e6
    ));
    Ok(())
}

fn write_gguf(opened: &Opened, args: &Settings, context: &Context) -> anyhow::Result<()> {
    let text = opened.text()?;
    let chain = opened.manifest.as_ref().map(|it| (it.sha256.as_str(), it.source.sha256.as_str()));
    let (float, pre) = (args.dtype.map(FloatName::float), args.pre.as_deref());
    let options = gguf::ExportOptions { float, pre, chain, ends: args.ends() };
    let export = gguf::Export::plan(&opened.model, &text.files(), options)?;
    let mut file = OutputFile::create(&args.output, context.force)?;
    let rounded = export.write(&mut file, context.progress())?;
    file.commit()?;
    for note in export.notes() {
        context.note(note);
    }
    for it in rounded {
        let twice = if it.twice { ", of what it was rounded to before" } else { "" };
        context.note(format_args!(
            "tensor `{}` rounded to {}: relative error {:.4}{twice}",
            it.name, it.format, it.error
        ));
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
