//! Why nothing can be learnt.
use crate::{forward::ForwardError, model::Expert};

/// A model cannot be trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A weight whose product rounds its input.
    #[error(
        "tensor `{tensor}` has int8 activations, which cannot be trained through\n\
         hint: scales are tuned for float activations: --scheme w4a16 or w8a16"
    )]
    Activations {
        /// The tensor.
        tensor: String,
    },
    /// A tensor that the declaration needs.
    #[error(
        "{place} has no `{role}`\nhint: the checkpoint does not fit its config.json",
        place = block.map_or("the model".to_owned(), |block| format!("block {block}"))
    )]
    Missing {
        /// The block, if it is in one.
        block: Option<usize>,
        /// What the tensor does.
        role: &'static str,
        /// The expert, if it is of one.
        expert: Option<Expert>,
    },
    /// Rotations that are made on the way.
    #[error(
        "the model has rotations that its forward pass makes (milm_transform), which cannot be trained\n\
         hint: train the checkpoint before it is rotated"
    )]
    Rotated,
    /// Streams and tokens.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// A loss that is no number.
    #[error(
        "step {step}: the loss is no finite number{place}\n\
         hint: a lower rate of learning; the last good state is kept, --resume goes on from it",
        place = block.map_or(String::new(), |block| format!(" in block {block}"))
    )]
    Loss {
        /// The step.
        step: usize,
        /// The block that is trained.
        block: Option<usize>,
    },
    /// A model of another form.
    #[error(
        "`{key}` is {found}, the parent's is {expected}\nhint: name the model that this one was cut from as --parent; \
         without --block-epochs 0 both need as many blocks of one width"
    )]
    Parent {
        /// The key of `config.json`.
        key: &'static str,
        /// The parent's.
        expected: usize,
        /// The student's.
        found: usize,
    },
    /// No passes at all.
    #[error("neither --block-epochs nor --epochs: there is nothing to learn")]
    Nothing,
    /// Windows of different lengths.
    #[error("a window of {found} tokens among windows of {expected}")]
    Window {
        /// Tokens of the first.
        expected: usize,
        /// Tokens of another.
        found: usize,
    },
}
