//! What can be wrong with a GGUF file, read or written.
use super::arch::Arch;
use crate::{
    checkpoint::CheckpointError,
    model::{OpenError, WeightError},
    scheme::ggml::FORMATS,
    tensor::MapError,
    text::TextError,
};

/// A GGUF file cannot be read or turned into a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The output cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The bytes are damaged.
    #[error("`{file}`: {what}{}", what.hint())]
    Parse {
        /// The file.
        file: String,
        /// What is wrong.
        what: Box<ParseError>,
    },
    /// The file is one of several parts, and they are not whole.
    #[error("`{file}`: {what}")]
    Split {
        /// The file.
        file: String,
        /// What is wrong.
        what: Box<SplitError>,
    },
    /// The content cannot be turned into a checkpoint.
    #[error("`{file}`: {what}")]
    Content {
        /// The file.
        file: String,
        /// What is wrong.
        what: Box<ContentError>,
    },
}

/// Files that are not the parts of one.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name every field")]
pub enum SplitError {
    #[error(
        "it is part {part} of {count}, but its name does not end in `{expected}`, by which the others are found\nhint: give the parts the names that they were published under"
    )]
    Name { part: u64, count: u64, expected: String },
    #[error(
        "of {count} parts are missing: {}\nhint: fetch every part into the same folder",
        missing.join(", ")
    )]
    Missing { count: u64, missing: Vec<String> },
    #[error("part `{part}`: `{key}` is {found}, expected {expected}\nhint: {MIXED}")]
    Key { part: String, key: &'static str, found: String, expected: String },
    #[error("the parts hold {found} tensors, `split.tensors.count` says {expected}\nhint: {MIXED}")]
    Count { found: usize, expected: u64 },
    #[error("tensor `{tensor}` stands in part `{part}` and in one before it\nhint: {MIXED}")]
    Twice { tensor: String, part: String },
}

const MIXED: &str = "are these parts of the same model? fetch all of them again";

