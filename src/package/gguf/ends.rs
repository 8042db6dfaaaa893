//! Embeddings and heads that are rounded on the way into a file, because somebody asked for it.
use super::error::Unsupported;
use crate::{
    model::{ModelSpec, Role},
    scheme::ggml::Rounding,
};

/// What embeddings and head become; `None` leaves them what the package has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// Of the embeddings, which are the head, too, when tied.
    pub embeddings: Option<Rounding>,
    /// Of a head of its own.
    pub head: Option<Rounding>,
}

/// A tensor that was rounded.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundedTensor {
    /// Its name in the model.
    pub name: String,
    /// The type of its blocks.
    pub format: &'static str,
    /// Whether it was on a coarser grid before.
    pub twice: bool,
    /// `√(Σ(w − rounded)² / Σw²)` against the model's weights.
    pub error: f64,
}

impl Ends {
    /// Refuses a head that is not there and rows that blocks do not divide.
    pub fn accepts(&self, spec: &ModelSpec) -> Result<(), Unsupported> {
        if self.head.is_some() && spec.tied {
            return Err(Unsupported::TiedHead);
        }
        for (what, rounding) in [("embeddings", self.embeddings), ("head", self.head)] {
            let Some(Rounding { format, .. }) = rounding else { continue };
            let (block, columns) = (format.block_len(), spec.hidden);
            if !columns.is_multiple_of(block) {
                return Err(Unsupported::Rows { what, format: format.name(), columns, block });
            }
        }
        Ok(())
    }

    /// What a tensor becomes.
    pub(super) fn of(&self, role: Role) -> Option<Rounding> {
        match role {
            Role::Embed => self.embeddings,
            Role::Head => self.head,
            _ => None,
        }
    }
}
