//! Measures what compression cost: perplexity, and divergence from a reference model.
//!
//! [`Text`](crate::text::Text) → [`Protocol`] cuts it into [`Window`]s with scored positions →
//! [`measure`] asks [`LogitSource`]s for logits, some hundred rows at a time → [`Figures`] →
//! [`Gates`].
//! Add a protocol: one function and one line in [`PROTOCOLS`]; the tests go over all of them.
mod error;
mod gate;
pub mod ifeval;
pub mod metric;
mod protocol;
mod run;
mod source;
mod stored;
mod streams;
pub mod task;
mod wikitext;

pub use error::EvalError;
pub use gate::{Fraction, GateResult, Gates};
pub use metric::{
    Compared, Divergence, Estimate, Figures, Perplexity, Ratio, Reduction, Spread, TokenScore,
    row_divergences,
};
pub use protocol::{BosPolicy, Encoder, PROTOCOLS, Plan, PlanSettings, Protocol, Window};
pub use run::measure;
pub use source::{LogitSource, ModelSource, Rows};
pub use stored::{StoredKey, StoredReference, StoredWriter};
pub use streams::StreamSource;
pub use wikitext::{detokenize, pages, words};