/// What a readable file says cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// A key that is needed.
    #[error(
        "key `{key}` is missing\nhint: the file was written by an old or partial converter; convert the model again"
    )]
    NoKey {
        /// The key.
        key: String,
    },
    /// A key holds something else.
    #[error("key `{key}`: expected {expected}, found `{found}`\nhint: convert the model again")]
    Key {
        /// The key.
        key: String,
        /// What may stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Another architecture.
    #[error(
        "architecture `{found}` cannot be imported\nhint: supported are {}; start from the model's Hugging Face folder",
        Arch::ALL.map(Arch::name).join(", ")
    )]
    Architecture {
        /// `general.architecture`.
        found: String,
    },
    /// Something that no config of the architecture says.
    #[error("{what} cannot be imported: {why}\nhint: start from the model's Hugging Face folder")]
    Unsupported {
        /// Key or tensor.
        what: String,
        /// The reason.
        why: String,
    },
    /// The config that was made is not accepted.
    #[error(transparent)]
    Model(#[from] Box<OpenError>),
    /// A tensor that the architecture needs.
    #[error(
        "no tensor for `{name}`\nhint: the metadata describes a model that needs it; is the file one of several parts?"
    )]
    NoTensor {
        /// Its Hugging Face name.
        name: String,
    },
    /// A tensor of another shape.
    #[error(
        "tensor `{tensor}`: the metadata gives the shape {expected:?}, the file {found:?}\nhint: convert the model again"
    )]
    Shape {
        /// Its name.
        tensor: String,
        /// By the metadata.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// NaN or infinity.
    #[error("{found}\nhint: {hint}")]
    NonFinite {
        /// Where.
        found: crate::checkpoint::NonFinite,
        /// What to do.
        hint: &'static str,
    },
    /// A tokenizer that is not known.
    #[error("`{key}` `{found}` is not known\nhint: known are {known}")]
    Tokenizer {
        /// The key.
        key: &'static str,
        /// What was found.
        found: String,
        /// What can be read.
        known: String,
    },
    /// The tokenizer that was made is not accepted.
    #[error("the vocabulary cannot be used: {0}")]
    Text(#[from] Box<TextError>),
    /// The vocabulary has a defect.
    #[error("the vocabulary cannot be used: {why}\nhint: convert the model again")]
    Vocabulary {
        /// What is wrong.
        why: String,
    },
}

/// Stock llama.cpp has no architecture that computes what a model computes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name every field")]
pub enum Unsupported {
    #[error("the model has no blocks\nhint: check `num_hidden_layers` in config.json")]
    NoBlocks,
    #[error(
        "{what}, which llama.cpp does not compute\nhint: quantize without {flag}, or leave this model as a folder"
    )]
    Online { what: &'static str, flag: &'static str },
    #[error(
        "tensor `{tensor}` keeps outlier columns on another grid, which GGUF's blocks do not say\nhint: quantize without --outliers"
    )]
    Outliers { tensor: String },
    #[error(
        "tensor `{tensor}` has static activations; llama.cpp rounds activations in its own way\nhint: quantize with --activations dynamic, or to a scheme with float activations"
    )]
    StaticActivations { tensor: String },
    #[error(
        "activations are rounded to static grids (--preset vendor-standard), which llama.cpp does not do\nhint: quantize with another preset"
    )]
    ActivationGrids,
    #[error(
        "tensor `{tensor}`, {grid} with {columns} columns, has no block type of GGUF with its codes\nhint: int4 in groups of 32, 64 or 128 (Q4_0, Q4_1 with zero points) and symmetric int8 (Q8_0) have one, where 32 divides the groups"
    )]
    Grid { tensor: String, grid: String, columns: usize },
    #[error(
        "{what}, which llama.cpp's `{arch}` does not compute\nhint: leave this model as a folder, or export it as ONNX"
    )]
    Form { arch: &'static str, what: String },
    #[error(
        "tensor `{tensor}` would be {found}, the first expert of `{stack}` is {first}; GGUF has one type for all experts of a block\nhint: give the same projection of all experts of a block one scheme"
    )]
    Stack { tensor: String, stack: String, first: &'static str, found: &'static str },
    #[error(
        "rows of {columns} weights ({what}) are no whole {format} blocks of {block}\nhint: --{what} q8_0 or q4_0 has blocks of 32"
    )]
    Rows { what: &'static str, format: &'static str, columns: usize, block: usize },
    #[error(
        "the head is the embedding: it has no type of its own\nhint: leave --head out; --embeddings holds for both"
    )]
    TiedHead,
    #[error(
        "heads are {first} wide in block 0 and {found} in block {block}; GGUF has one width for all\nhint: prune heads to the same width in every block"
    )]
    HeadWidths { block: usize, first: usize, found: usize },
    #[error(
        "block {block} has another window of attention than block 0, which no architecture of llama.cpp here has\nhint: leave this model as a folder"
    )]
    Windows { block: usize },
    #[error(
        "block {block} has other sizes than block 0 and queries and keys are normalized; llama.cpp's `qwen3` has one size for all blocks\nhint: prune every block of this family to the same shape"
    )]
    NormedBlocksDiffer { block: usize },
    #[error(
        "the rotation needs a factor per frequency, which llama.cpp's `qwen3` and `qwen3moe` do not read\nhint: keep whole heads in this family: prune MLPs, or values alone"
    )]
    NormedFactors,
    #[error(
        "tensor `{tensor}`: llama.cpp's `qwen3` and `qwen3moe` have no biases\nhint: leave this model as a folder"
    )]
    NormedBias { tensor: String },
    #[error(
        "`rope_type` `dynamic`: llama.cpp has no rotation that depends on the length of the text\nhint: remove `rope_scaling` from config.json for texts within the model's positions"
    )]
    DynamicRope,
    #[error(
        "`rope_type` `longrope` with other factors for long texts than for short ones, which llama.cpp reads for other architectures only\nhint: for texts within the original positions, set `long_factor` to `short_factor` in config.json"
    )]
    LongRope,
    #[error(
        "the rotation is multiplied by {found} beside factors per frequency, which is not written\nhint: leave this model as a folder"
    )]
    LongRopeAttention { found: f64 },
    #[error(
        "head {head} of block {block} kept other rotary pairs than the first head of the model; GGUF has one list of frequencies for all\nhint: prune with the same rotary pairs for every head"
    )]
    KeptPairs { block: usize, head: usize },
    #[error(
        "`rope_type` `yarn` with a ramp from {from} to {to}; llama.cpp's begins and ends at whole pairs\nhint: leave this model as a folder"
    )]
    YarnRamp { from: f64, to: f64 },
}

