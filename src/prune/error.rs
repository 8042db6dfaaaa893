//! Why a model cannot be pruned as wanted.
use super::{score::ScoreError, values::ValuesError};
use crate::calibrate::NonFinite;
use crate::linalg::least_squares::FitError;
use crate::model::{ConfigError, Expert, ModelError, Role, WeightError};
use crate::number::OutOfRange;

/// Model and cut do not fit.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// A setting out of its range.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// Activations overflow.
    #[error(transparent)]
    NonFinite(#[from] NonFinite),
    /// What is kept is not a part of the block.
    #[error("block {block}: kept {unit}: expected {expected}, found {found}")]
    Kept {
        /// The block; 0 where a single one is checked.
        block: usize,
        /// What is counted.
        unit: &'static str,
        /// What may be kept.
        expected: String,
        /// What was.
        found: String,
    },
    /// Pairs that differ by head, in a model whose heads share a gain.
    #[error(
        "block {block}: heads with a common norm gain keep different rotary pairs\nhint: --pairs shared, or --attn-unit groups"
    )]
    PairsOfNorm {
        /// The block.
        block: usize,
    },
    /// Another number of blocks than the model has.
    #[error("expected sizes for {expected} blocks, found {found}")]
    Blocks {
        /// Blocks of the model.
        expected: usize,
        /// Given.
        found: usize,
    },
    /// Frequencies that depend on the length of the sequence cannot be those of kept pairs.
    #[error(
        "rope_type `dynamic`: the frequencies of kept rotary pairs cannot be written down\nhint: cut whole heads (--attn-unit heads or groups) or the MLP alone (--ffn-width)"
    )]
    DynamicRope,
    /// Hidden units are mixed before the down projection: no unit can be cut alone.
    #[error(
        "the inputs of down projections are rotated at run time\nhint: prune the checkpoint first, then rotate and quantize"
    )]
    Rotated,
    /// A weight that is quantized.
    #[error(
        "tensor `{tensor}` is quantized already\nhint: prune the float checkpoint, then quantize"
    )]
    Already {
        /// Its name.
        tensor: String,
    },
    /// A stored tensor has another shape than the architecture gives it.
    #[error("tensor `{tensor}`: expected the shape {expected:?}, found {found:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// By the architecture.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// Blocks to keep that are not ascending blocks of the model.
    #[error("kept blocks `{found}` are not ascending blocks of {blocks}\nhint: keep at least one")]
    BlockList {
        /// As given.
        found: String,
        /// Blocks of the model.
        blocks: usize,
    },
    /// The rest of the blocks cannot be written into a config.json.
    #[error(
        "block {block} of the model cannot become block {place} of a shorter one: `{key}` cannot say that it stays as it is\nhint: cut widths instead"
    )]
    Depth {
        /// The block.
        block: usize,
        /// Its new place.
        place: usize,
        /// The key that decides.
        key: &'static str,
    },
    /// A layer that the architecture does not have in this place.
    #[error("block {block} has no {role:?}")]
    Absent {
        /// The block.
        block: usize,
        /// The layer.
        role: Role,
    },
    /// Statistics that were not collected.
    #[error(
        "block {block}: no statistics of the input of {role:?}{}\nhint: calibrate again with them",
        expert.map_or(String::new(), |expert| format!(" ({expert:?})"))
    )]
    Unseen {
        /// The block.
        block: usize,
        /// The layer.
        role: Role,
        /// The expert that it is in.
        expert: Option<Expert>,
    },
    /// The values of a head cannot be rotated.
    #[error("block {block}, key/value head {kv_head}: {source}")]
    Values {
        /// The block.
        block: usize,
        /// The head.
        kv_head: usize,
        /// Why.
        source: ValuesError,
    },
    /// A tensor that is not stored as floats.
    #[error("tensor `{tensor}`: expected F32, F16 or BF16\nhint: prune the float checkpoint")]
    Type {
        /// Its name.
        tensor: String,
    },
    /// Units have no score.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// A layer cannot be refitted.
    #[error(transparent)]
    Repair(#[from] FitError),
    /// No kind of target, or several.
    #[error(
        "expected one kind of target, found {found}\nhint: give one of --target-params, --target-bytes, --keep, --attn-width and --ffn-width, --drop-layers"
    )]
    Targets {
        /// The kinds that are given.
        found: String,
    },
    /// A setting that cannot be used.
    #[error("{name}: expected {expected}, found `{found}`")]
    Setting {
        /// Its flag.
        name: &'static str,
        /// As it was given.
        found: String,
        /// What may stand there.
        expected: String,
    },
    /// Blocks of a form that is not cut.
    #[error(
        "tensor `{tensor}`: expected blocks without norms behind their halves, as those of all families but `{family}` are: a cut would change what the norm sees\nhint: quantize the model as it is"
    )]
    PostNorm {
        /// Its name.
        tensor: String,
        /// The family.
        family: &'static str,
    },
    /// A target that is no cut.
    #[error(
        "a target of {target} parameters is not below the model's {parameters}\nhint: nothing is to be pruned"
    )]
    TooLarge {
        /// Wanted.
        target: u64,
        /// There are.
        parameters: u64,
    },
    /// A target below what the narrowest blocks leave.
    #[error(
        "a target of {target} parameters cannot be reached: embeddings and head have {ends}, the narrowest blocks leave {smallest}\nhint: {smallest} is the smallest target; --drop-layers goes further"
    )]
    TooSmall {
        /// Wanted.
        target: u64,
        /// Of embedding, last norm and head.
        ends: u64,
        /// Fewest parameters.
        smallest: u64,
    },
    /// A weight cannot be had.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// Config and weights of the pruned model disagree.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The pruned model's config.json cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
}
