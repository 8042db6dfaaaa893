//! What the HTP does not take, by shapes and schemes alone.
use super::super::weights::BLOCKS;
use crate::{
    model::{ModelSpec, RopeScaling},
    scheme::{Activations, Granularity, Schemes},
};

/// Tokens of a text, unless another number is asked for.
const CONTEXT: usize = 2048;
/// Tokens of a prompt that are read at once, likewise.
const PROMPT: usize = 64;

/// Why a model does not run there.
#[derive(Debug, thiserror::Error)]
pub enum HexagonError {
    /// No blocks.
    #[error("the model has no blocks\nhint: keep at least one")]
    NoBlocks,
    /// A context that leaves no place for a cache.
    #[error(
        "a context of {context} tokens has no place behind a prompt of {prompt}\nhint: --context above --prompt; the HTP wants a cache of at least one token"
    )]
    Context {
        /// Tokens of a text.
        context: usize,
        /// Tokens of a prompt.
        prompt: usize,
    },
    /// More tokens than the model has positions.
    #[error(
        "a context of {context} tokens; the model has {limit} positions\nhint: --context {limit} or fewer"
    )]
    Positions {
        /// Tokens of a text.
        context: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// Frequencies that depend on the length of the text.
    #[error(
        "rotary frequencies change beyond {border} tokens; graphs of fixed shapes have one set\nhint: --context {border} or fewer"
    )]
    Frequencies {
        /// Tokens up to which they are the same.
        border: usize,
    },
    /// A weight that is taken and computed wrongly, or refused.
    #[error("tensor `{tensor}`: {found}; the HTP takes {taken}\nhint: {change}")]
    Weight {
        /// Its name.
        tensor: String,
        /// What it is.
        found: String,
        /// What it may be.
        taken: &'static str,
        /// What to change.
        change: &'static str,
    },
}

/// Tokens of a text and of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) context: usize,
    pub(super) prompt: usize,
}

impl Lengths {
    /// What is asked for; else the defaults, as far as the model has positions.
    pub(super) fn of(
        spec: &ModelSpec,
        context: Option<usize>,
        prompt: Option<usize>,
    ) -> Result<Self, HexagonError> {
        let limit = spec.max_positions.max(1);
        let mut most = limit;
        if let RopeScaling::LongRope { short, long, original, .. } = &spec.rope.scaling
            && short != long
        {
            most = most.min(*original);
        }
        let context = context.unwrap_or(CONTEXT.min(most));
        let prompt = prompt.unwrap_or(PROMPT.min(context / 2));
        match () {
            () if prompt == 0 || context <= prompt => {
                Err(HexagonError::Context { context, prompt })
            }
            () if context > limit => Err(HexagonError::Positions { context, limit }),
            () if context > most => Err(HexagonError::Frequencies { border: most }),
            () => Ok(Self { context, prompt }),
        }
    }
}

/// Refuses what the HTP does not multiply by, or multiplies wrongly.
pub(super) fn accepts(spec: &ModelSpec, schemes: &Schemes) -> Result<(), HexagonError> {
    if spec.blocks.is_empty() {
        return Err(HexagonError::NoBlocks);
    }
    for (name, (scheme, [_, columns])) in schemes {
        let wrong = |found: String, taken, change| {
            Err(HexagonError::Weight { tensor: name.clone(), found, taken, change })
        };
        if scheme.outliers > 0 {
            let found = format!("{} columns on a grid of their own", scheme.outliers);
            return wrong(found, "one grid for all columns", "quantize without --outliers");
        }
        if !scheme.weights.symmetric() {
            let found = format!("{} with zero points, which it multiplies wrongly", scheme.weights);
            return wrong(found, "symmetric codes", "quantize without --asymmetric");
        }
        if scheme.activations != Activations::Float {
            let taken = "float activations here: fp16 between products";
            let change = "quantize with --scheme w4a16, w8a16 or mxfp4";
            return wrong("int8 activations".into(), taken, change);
        }
        let block = match scheme.weights.granularity() {
            Granularity::Channel => columns.is_multiple_of(BLOCKS[0]),
            Granularity::Group(size) => BLOCKS.contains(&size),
        };
        if !block {
            let found = format!("{} of {columns} columns", scheme.weights);
            let taken = "blocks of 16 to 256 that divide the columns";
            return wrong(found, taken, "prune to such a width, or keep it float with --rule");
        }
    }
    Ok(())
}