/// A model cannot be written as GGUF.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No architecture of llama.cpp says the model.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The file cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A weight cannot be had.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// The tokenizer cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A scale that float16 does not hold.
    #[error(
        "tensor `{tensor}`: a scale is beyond the range of float16, which GGUF's blocks store\nhint: keep that weight in float (--rule '{tensor}=float')"
    )]
    Scale {
        /// The weight.
        tensor: String,
    },
    /// NaN or infinity.
    #[error("{found}\nhint: {hint}")]
    NonFinite {
        /// Where.
        found: crate::checkpoint::NonFinite,
        /// What to do.
        hint: &'static str,
    },
    /// tokenizer.json has a form that GGUF does not say.
    #[error("tokenizer.json: {what}\nhint: {hint}")]
    Tokenizer {
        /// What was found.
        what: String,
        /// What to do.
        hint: &'static str,
    },
}

/// The bytes are not a GGUF file that can be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name every field")]
pub enum ParseError {
    #[error("expected the magic number `GGUF`, found {found:?}")]
    Magic { found: [u8; 4] },
    #[error("the file is big-endian")]
    BigEndian,
    #[error("version {found}, this program reads 2 and 3")]
    Version { found: u32 },
    #[error("truncated: {what} at byte {at} needs {needed} bytes, {left} are left")]
    Truncated { what: String, at: usize, needed: u64, left: usize },
    #[error("{count} {what} announced before byte {at}, {left} bytes are left")]
    Count { what: String, at: usize, count: u64, left: usize },
    #[error("{what} at byte {at} has {length} bytes, at most {longest} are read")]
    Long { what: String, at: usize, length: u64, longest: u64 },
    #[error("{what} at byte {at} is not UTF-8")]
    NotUtf8 { what: String, at: usize },
    #[error("key `{key}`: unknown value type {found} at byte {at}")]
    ValueType { key: String, at: usize, found: u32 },
    #[error("key `{key}`: the bool at byte {at} is neither 0 nor 1")]
    Bool { key: String, at: usize },
    #[error("key `{key}`: arrays are nested too deeply at byte {at}")]
    Depth { key: String, at: usize },
    #[error("key `{key}` is listed twice")]
    KeyTwice { key: String },
    #[error("key `general.alignment`: expected a power of two up to 1048576, found `{found}`")]
    Alignment { found: String },
    #[error("tensor `{tensor}`: {found} axes at byte {at}, expected 1 to 4")]
    Axes { tensor: String, at: usize, found: u32 },
    #[error("tensor `{tensor}`: the shape {found:?} at byte {at} has no size")]
    Shape { tensor: String, at: usize, found: Vec<u64> },
    #[error("tensor `{tensor}`: {} at byte {at}", type_name(*found))]
    TensorType { tensor: String, at: usize, found: u32 },
    #[error("tensor `{tensor}`: rows of {row} weights are no whole {format} blocks of {block}")]
    Row { tensor: String, format: &'static str, row: usize, block: usize },
    #[error("tensor `{tensor}`: offset {offset} is not a multiple of {alignment}")]
    Misaligned { tensor: String, offset: u64, alignment: u64 },
    #[error(
        "tensor `{tensor}`: {bytes} bytes at offset {offset} of the data, which starts at byte {data}, lie beyond the file's end at {file}"
    )]
    Beyond { tensor: String, offset: u64, bytes: usize, data: u64, file: usize },
    #[error("tensor `{tensor}` is listed twice")]
    TensorTwice { tensor: String },
    #[error("tensors `{first}` and `{second}` overlap at offset {start}")]
    Overlap { first: String, second: String, start: u64 },
}

/// Types of ggml that are not read, for the message.
const UNREAD: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

fn type_name(id: u32) -> String {
    match UNREAD.iter().find(|(known, _)| *known == id) {
        Some((_, name)) => format!("type {name} ({id}) is not read"),
        None => format!("unknown type {id}"),
    }
}

impl ParseError {
    fn hint(&self) -> String {
        match self {
            Self::Magic { .. } => "\nhint: is this a GGUF file?".into(),
            Self::BigEndian => "\nhint: write it on or for a little-endian machine".into(),
            Self::Version { .. } => "\nhint: write the file with a newer converter".into(),
            Self::TensorType { .. } => {
                let read: Vec<_> = FORMATS.iter().map(|f| f.name()).collect();
                format!("\nhint: types that are read: {}", read.join(", "))
            }
            _ => "\nhint: the file is damaged or was not fetched fully; fetch it again".into(),
        }
    }
}
