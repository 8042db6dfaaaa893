//! Measures what compression cost: perplexity, and divergence from a reference model.
//!
//! [`Text`](crate::text::Text) → [`Protocol`] cuts it into [`Window`]s with scored positions →
//! [`measure`] asks [`LogitSource`]s for logits, some hundred rows at a time → [`Figures`] →
//! [`Gate`]s.
//! Add a protocol: one function and one line in [`PROTOCOLS`]; the tests go over all of them.
pub mod bench;
mod error;
pub mod followbench;
mod gate;
pub mod ifeval;
mod kld;
pub mod metric;
pub mod needle;
mod protocol;
mod run;
mod source;
mod stored;
mod streams;
pub mod suite;
pub mod task;
mod wikitext;

pub use error::EvalError;
pub use gate::{Against, Fraction, Gate, GateOf, GateResult, Measured, TEXT_FIGURES, read_gates};
pub use kld::KldReference;
pub use metric::{
    Compared, Divergence, Estimate, Figures, IntervalMethod, Perplexity, Ratio, Reduction, Rows,
    Spread, TokenScore, row_divergences,
};
pub use protocol::{BosPolicy, Encoder, PROTOCOLS, Plan, PlanSettings, Protocol, Window};
pub(crate) use run::ROWS;
pub use run::measure;
pub use source::{LogitSource, ModelSource};
pub use stored::{StoredKey, StoredReference, StoredWriter};
pub use streams::StreamSource;
pub use wikitext::{detokenize, pages, words};

/// Version of the JSON form of results (docs/evaluation.md): grows when a field changes its meaning
/// or goes.
pub const SCHEMA: u32 = 1;
