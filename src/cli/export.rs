//! `milm-compress export`: a model in the form of another engine.
use super::{Context, Outcome, device::Device, form::Form, model::FloatName, verify};
use crate::{
    checkpoint::{OutputDir, OutputFile},
    model::ModelSpec,
    number::whole,
    package::{
        self, Opened,
        format::{EncodingsVersion, GraphForm, Target, Wanted},
    },
    scheme::{Schemes, ggml::Rounding},
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Write a model in the form of another engine
///
/// GGUF, for llama.cpp and what is built on it: weights, metadata, vocabulary and chat template in
/// one file. Quantized weights keep their codes: int4 in groups of 32·k becomes Q4_0, with zero
/// points Q4_1, int8 Q8_0, mxfp4 MXFP4; scales of integers become float16, and what that changed is told. Llama, Mistral,
/// Qwen2, Qwen3 and Gemma 3, mixtures of experts of the first four too; blocks that differ in sizes go out under the
/// architecture `deci`. What llama.cpp cannot compute is refused before anything is written.
///
/// ONNX, for ONNX Runtime and converters of devices: a folder with the decoder as a graph of plain
/// operators, its weights beside it, keys and values as inputs and outputs. Quantized weights keep
/// their codes (`--graph qdq`), or become floats with encodings for AIMET and QNN (`--graph float`).
///
/// Hexagon, for Qualcomm's NPU (HTP) by onnxruntime-qnn: graphs of fixed shapes for prompts and for a token over
/// one file of weights, the options of their sessions, and a short program that writes text with them.
///
/// OpenVINO, for its runtime and OpenVINO GenAI: a folder with the decoder as a network that holds keys and values
/// itself. Codes stay codes, and products compute with float activations unless the package has others.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress export builtin:milm-mini --to gguf -o milm-mini.gguf\n  \
    milm-compress export ./smollm2 --to gguf -o smollm2-f16.gguf --dtype f16\n  \
    milm-compress export ./package --to gguf -o smollm2-q4_0.gguf\n  \
    milm-compress export ./package --to gguf --embeddings q6_k -o small.gguf\n  \
    milm-compress export ./package --to onnx -o smollm2-onnx\n  \
    milm-compress export ./package --to onnx --graph float -o smollm2-qnn\n  \
    milm-compress export ./package --to hexagon --context 1024 -o smollm2-htp\n  \
    milm-compress export ./package --to openvino -o smollm2-ov")]
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
    /// File to write; of ONNX, Hexagon and OpenVINO a folder
    #[arg(short, long, value_name = "FILE.gguf|DIR")]
    output: PathBuf,
    /// Float format of matrices that are not quantized [default: the model's own; f32 in ONNX and OpenVINO]
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
    /// Tokens of a whole text in graphs of fixed shapes (hexagon) [default: 2048, or what the model has]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(0..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<usize>,
    /// Tokens of a prompt that such a graph reads at once [default: 64]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<usize>,
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
        Rounding::all().find(|it| it.format.name() == name)
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

impl GraphName {
    fn form(self) -> GraphForm {
        match self {
            Self::Qdq => GraphForm::Qdq,
            Self::Float => GraphForm::Float,
        }
    }
}

impl EncodingsName {
    fn version(self) -> EncodingsVersion {
        match self {
            Self::V1 => EncodingsVersion::V1,
            Self::V2 => EncodingsVersion::V2,
        }
    }
}

impl Settings {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            float: self.dtype.map(FloatName::float),
            embeddings: self.embeddings.and_then(BlockName::rounding),
            head: self.head.and_then(BlockName::rounding),
            pre: self.pre.as_deref(),
            graph: self.graph.map(GraphName::form),
            encodings: self.encodings.map(EncodingsName::version),
            context: self.context,
            prompt: self.prompt,
        }
    }

    /// Refuses settings of another form: they would do nothing.
    fn coherent(&self) -> anyhow::Result<()> {
        match self.to.writer.misplaced(&self.wanted()) {
            None => Ok(()),
            Some(flag) => anyhow::bail!(
                "`{flag}` means nothing in this form of `{}`\nhint: leave it out; encodings stand \
                 beside float graphs (--graph float)",
                self.to.format.name()
            ),
        }
    }

    /// Refuses what the form cannot say of a model that may end with one of these architectures and
    /// with these schemes, and an output that is there.
    pub(super) fn check(
        &self,
        specs: &[ModelSpec],
        schemes: &Schemes,
        context: &Context,
    ) -> anyhow::Result<()> {
        self.coherent()?;
        anyhow::ensure!(
            !self.output.as_os_str().is_empty(),
            "`output` is missing\nhint: name the file to write"
        );
        if self.to.format.is_file() {
            OutputFile::check(&self.output, context.force)?;
        } else {
            OutputDir::check(&self.output, context.force)?;
        }
        for spec in specs {
            self.to.writer.accepts(spec, schemes, &self.wanted())?;
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
    let target = Target {
        path: &args.output,
        force: context.force,
        progress: context.progress(),
        note: &|line| context.note(line),
    };
    Ok(args.to.writer.write(&opened, &args.wanted(), &target)?)
}
