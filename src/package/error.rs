//! What can be wrong with a package.
use crate::{checkpoint::CheckpointError, model, scheme::ScaleError, tensor::Dtype};

/// A package or checkpoint cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A file is not readable or damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Config and weights do not make a model.
    #[error("`{name}`: {source}")]
    Model {
        /// The folder.
        name: String,
        /// What does not fit.
        source: Box<model::OpenError>,
    },
    /// What a form has against a model, in its own words.
    #[error(transparent)]
    Form(Box<dyn std::error::Error + Send + Sync>),
    /// Two forms claim what stands at a path.
    #[error(
        "`{name}` holds a model in two forms, `{first}` and `{second}`\nhint: move the files of one of them to a folder of its own"
    )]
    TwoForms {
        /// The path.
        name: String,
        /// A form that claims it.
        first: &'static str,
        /// Another one.
        second: &'static str,
    },
    /// A tensor is missing, and another one tells why.
    #[error("`{name}`: tensor `{tensor}` is missing, and `{found}` is there\nhint: {hint}")]
    OtherTensors {
        /// The folder.
        name: String,
        /// What the architecture needs.
        tensor: String,
        /// What stands there instead.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// Weights are stored in a form that cannot be read.
    #[error("`{name}`: {source}")]
    Stored {
        /// The folder.
        name: String,
        /// What is wrong.
        source: Box<super::StoredError>,
    },
    /// The folder has no tokenizer.
    #[error("`{folder}` has no tokenizer.json\nhint: {hint}")]
    NoTokenizer {
        /// The folder.
        folder: String,
        /// What to do.
        hint: String,
    },
    /// The tokenizer or its settings cannot be used.
    #[error("`{folder}`: {source}")]
    Text {
        /// The folder.
        folder: String,
        /// What is wrong.
        source: crate::text::TextError,
    },
    /// A weight cannot be decoded.
    #[error(transparent)]
    Weight(#[from] model::WeightError),
    /// The manifest cannot be parsed.
    #[error("`{file}`: {source}\nhint: the manifest is damaged; make the package again")]
    Manifest {
        /// The manifest.
        file: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The manifest comes from another version.
    #[error(
        "`{file}`: schema {found}, this program reads {expected}\nhint: use the version that wrote it"
    )]
    Schema {
        /// The manifest.
        file: String,
        /// Its schema.
        found: u64,
        /// The known schema.
        expected: u64,
    },
    /// A scale that is no number.
    #[error("`{file}`: tensor `{tensor}`: {source}")]
    Scale {
        /// Name of its file.
        file: String,
        /// The scales.
        tensor: String,
        /// Which one.
        source: ScaleError,
    },
    /// The model is quantized in a way that is not read.
    #[error(
        "config.json: `quantization_config`: {key} `{found}` is not supported\nhint: supported are compressed-tensors packages with 4 or 8 bit integers, or MXFP4"
    )]
    Unsupported {
        /// What is not supported.
        key: &'static str,
        /// What was found.
        found: String,
    },
    /// A key of `quantization_config` that may change what weights stand for.
    #[error(
        "config.json: `quantization_config`: `{key}` is `{found}`, which is not understood\nhint: read are compressed-tensors packages with 4 or 8 bit integers, or MXFP4; give the float checkpoint that it was made from"
    )]
    UnknownKey {
        /// The key, with those above it.
        key: String,
        /// Its value.
        found: String,
    },
    /// A tensor of a quantized module that may change what its weight stands for.
    #[error(
        "tensor `{tensor}` belongs to a quantized module and is not understood\nhint: read are codes, scales, zero points, and `weight_g_idx` with whole groups; give the float checkpoint that it was made from"
    )]
    UnknownPart {
        /// The tensor.
        tensor: String,
    },
    /// A quantized module that no group of the config covers.
    #[error(
        "tensor `{tensor}` is quantized, but no group of `quantization_config` has it as target"
    )]
    NoGroup {
        /// The module's weight.
        tensor: String,
    },
    /// A part of a quantized weight is missing.
    #[error(
        "tensor `{tensor}` is missing\nhint: its weight is declared as quantized; is a shard absent?"
    )]
    MissingPart {
        /// The part.
        tensor: String,
    },
    /// A part of a quantized weight has the wrong form.
    #[error(
        "tensor `{tensor}`: expected {expected_type} {expected:?}, found {found_type} {found:?}"
    )]
    Part {
        /// The part.
        tensor: String,
        /// By its scheme.
        expected_type: Dtype,
        /// By its scheme.
        expected: Vec<usize>,
        /// In the file.
        found_type: Dtype,
        /// In the file.
        found: Vec<usize>,
    },
    /// The group size does not divide the columns.
    #[error("tensor `{tensor}`: groups of {group} do not divide {columns} columns")]
    Uneven {
        /// The weight.
        tensor: String,
        /// Group size.
        group: usize,
        /// Columns.
        columns: usize,
    },
    /// Settings do not fit the model.
    #[error(transparent)]
    Quantize(#[from] crate::quantize::QuantizeError),
    /// A weight is NaN or infinite.
    #[error("{0}\nhint: the checkpoint is damaged; --allow-nonfinite goes on all the same")]
    NonFinite(crate::checkpoint::NonFinite),
    /// The output would replace the input.
    #[error("`{}` holds the model that is read\nhint: choose another output", path.display())]
    OverInput {
        /// The output.
        path: std::path::PathBuf,
    },
    /// A key that cannot be used.
    #[error(
        "{what}: {reason}\nhint: keys are files that `milm-compress sign --new-key` or minisign made; an encrypted one needs --password-file"
    )]
    Key {
        /// Which one.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A package without a signature.
    #[error("`{folder}` is not signed\nhint: `milm-compress sign {folder} --key FILE` signs it")]
    Unsigned {
        /// The folder.
        folder: String,
    },
    /// A signature that is not of this key and this manifest.
    #[error(
        "`{folder}`: the signature of milm.json does not fit: {reason}\nhint: it was changed after it was signed, or signed with another key"
    )]
    Signature {
        /// The folder.
        folder: String,
        /// What is wrong.
        reason: String,
    },
    /// A GGUF file without hashes.
    #[error(
        "`{file}` holds no hashes of its tensors\nhint: files that `milm-compress export` wrote do; others have nothing to be compared with"
    )]
    NoHashes {
        /// The file.
        file: String,
    },
    /// The folder is no package.
    #[error("`{folder}` has no milm.json\nhint: packages are made by `quantize`")]
    NoManifest {
        /// The folder.
        folder: String,
    },
}
