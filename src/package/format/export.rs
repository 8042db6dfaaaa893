//! What a form is that `export` writes.
use crate::{
    model::ModelSpec,
    package::{Opened, PackageError},
    progress::Progress,
    scheme::{Schemes, ggml::Rounding},
    tensor::FloatType,
};
use std::path::Path;

/// A form that `export` writes.
pub trait Writer: Sync {
    /// What it is for, in a line.
    fn about(&self) -> &'static str;

    /// The first setting that is given and means nothing in this form.
    fn misplaced(&self, wanted: &Wanted<'_>) -> Option<&'static str>;

    /// Refuses a model that the form cannot say. A function of shapes, switches and schemes alone: it can be
    /// asked before there are weights.
    fn accepts(
        &self,
        spec: &ModelSpec,
        schemes: &Schemes,
        wanted: &Wanted<'_>,
    ) -> Result<(), PackageError>;

    /// Writes a model that the form accepts, whole or not at all.
    fn write(
        &self,
        opened: &Opened,
        wanted: &Wanted<'_>,
        target: &Target<'_>,
    ) -> Result<(), PackageError>;
}

/// What is asked of a form; each takes some of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Float type of matrices that are not quantized.
    pub float: Option<FloatType>,
    /// What embeddings are rounded to.
    pub embeddings: Option<Rounding>,
    /// What the head is rounded to.
    pub head: Option<Rounding>,
    /// The engine's name of the pre-tokenizer.
    pub pre: Option<&'a str>,
    /// How a graph says what is quantized.
    pub graph: Option<GraphForm>,
    /// Version of the encodings beside a float graph.
    pub encodings: Option<EncodingsVersion>,
    /// Tokens of a whole text in a graph of fixed shapes.
    pub context: Option<usize>,
    /// Tokens of a prompt that such a graph reads at once.
    pub prompt: Option<usize>,
}

impl Wanted<'_> {
    /// The first setting that is given and is none of those that a form takes.
    pub(in crate::package) fn beside(&self, taken: &[&str]) -> Option<&'static str> {
        let given = [
            ("dtype", self.float.is_some()),
            ("embeddings", self.embeddings.is_some()),
            ("head", self.head.is_some()),
            ("pre", self.pre.is_some()),
            ("graph", self.graph.is_some()),
            ("encodings", self.encodings.is_some()),
            ("context", self.context.is_some()),
            ("prompt", self.prompt.is_some()),
        ];
        let other = |(name, given): &(&str, bool)| *given && !taken.contains(name);
        given.into_iter().find(other).map(|(name, _)| name)
    }
}

/// Where a model is written.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The file or folder.
    pub path: &'a Path,
    /// What stands there may be replaced.
    pub force: bool,
    /// Told of the work.
    pub progress: &'a dyn Progress,
    /// Told what a reader has to know, a line at a time.
    pub note: &'a dyn Fn(&str),
}

/// How a graph says what is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphForm {
    /// Codes behind `DequantizeLinear`, activations through `QuantizeLinear` and back.
    Qdq,
    /// Float weights and activations throughout.
    Float,
    /// One text, `tokens` new ones behind `past` in the cache, every shape fixed: for compilers of NPUs. Codes are
    /// `MatMulNBits`, norms one operator.
    Fixed {
        /// New tokens of a run.
        tokens: usize,
        /// Tokens that the cache has places for, at least 1.
        past: usize,
    },
}

/// Version of AIMET's encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodingsVersion {
    /// Lists of `enc_type`, `scale`, `offset`.
    V1,
    /// As `QuantizeLinear` says it.
    V2,
}
